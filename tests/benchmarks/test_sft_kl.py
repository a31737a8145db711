"""The statistic on numbers made by hand, the verdicts, the rows; and the command itself on a model of one layer."""

from __future__ import annotations

import importlib.util
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contender import ModelShape, Outcome
from benchmarks.measuring import (
    MedianInterval,
    in_own_process,
    interleave,
    median_interval,
    peak_above_resident,
    ratio_by_round,
)
from benchmarks.report import Agreement, Comparison, Report
from benchmarks.sft_kl.command import main, memory_case, time_cases
from benchmarks.sft_kl.contenders import IGNORED, Rows, Workload, anchored_positions
from benchmarks.versus import Tolerance
from lit_align.losses.anchor import KLAnchor

# ------------------------------------------------------------------------------------------------ the statistic


def test_interval_of_nine_rounds_leaves_out_the_extremes() -> None:
    # Outside of [2nd, 8th] lies the median with probability 2 (1 + 9) / 512.
    assert median_interval([9, 1, 5, 3, 7, 2, 8, 4, 6]) == MedianInterval(5, 2, 8, 9, 1 - 20 / 512)


def test_interval_of_eight_rounds_is_their_range() -> None:
    # 2 (1 + 8) / 256 outside of [2nd, 7th] would be 7 %.
    assert median_interval([8, 1, 5, 3, 7, 2, 4, 6]) == MedianInterval(4.5, 1, 8, 8, 1 - 2 / 256)


def test_five_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"5 rounds covers the median with 0\.938 < 0\.95; use more rounds"):
        median_interval([1.0] * 5)


@pytest.mark.parametrize("rounds", [6, 9, 15])
def test_interval_covers_the_true_median_as_often_as_it_says(rounds: int) -> None:
    draw = random.Random(0)
    intervals = [median_interval([draw.expovariate(1.0) for _ in range(rounds)]) for _ in range(2000)]
    covered = sum(interval.low <= np.log(2) <= interval.high for interval in intervals) / 2000
    assert abs(covered - intervals[0].coverage) < 0.015  # three standard errors


def test_a_slow_round_of_both_does_not_move_the_ratio() -> None:
    slow = [1.0, 3.0, 1.0, 1.0, 2.0, 1.0]
    interval = ratio_by_round(slow, [2 * second for second in slow])
    assert (interval.low, interval.median, interval.high) == (0.5, 0.5, 0.5)
    assert interval.settles


def test_a_wide_interval_does_not_settle() -> None:
    assert median_interval([0.94, 1.0, 1.0, 1.0, 1.0, 1.08]).settles
    assert not median_interval([0.92, 1.0, 1.0, 1.0, 1.0, 1.08]).settles


def test_steps_take_turns_and_the_first_round_is_not_counted() -> None:
    order: list[str] = []

    def step(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    seconds = interleave({"a": step("a"), "b": step("b"), "c": step("c")}, rounds=2)
    assert "".join(order) == "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2, "c": 2}


# ------------------------------------------------------------------------------------------------ memory, processes


def test_peak_counts_what_was_freed_again() -> None:
    def take() -> int:
        return np.ones(40_000_000, np.uint8).size

    size, peak = peak_above_resident(take)
    assert size == 40_000_000
    assert 38 < peak < 60


def test_a_process_starts_under_its_environment_and_leaves_none_behind() -> None:
    assert in_own_process({"MALLOC_MMAP_MAX_": "0"}, os.getenv, "MALLOC_MMAP_MAX_") == "0"
    assert "MALLOC_MMAP_MAX_" not in os.environ


def test_an_error_in_a_process_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        in_own_process({}, int, "x")


# ------------------------------------------------------------------------------------------------ the rows


def test_rows_have_the_padding_that_they_say() -> None:
    _, mask, labels = Rows(count=4, longest=50, padding=0.2, prompt=10).padded(100)
    assert mask.sum(1).tolist() == [50, 43, 37, 30]
    assert (labels != IGNORED).sum(1).tolist() == [40, 33, 27, 20]


def test_the_same_targets_are_anchored_on_both_sides() -> None:
    rows, anchor = Rows(count=2, longest=12, padding=0.1, prompt=4), KLAnchor(tail_tokens=3)
    _, _, labels = rows.padded(100)
    at = anchored_positions(Workload(ModelShape(100), rows, anchor), labels)
    assert at.nonzero().tolist() == [[0, 8], [0, 9], [0, 10], [1, 6], [1, 7], [1, 8]]  # a row of 12 and one of 10


def test_rows_share_no_beginning() -> None:
    firsts = {tuple(path.tokens[:3]) for path in Rows(count=8, longest=64, prompt=16).paths(5120)}
    assert len(firsts) == 8


# ------------------------------------------------------------------------------------------------ the verdicts


def comparison(ratio: MedianInterval | float, target: float | None) -> Comparison:
    return Comparison("SFT+KL", "peer", "s", [1.0], [2.0], ratio, target, Agreement(1e-7, 2e-7))


@pytest.mark.parametrize(
    ("ratio", "target", "verdict"),
    [
        (0.3, 0.3, "met"),
        (0.31, 0.3, "missed"),
        (MedianInterval(0.29, 0.28, 0.31, 9, 0.96), 0.3, "met"),
        (MedianInterval(0.32, 0.3, 0.34, 9, 0.96), 0.3, "met by the interval"),
        (MedianInterval(0.32, 0.31, 0.33, 9, 0.96), 0.3, "missed"),
        (MedianInterval(0.32, 0.31, 0.4, 9, 0.96), 0.3, "missed"),  # wide, and all of it above
        (MedianInterval(0.2, 0.1, 0.3, 9, 0.96), 0.3, "met"),  # wide, and all of it below
        (MedianInterval(0.29, 0.2, 0.4, 9, 0.96), 0.3, "not settled"),
        (MedianInterval(0.32, 0.3, 0.4, 9, 0.96), 0.3, "not settled"),
        (0.3, None, ""),
    ],
)
def test_a_target_is_met_where_the_interval_reaches_it(
    ratio: MedianInterval | float, target: float | None, verdict: str
) -> None:
    assert comparison(ratio, target).verdict() == verdict


def test_a_row_names_its_figures_and_its_doubt() -> None:
    row = comparison(MedianInterval(0.5, 0.4, 0.6, 9, 0.96), 0.6).row(with_target=True)
    assert (
        row
        == "| SFT+KL | peer | 1.00 | 2.00 | 0.500 [0.400, 0.600] does not settle | <= 0.60: met | 1.0e-07 | 2.0e-07 |"
    )


def test_rounds_that_are_not_alike_are_also_summed_up() -> None:
    ratio = MedianInterval(0.5, 0.2, 0.8, 6, 0.96)
    one = Comparison("DPO", "peer", "s", [1.0, 4.0], [4.0, 6.0], ratio, None, Agreement(1e-7, 2e-7), alike=False)
    assert "| 0.500 [0.200, 0.800]; sums 0.500 |" in one.row(with_target=True)


def test_other_shapes_are_not_judged(tmp_path: Path) -> None:
    report = Report("sft_kl", "SFT", {}, {}, {}, shapes_of_targets=False, memory=[comparison(0.5, 0.3)])
    report.write(tmp_path)
    assert "missed" not in (tmp_path / "sft_kl.md").read_text() + (tmp_path / "sft_kl.json").read_text()


def test_contenders_that_differ_stop_the_run() -> None:
    ours, peer = Outcome(2.0, np.ones(4, np.float32)), Outcome(2.0, np.ones(4, np.float32) + np.float32(2e-4))
    assert Tolerance().agreement(ours, ours, "peer") == Agreement(0.0, 0.0)
    with pytest.raises(SystemExit, match=r"peer: loss differs .* 0\.0e\+00 .*gradients by 2\.0e-04 \(1e-04\)"):
        Tolerance().agreement(ours, peer, "peer")


def test_every_target_names_a_peer_of_its_case() -> None:
    cases = [*time_cases(ModelShape(100), 4, 512, 128, rounds=6), memory_case(ModelShape(100), 8, 512, 128)]
    assert all(set(case.targets) <= {peer.name for peer in case.peers} for case in cases)
    assert all(case.targets for case in cases)


# ------------------------------------------------------------------------------------------------ the command


def test_a_missing_peer_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match=r"TRL, which is not installed: pip install -e '\.\[benchmark\]'$"):
        main([])


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--rounds", "5"], "--rounds must be at least 6 .* got 5"), (["--prompt", "256"], "--prompt .* got 256")],
)
def test_a_wrong_option_is_named(words: list[str], message: str) -> None:
    pytest.importorskip("trl")
    with pytest.raises(SystemExit, match=message):
        main(words)


def test_too_little_memory_is_said_before_anything_runs() -> None:
    pytest.importorskip("trl")
    with pytest.raises(SystemExit, match=r"needs about \d+ GB, .*--memory-batch \(now 999999\)"):
        main(["--memory-batch", "999999"])


@pytest.mark.slow
def test_the_command_writes_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl")
    small = "--parts time memory --rounds 6 --batch 2 --longest 24 --prompt 8 --hidden 32 --layers 1 --vocabulary 64"
    main([*small.split(), "--memory-layers", "1", "--memory-vocabulary", "64", "--output", str(tmp_path)])
    text = (tmp_path / "sft_kl.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    assert "none is judged" in text
    content = json.loads((tmp_path / "sft_kl.json").read_text())
    assert [(row["case"], row["peer"]) for row in content["memory"]] == [
        ("SFT+KL", "TRL kernels"),
        ("SFT+KL", "TRL kernels + gc"),
        ("SFT+KL", "naive"),
    ]
    assert len(content["time"]) == 10
    for row in content["time"]:
        assert len(row["ours"]) == len(row["theirs"]) == row["ratio"]["rounds"] == 6
        assert row["agreement"]["loss"] < 1e-5
        assert row["agreement"]["gradient"] < 1e-4
        assert f"| {row['case']} | {row['peer']} |" in text

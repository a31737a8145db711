"""Curves, intervals and verdicts say what planted results hold; finished runs are kept and not repeated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks_main
from benchmarks.forgetting import command as forgetting
from benchmarks.forgetting.curves import Answers, Comparison, Point, Resampling, compare, lost_at, verdict
from benchmarks.forgetting.log import Record, append_record, read_records
from benchmarks.forgetting.runs import FULL_LR, Setting, data_of, identity, setting_of
from lit_align.data.sft import SFTDataModule
from lit_align.metrics.statistics import Interval

# ---------------------------------------------------------------------- along a curve


@pytest.mark.parametrize(("gain", "expected"), [(0.0, 0.0), (0.25, 0.1), (0.5, 0.2), (0.75, 0.5), (1.0, 0.8)])
def test_a_rising_curve_is_interpolated_between_its_points(gain: float, expected: float) -> None:
    assert float(lost_at(np.array([1.0, 0.5, 0.0]), np.array([0.8, 0.2, 0.0]), gain)) == pytest.approx(expected)


def test_a_curve_beyond_the_gain_counts_with_its_lowest_point_and_one_below_it_not_at_all() -> None:
    gains, losses = np.array([0.99, 1.0, 0.98]), np.array([0.9, 0.1, 0.05])
    assert float(lost_at(gains, losses, 0.5)) == 0.05
    assert float(lost_at(gains, losses, 0.99)) == pytest.approx(0.075)
    assert np.isnan(lost_at(gains, losses, 1.01))


def test_each_resample_is_a_curve_of_its_own() -> None:
    gains, losses = np.array([[1.0, 0.0], [0.4, 0.0]]), np.array([[0.6, 0.0], [0.2, 0.0]])
    found = lost_at(gains, losses, 0.5)
    assert found[0] == pytest.approx(0.3)
    assert np.isnan(found[1])


# ---------------------------------------------------------------------- points and intervals


def rows(*shares: float, n: int = 200, seed: int = 0) -> Any:
    """Right and wrong answers with exact shares, a row a seed."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation((np.arange(n) < round(share * n)).astype(float)) for share in shares])


def own_clusters(n: int = 200) -> list[str]:
    return [str(i) for i in range(n)]


def test_gain_and_loss_have_their_signs_and_each_seeds_value() -> None:
    resampling = Resampling(own_clusters(), own_clusters(), seeds=2)
    before = Answers(rows(0.1), rows(0.9))
    point = resampling.point(0.5, before, Answers(rows(0.6, 0.8), rows(0.5, 0.3)))
    assert (point.gain.mean, point.lost.mean) == pytest.approx((0.6, 0.5))
    assert point.seed_gains == pytest.approx([0.5, 0.7])
    assert point.seed_losses == pytest.approx([0.4, 0.6])
    assert point.gain.low < 0.6 < point.gain.high
    assert point.lost.low < 0.5 < point.lost.high


def test_interval_over_questions_is_the_binomials() -> None:
    resampling = Resampling(own_clusters(400), own_clusters(400), seeds=1)
    point = resampling.point(0.0, Answers(np.zeros((1, 400)), np.ones((1, 400))), Answers(*[rows(0.5, n=400)] * 2))
    half = 1.96 * (0.25 / 400) ** 0.5
    for interval in (point.gain, point.lost):
        assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.1)


def test_questions_of_one_cluster_widen_the_interval() -> None:
    answers = np.repeat(rows(0.5, n=50), 4, axis=1)
    pairs = [(own_clusters(), "own"), ([str(i // 4) for i in range(200)], "shared")]
    width = {}
    for labels, name in pairs:
        gain = Resampling(labels, own_clusters(), 1).point(0, Answers(rows(0.0), rows(1.0)), Answers(answers, answers))
        width[name] = gain.gain.high - gain.gain.low
    assert width["shared"] / width["own"] == pytest.approx(2.0, rel=0.1)


def test_seeds_that_differ_widen_the_interval() -> None:
    resampling = Resampling(own_clusters(), own_clusters(), seeds=3)
    before = Answers(rows(0.0), rows(1.0))
    alike, apart = (
        resampling.point(0, before, Answers(rows(*shares), rows(*shares)))
        for shares in ((0.5, 0.5, 0.5), (0.2, 0.5, 0.8))
    )
    assert apart.gain.high - apart.gain.low > 3 * (alike.gain.high - alike.gain.low)


def test_where_all_questions_agree_the_interval_is_not_of_zero_width() -> None:
    resampling = Resampling(own_clusters(), own_clusters(), seeds=3)
    point = resampling.point(0, Answers(rows(0.0), rows(1.0)), Answers(rows(1, 1, 1), rows(1, 1, 1)))
    unseen = 1 - 0.025 ** (1 / 200)
    assert (point.gain.low, point.gain.high) == pytest.approx((1 - 2 * unseen, 1.0))
    assert (point.lost.low, point.lost.high) == pytest.approx((-unseen, unseen))


def test_rows_that_are_not_one_a_seed_are_refused() -> None:
    resampling = Resampling(own_clusters(), own_clusters(), seeds=3)
    with pytest.raises(ValueError, match="3 rows, or 1 on one side, got 1 and 2"):
        resampling.point(0, Answers(rows(0), rows(1)), Answers(rows(1, 1), rows(1, 1)))


# ---------------------------------------------------------------------- equal gain and verdict


def curve(losses: tuple[float, ...], gains: tuple[float, ...] = (1.0, 0.8, 0.4, 0.1), seed: int = 0) -> list[Point]:
    resampling = Resampling(own_clusters(), own_clusters(), seeds=3)
    before = Answers(rows(0.0), rows(1.0))
    return [
        resampling.point(i, before, Answers(rows(*[gain] * 3, seed=seed), rows(*[1 - loss] * 3, seed=seed + i)))
        for i, (gain, loss) in enumerate(zip(gains, losses, strict=True))
    ]


HIGH, LOW = (0.9, 0.8, 0.6, 0.4), (0.9, 0.3, 0.1, 0.0)


def judged(first: list[Point], second: list[Point]) -> str:
    return verdict("the anchor", "a lower rate", [compare(first, second, gain) for gain in (0.25, 0.5, 0.75)])


def test_a_curve_that_loses_less_is_called_better() -> None:
    assert judged(curve(LOW), curve(HIGH)) == (
        "At equal gain the anchor is better than a lower rate: it loses less skill at a gain of 0.25, 0.5, 0.75."
    )


def test_a_curve_that_loses_more_is_called_no_better() -> None:
    assert judged(curve(HIGH), curve(LOW)) == (
        "At equal gain the anchor is no better than a lower rate: it loses more skill at a gain of 0.25, 0.5, 0.75."
    )


def test_a_curve_is_no_better_than_itself() -> None:
    difference = compare(curve(LOW), curve(LOW), 0.5).difference
    assert difference == Interval(0.0, 0.0, 0.0)
    assert judged(curve(LOW), curve(LOW)) == (
        "At equal gain the anchor is no better than a lower rate: "
        "the interval of the difference holds 0 at a gain of 0.25, 0.5, 0.75."
    )


def test_curves_that_cross_are_better_at_some_gains_only() -> None:
    crossing = curve((0.9, 0.9, 0.1, 0.0))
    text = judged(crossing, curve((0.9, 0.5, 0.4, 0.4)))
    assert text.startswith("Whether the anchor is better than a lower rate depends on the gain: it loses less skill")
    assert "it loses more skill at a gain of 0.75" in text


def test_a_gain_that_a_curve_does_not_reach_is_named() -> None:
    short = curve(LOW, gains=(0.6, 0.5, 0.3, 0.1))
    comparison = compare(short, curve(LOW), 0.75)
    assert (comparison.first, comparison.difference) == (None, None)
    assert comparison.second is not None
    assert judged(short, curve(HIGH)).endswith("no comparison at 0.75, which not both reach.")
    never = [Comparison(0.5, None, 0.2, None, 0.0)]
    assert verdict("a", "b", never) == "No verdict on a and b: there is no gain that both reach."


def test_a_gain_reached_in_half_of_the_resamples_gets_no_interval() -> None:
    edge = curve(LOW, gains=(0.75, 0.5, 0.3, 0.1))
    comparison = compare(edge, curve(LOW), 0.75)
    assert comparison.first is not None
    assert 0.3 < comparison.reached < 0.7
    assert comparison.difference is None


# ---------------------------------------------------------------------- the file of finished runs


@pytest.mark.parametrize("tail", [b'{"seed": 2, "new": "01', b'{"seed": 2}', b"\x00\x00\n"])
def test_a_half_written_last_line_is_cut_off_and_said(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "runs.jsonl"
    append_record(path, {"seed": 0})
    append_record(path, {"seed": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    records, message = read_records(path)
    assert records == [{"seed": 0}, {"seed": 1}]
    assert message is not None
    assert "runs.jsonl:3" in message
    assert path.read_bytes() == whole
    assert read_records(path) == (records, None)


def test_a_broken_line_in_the_middle_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b'{"seed": 0}\n{"se\n{"seed": 2}\n')
    with pytest.raises(ValueError, match=r"runs\.jsonl:2 is no JSON object; .*--fresh"):
        read_records(path)
    assert path.read_bytes() == b'{"seed": 0}\n{"se\n{"seed": 2}\n'


# ---------------------------------------------------------------------- the command


def planted(setting: Setting, seed: int) -> Record:
    """A run in which the anchor loses all and a lower learning rate next to nothing, at the same gains."""
    rng = np.random.default_rng(seed)
    learnt = {"untrained": 0.0, "plain SFT": setting.lr / FULL_LR, "anchor": 1 - setting.strength}
    gain = learnt.get(setting.method, 1.0)
    kept = {"untrained": 1.0, "plain SFT": 1 - gain**8, "anchor": 0.1}.get(setting.method, 0.8)
    bits = {
        key: "".join("01"[int(value < share)] for value in rng.random(n * setting.items))
        for key, share, n in (("new", gain, 1), ("old", kept, 5))
    }
    return {**identity(setting, seed), **bits, "cap_hit": 0.0, "wall_s": 1.0, "cpu_s": 1.0, "environment": ENVIRONMENT}


ENVIRONMENT = {"platform": "here", "cpus": 1, "cpu_threads": 1, "packages": {}, "commit": None, "python": "3.11"}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Setting, int]]:
    """Replaces training by planted results; what was asked for is listed."""
    asked: list[tuple[Setting, int]] = []

    def run_once(setting: Setting, seed: int) -> Record:
        asked.append((setting, seed))
        return planted(setting, seed)

    monkeypatch.setattr(forgetting, "run_once", run_once)
    return asked


SMALL = ["--out", "results", "--items", "40"]


def test_finished_runs_are_not_repeated_and_a_broken_one_is(
    runs: list[tuple[Setting, int]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "load_matplotlib", lambda: None)
    monkeypatch.setattr(forgetting, "draw", lambda *_: None)
    arguments = [*SMALL, "--seeds", "0", "1", "--only", "anchor", "--strengths", "0.2", "0.5", "0.9"]
    forgetting.main(arguments)
    first, table = list(runs), Path("results/forgetting.md").read_text()
    assert len(first) == len(set(first)) == 1 + 4 * 2

    runs.clear()
    forgetting.main(arguments)
    assert runs == []
    assert "9 of them are in results/forgetting.jsonl and are not repeated" in capsys.readouterr().out
    assert Path("results/forgetting.md").read_text() == table

    path = Path("results/forgetting.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    forgetting.main(arguments)
    assert runs == first[-1:]
    assert "half-written" in capsys.readouterr().out
    assert Path("results/forgetting.md").read_text() == table

    runs.clear()
    forgetting.main([*arguments, "--steps", "60"])
    assert {setting.steps for setting, _ in runs} == {60}
    runs.clear()
    forgetting.main([*arguments, "--fresh"])
    assert runs == first


def test_report_has_every_point_and_the_verdict_of_the_planted_results(runs: list[tuple[Setting, int]]) -> None:
    pytest.importorskip("matplotlib")
    forgetting.main([*SMALL, "--only", "anchor", "--only", "lower learning rate"])
    text = Path("results/forgetting.md").read_text()
    assert "At equal gain the anchor on the trained answers is no better than a lower learning rate" in text
    assert len([line for line in text.splitlines() if line.startswith(("| anchor |", "| lower learning rate |"))]) == 8
    assert "40 of the new skill" in text
    assert "200 of the old skills" in text
    assert "--only 'lower learning rate'" in text
    assert Path("results/forgetting.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_nothing_is_run_and_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_once(setting: Setting, seed: int) -> Record:
        raise AssertionError("a run was started")

    monkeypatch.setattr(forgetting, "run_once", run_once)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"matplotlib, which is missing: pip install -e \"\.\[benchmark\]\""):
        forgetting.main(SMALL)


def test_a_record_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="--fresh"):
        setting_of({"setting": {"method": "anchor", "coefficient": 1}})


def test_commands_are_listed_and_a_typo_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        benchmarks_main(["--help"])
    assert {"forgetting", "sft-kl"} <= set(capsys.readouterr().out.split())
    with pytest.raises(SystemExit, match="2"):
        benchmarks_main(["forgeting"])
    assert "'forgeting'" in capsys.readouterr().err


# ---------------------------------------------------------------------- real runs


def windows_of(data: SFTDataModule) -> tuple[list[tuple[str, ...]], set[float], set[float]]:
    """Examples of the first windows; weights of the trained and of the replayed conversations."""
    data.setup("fit")
    trees, plan = (data._trained, data._replayed), data._plan
    names = []
    for window in range(4):
        picked = (plan.trained_in(window), plan.replayed_in(window))
        names.append(tuple(trees[side][i].name for side in (0, 1) for i in picked[side]))
    trained, replayed = ({path.weight for tree in side for path in tree.paths} for side in trees)
    return names, trained, replayed


def test_replay_by_nll_has_the_very_windows_of_replay_by_kl() -> None:
    by_kl, *kl_weights = windows_of(data_of(Setting("replay KL", 0.1, FULL_LR, 2, 5), seed=1))
    by_nll, *nll_weights = windows_of(data_of(Setting("replay NLL", 0.1, FULL_LR, 2, 5), seed=1))
    assert by_kl == by_nll
    assert [len(window) for window in by_kl] == [28] * 4
    assert (kl_weights, nll_weights) == ([{1.0}, {0.0}], [{1.0}, {0.1}])


@pytest.mark.slow
def test_two_real_steps_of_each_curve_leave_table_plot_and_runs() -> None:
    pytest.importorskip("matplotlib")
    forgetting.main(["--out", "results", "--items", "2", "--steps", "2", "--seeds", "4"])
    lines = [json.loads(line) for line in Path("results/forgetting.jsonl").read_text().splitlines()]
    assert len(lines) == 1 + 1 + sum(len(one.strengths) for one in forgetting.CURVES.values())
    assert {len(line["new"]) for line in lines} == {2}
    assert {len(line["old"]) for line in lines} == {10}
    assert all(line["cpu_s"] > 0 and line["environment"]["packages"]["torch"] for line in lines)
    assert "No verdict" in Path("results/forgetting.md").read_text()
    assert Path("results/forgetting.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_real_run_is_the_same_each_time() -> None:
    check: Callable[..., Record] = forgetting.run_once
    setting = Setting("replay KL", 0.1, FULL_LR, 12, 4)
    first, second = (check(setting, seed=3) for _ in range(2))
    assert (first["new"], first["old"]) == (second["new"], second["old"])

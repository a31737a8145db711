"""The run that makes README's tables: what it is made of, float64, and whether two runs agree."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import readme
from benchmarks.contender import ModelShape, PreparedStep
from benchmarks.dpo.command import exactness_cases, made_pairs, time_cases
from benchmarks.exactness import FLOAT64, ExactnessCase, in_float64
from benchmarks.measuring import MedianInterval
from benchmarks.report import Agreement, Comparison, Exactness, Report
from benchmarks.reruns import reruns, table
from benchmarks.sft_kl.contenders import Naive, Ours, Rows, Workload
from lit_align.losses.anchor import KLAnchor

SHAPE = ModelShape(120, hidden=32, layers=2)

# ------------------------------------------------------------------------------------------------ exactness


@pytest.mark.parametrize("number", [0, 1, 2])
def test_dpo_steps_are_exact_in_float64(number: int) -> None:
    case = exactness_cases(time_cases(SHAPE, made_pairs(120, part=0.03), rounds=6))[number]
    found = case.hold()
    assert found.case == case.name
    assert 0 < found.agreement.gradient < FLOAT64.gradient


def test_sft_steps_are_exact_in_float64() -> None:
    workload = Workload(SHAPE, Rows(2, 24, 0.2, prompt=6), KLAnchor(coef=0.3, tail_tokens=8))
    assert ExactnessCase("SFT+KL", workload, Ours(), Naive()).hold().agreement.loss < FLOAT64.loss


def test_a_step_that_is_not_exact_stops_the_run() -> None:
    case = exactness_cases(time_cases(SHAPE, made_pairs(120, part=0.03), rounds=6))[0]

    class Off(type(case.naive)):  # type: ignore[misc]
        def prepare(self, workload: object, base: str) -> PreparedStep:
            step = case.naive.prepare(workload, base)

            def run() -> torch.Tensor:
                return step.run() * (1 + 1e-10)

            return replace(step, run=run)

    with pytest.raises(SystemExit, match=r"float64: naive: loss differs from ours by 1\.0e-10"):
        replace(case, naive=Off()).hold()


def test_a_model_without_norms_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear: no RMSNorm"):
        in_float64(PreparedStep(lambda: torch.zeros(()), nn.Linear(2, 2), {}))


# ------------------------------------------------------------------------------------------------ one report


def comparison(case: str, median: float, half: float, alike: bool = True) -> Comparison:
    ratio = MedianInterval(median, median - half, median + half, 9, 0.96)
    return Comparison(case, "TRL", "s", [median, 3.0], [1.0, 3.0], ratio, 0.5, Agreement(1e-7, 2e-7), alike)


def report(name: str, rows: list[Comparison]) -> Report:
    exact = [Exactness(rows[0].case, Agreement(1e-15, 2e-15))]
    return Report(name, "A step", {"cores": "2"}, {}, {"layers": "6"}, True, time=rows, exactness=exact)


def test_a_run_is_both_commands_in_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[argparse.Namespace] = []

    def of(name: str, case: str) -> object:
        def measured(options: argparse.Namespace) -> Report:
            asked.append(options)
            return report(name, [comparison(case, 0.4, 0.01)])

        return measured

    monkeypatch.setattr(readme.dpo, "measured", of("dpo_time_cached", "chat"))
    monkeypatch.setattr(readme.sft_kl, "measured", of("sft_kl", "SFT+KL"))
    readme.main(["--rounds", "7", "--tatqa", "dev.json", "--tokenizer", "qwen", "--output", str(tmp_path)])
    assert [one.rounds for one in asked] == [7, 7]
    assert (asked[0].tatqa, asked[0].tokenizer, asked[0].table_passes) == (Path("dev.json"), "qwen", 2)
    assert [one.parts for one in asked] == [["time", "cached", "exact"], ["time", "exact"]]
    text = (tmp_path / "readme.md").read_text()
    assert "| chat | TRL | " in text
    assert "| SFT+KL | TRL | " in text
    assert "| SFT+KL | 1.0e-15 | 2.0e-15 |" in text
    assert "- dpo, layers: 6" in text
    assert "- sft_kl, layers: 6" in text


# ------------------------------------------------------------------------------------------------ two runs


def content(tmp_path: Path, name: str, rows: list[Comparison]) -> dict[str, object]:
    report(name, rows).write(tmp_path)
    read: dict[str, object] = json.loads((tmp_path / f"{name}.json").read_text())
    return read


def test_settled_ratios_agree_within_a_tenth(tmp_path: Path) -> None:
    pairs = {
        "same": ((0.40, 0.01), (0.44, 0.01)),
        "other": ((0.40, 0.01), (0.45, 0.01)),
        "faster": ((0.40, 0.01), (0.30, 0.01)),
        "wide": ((0.40, 0.10), (0.90, 0.01)),
        "wide again": ((0.40, 0.01), (0.90, 0.20)),
    }
    one, other = ([comparison(name, *both[run]) for name, both in pairs.items()] for run in (0, 1))
    rows = reruns(content(tmp_path, "one", one), content(tmp_path, "other", other))
    assert {row.row.split(",")[0]: row.verdict for row in rows} == {
        "same": "agrees",
        "other": "differs",
        "faster": "differs",
        "wide": "not settled",
        "wide again": "not settled",
    }
    assert "agrees: 1, differs: 2, not settled: 2 (bound 10%)" in table(rows)
    assert "| other, TRL, time | 0.400 | 0.450 | +12.5% | differs |" in table(rows)


def test_unlike_rounds_are_compared_by_their_sums(tmp_path: Path) -> None:
    one = content(tmp_path, "one", [comparison("tables", 0.4, 0.3, alike=False)])
    (row,) = reruns(one, one)
    assert row.ratios == pytest.approx((3.4 / 4, 3.4 / 4))
    assert row.verdict == "agrees"


def test_runs_without_a_common_row_are_refused(tmp_path: Path) -> None:
    one, other = (content(tmp_path, name, [comparison(name, 0.4, 0.01)]) for name in ("one", "other"))
    with pytest.raises(ValueError, match="the runs one and other have no row in common"):
        reruns(one, other)


def test_comparing_measures_nothing_and_fails_where_runs_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content(tmp_path, "readme", [comparison("chat", 0.4, 0.01)])
    content(tmp_path, "other", [comparison("chat", 0.5, 0.01)])
    with pytest.raises(SystemExit, match="1"):
        readme.main(["--compare", str(tmp_path / "other.json"), "--output", str(tmp_path)])
    assert "+25.0% | differs" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"none\.json does not exist"):
        readme.main(["--compare", str(tmp_path / "none.json"), "--output", str(tmp_path)])

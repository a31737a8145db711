"""A real fit of a small model, its cost dealt out in two."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import loop
from benchmarks.contender import ModelShape
from benchmarks.dims import DIMS
from benchmarks.loop import CASES, LoopCost, fit
from benchmarks.measuring import in_own_process


@pytest.mark.slow
def test_a_fit_is_dealt_out_in_two() -> None:
    cost = in_own_process({}, fit, CASES[1], ModelShape(4096, hidden=32, layers=1), 3, 64)
    assert cost.windows == 3
    assert 0 < cost.graded < cost.seconds


def test_a_run_that_fails_is_said_and_the_folder_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path.cwd()
    monkeypatch.setattr("lit_align.cli.main", lambda _words: 2)
    with pytest.raises(SystemExit, match="lit-align fit ended with 2"):
        fit(CASES[0], ModelShape(64, hidden=32, layers=1), 1, 64)
    assert Path.cwd() == before == Path(os.getcwd())  # noqa: PTH109


def test_a_goal_is_met_up_to_its_bound() -> None:
    assert LoopCost("DPO", 10, seconds=10.5, graded=10.0).row() == "| DPO | 10 | 1.050 | 1.000 | 5.0% | <= 5%: met |"
    assert LoopCost("DPO", 10, seconds=10.6, graded=10.0).row().endswith("missed |")


def test_pairs_come_six_to_a_context() -> None:
    rows = loop._rows(CASES[1], 12, tokens=60)
    groups = [row["group"] for row in rows]
    assert groups == ["table 0"] * 6 + ["table 1"] * 6
    assert len({row["prompt"].split("\n")[0] for row in rows[:6]}) == 1
    assert len({row["prompt"] for row in rows}) == 12


@pytest.mark.parametrize(("name", "millions"), [("smollm2-135m", 135), ("0.6b", 596), ("1.7b", 1721), ("4b", 4022)])
def test_dimensions_are_those_of_the_real_models(name: str, millions: int) -> None:
    one = DIMS[name]
    attention = one.hidden * one.head_dim * (2 * one.heads + 2 * one.key_value_heads)
    mlp = 3 * one.hidden * (one.intermediate or 3 * one.hidden)
    parameters = one.vocabulary * one.hidden + one.layers * (attention + mlp)
    assert parameters / 1e6 == pytest.approx(millions, rel=0.005)

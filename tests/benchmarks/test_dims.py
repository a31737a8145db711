"""Number formats and devices of a step, several tables in a forest, and what the command refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import at_dims
from benchmarks.at_dims import REDUCED, cases_at, main
from benchmarks.contender import ModelShape
from benchmarks.dims import DIMS
from benchmarks.dpo.command import made_pairs
from benchmarks.dpo.ours import Ours
from benchmarks.dpo.pairs import MadePairs, PairWorkload
from benchmarks.setting import NumberFormat, Setting


def test_tables_share_nothing_with_each_other() -> None:
    rows = MadePairs(count=3, context=20, question=(4, 4), answer=(2, 2), vocabulary=500, tables=2)
    forest = rows.window().forests[0]
    assert len(rows.pairs()) == 6
    assert len(forest) == 2 * (20 + 3 * (4 + 2 * 2))
    assert sum(segment.parent < 0 for segment in forest.segments) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "nf4"])
def test_a_step_in_reduced_precision_is_near_that_in_fp32(
    dtype: NumberFormat, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shape = ModelShape(200, hidden=64, layers=2)
    rows = made_pairs(200, part=0.05)["TAT-QA, six questions on one table"]
    base = shape.save(tmp_path_factory.mktemp("base"))
    exact = PairWorkload(shape, rows, batch=6)
    full = Ours().prepare(exact, base).outcome()
    step = Ours().prepare(replace(exact, setting=Setting(dtype)), base)
    formats = {one.dtype for name, one in step.model.named_parameters() if "lora" not in name}
    assert torch.bfloat16 in formats
    assert all(one.dtype == torch.float32 for one in step.adapter.values())
    reduced = step.outcome()
    assert 0 < abs(reduced.loss / full.loss - 1) < (REDUCED.loss if dtype == "bfloat16" else 0.5)


def test_cases_are_those_of_the_commands_at_other_dimensions() -> None:
    options = at_dims._parser().parse_args(
        ["--dims", "1.7b", "--layers", "2", "--tables", "3", "--cases", "six", "chat"]
    )
    six, chat = cases_at(options)
    (workload,) = six.workloads
    assert workload.model == replace(DIMS["1.7b"], layers=2)
    assert (workload.rows.tables, workload.setting.dtype, six.tolerance) == (3, "bfloat16", REDUCED)
    assert chat.workloads[0].rows.tables == 1
    assert [peer.name for peer in six.peers] == ["TRL DPOTrainer"]
    assert workload.batch == len(workload.rows.pairs()) == 18


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "5"], "--rounds must be at least 6 .* got 5"),
        (["--device", "cuda"], "--device cuda: torch finds no CUDA device here"),
        (["--attention", "flex"], "--attention flex needs --device cuda"),
        (["--cases", "poetry"], "--cases poetry: no case has such a word in its name"),
    ],
)
def test_a_wrong_option_is_named(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=message):
        main(words)

"""What is taken out is out, and the step is the same without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.contender import ModelShape
from benchmarks.dpo.command import made_pairs, time_cases
from benchmarks.dpo.ours import Ours
from benchmarks.dpo.pairs import PairWorkload
from benchmarks.optimisations import LEAN_LORA, NEEDED_ROWS, REMOVALS, Without, beside_itself
from benchmarks.versus import Tolerance

SHAPE = ModelShape(200, hidden=32, layers=2)


@pytest.fixture
def workload() -> PairWorkload:
    return PairWorkload(SHAPE, made_pairs(200, part=0.02)["TAT-QA, six questions on one table"], batch=6)


@pytest.fixture
def base(tmp_path: Path) -> str:
    return SHAPE.save(tmp_path)


def lean_layers(policy: Any) -> int:
    return sum("forward" in part.__dict__ for part in policy.peft.modules())


def test_what_is_taken_out_is_out(workload: PairWorkload, base: str) -> None:
    whole: Any = Ours().prepare(workload, base).model
    assert (lean_layers(whole.policy), whole.policy._slices) == (14, True)
    plain: Any = Without(Ours(), (LEAN_LORA,)).prepare(workload, base).model
    assert (lean_layers(plain.policy), plain.policy._slices) == (0, True)
    every: Any = Without(Ours(), (NEEDED_ROWS,)).prepare(workload, base).model
    assert (lean_layers(every.policy), every.policy._slices) == (14, False)


def test_the_step_is_the_same_without_them(workload: PairWorkload, base: str) -> None:
    whole = Ours().prepare(workload, base).outcome()
    without = Without(Ours(), (LEAN_LORA, NEEDED_ROWS)).prepare(workload, base).outcome()
    Tolerance(1e-6, 1e-5).agreement(whole, without, "without")
    assert np.linalg.norm(whole.gradients) > 0


@pytest.mark.parametrize("name", [LEAN_LORA, NEEDED_ROWS])
def test_taking_out_what_is_not_there_is_refused(workload: PairWorkload, base: str, name: str) -> None:
    step: Any = Without(Ours(), (name,)).prepare(workload, base).model
    with pytest.raises(ValueError, match="there is nothing to compare"):
        REMOVALS[name](step.policy)


def test_each_case_keeps_its_first_peer() -> None:
    cases = time_cases(SHAPE, made_pairs(200, 0.02), rounds=6)
    names = [peer.name for peer in beside_itself(cases[0]).peers]
    assert names == [
        "lit_align without lean LoRA",
        "lit_align without needed rows",
        "lit_align without lean LoRA and needed rows",
        "TRL DPOTrainer",
    ]

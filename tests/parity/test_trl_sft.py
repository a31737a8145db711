"""Loss and LoRA gradients of a step equal those of TRL: its kernels for SFT+KL, its SFTTrainer for SFT.

The contenders are those of the benchmark, so this also holds what ``python -m benchmarks sft-kl`` compares.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lit_align.losses.anchor import ForwardKL, KLAnchor

pytest.importorskip("trl")
from benchmarks.contender import Contender, ModelShape, Outcome
from benchmarks.sft_kl.contenders import Naive, Ours, Rows, Workload
from benchmarks.sft_kl.peer_trl import TRLKernels, TRLTrainer

pytestmark = [
    pytest.mark.slow,
    # transformers 5.23 renames gradient to activation checkpointing; TRL and PEFT still use the old names.
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"),
]

SHAPE = ModelShape(vocabulary=211, hidden=32, layers=2, heads=4, key_value_heads=2, head_dim=8)
ROWS = Rows(count=3, longest=24, padding=0.2, prompt=5)
ANCHORED = Workload(SHAPE, ROWS, KLAnchor(coef=20.0, tail_tokens=6), rank=4)
PLAIN = replace(ANCHORED, anchor=KLAnchor(coef=0.0))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return SHAPE.save(Path(tmp_path_factory.mktemp("base")))


def difference(one: Outcome, other: Outcome) -> tuple[float, float]:
    gradient = np.linalg.norm(one.gradients - other.gradients) / np.linalg.norm(other.gradients)
    return abs(one.loss - other.loss) / abs(other.loss), float(gradient)


@pytest.mark.parametrize(
    ("peer", "workload"),
    [
        (TRLKernels(gradient_checkpointing=False), ANCHORED),
        (TRLKernels(gradient_checkpointing=True), ANCHORED),
        (TRLTrainer(gradient_checkpointing=False), PLAIN),
        (TRLTrainer(gradient_checkpointing=True), PLAIN),
        (Naive(), ANCHORED),
    ],
    ids=lambda value: value.name if isinstance(value, Contender) else "",
)
def test_loss_and_gradients_of_a_step_are_the_peers(peer: Contender[Workload], workload: Workload, base: str) -> None:
    loss, gradient = difference(Ours().prepare(workload, base).outcome(), peer.prepare(workload, base).outcome())
    assert loss < 1e-5
    assert gradient < 1e-5


@pytest.mark.parametrize(
    "anchor",
    [
        KLAnchor(coef=19.0, tail_tokens=6),
        KLAnchor(coef=20.0, tail_tokens=7),
        KLAnchor(ForwardKL(), coef=20.0, tail_tokens=6),
        KLAnchor(coef=0.0),
    ],
    ids=repr,
)
def test_another_coefficient_tail_or_direction_is_told_apart(anchor: KLAnchor, base: str) -> None:
    ours = Ours().prepare(replace(ANCHORED, anchor=anchor), base).outcome()
    loss, gradient = difference(ours, TRLKernels(gradient_checkpointing=False).prepare(ANCHORED, base).outcome())
    assert loss > 1e-4
    assert gradient > 1e-3


def test_the_trainer_refuses_a_divergence_that_it_does_not_have(base: str) -> None:
    with pytest.raises(ValueError, match=r"no KL term.*20\.0"):
        TRLTrainer().prepare(ANCHORED, base)

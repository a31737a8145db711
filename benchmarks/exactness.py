"""Whether a step is exact: held against the naive form in float64, where rounding hides nothing."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any, Generic

import torch
from torch import Tensor

from benchmarks.contender import Contender, Outcome, PreparedStep, Work, silence_libraries
from benchmarks.report import Exactness
from benchmarks.versus import Tolerance

FLOAT64 = Tolerance(loss=1e-12, gradient=1e-10)


@dataclass(frozen=True)
class ExactnessCase(Generic[Work]):
    """A workload, ours, and the form that anyone can check by eye.

    Attributes:
        name: As it stands in the tables.
        workload: What is computed.
        ours: This project's way.
        naive: The plain way.
    """

    name: str
    workload: Work
    ours: Contender[Work]
    naive: Contender[Work]

    def hold(self) -> Exactness:
        """Compute loss and LoRA gradients both ways.

        Raises:
            SystemExit: They differ by more than :data:`FLOAT64`.
        """
        silence_libraries()
        torch.set_num_threads(1)
        outcomes: list[Outcome] = []
        for one in (self.ours, self.naive):
            print(f"{self.name}: float64 loss and gradients of {one.name}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                base = self.workload.model.save(Path(folder))
                outcomes.append(in_float64(one.prepare(self.workload, base)).outcome())
        ours, naive = outcomes
        return Exactness(self.name, FLOAT64.agreement(ours, naive, f"{self.name}, float64: {self.naive.name}"))


def hold_all(cases: list[ExactnessCase[Work]]) -> list[Exactness]:
    """One case after the other; to be run in a process of its own."""
    return [case.hold() for case in cases]


def in_float64(step: PreparedStep) -> PreparedStep:
    """Make all of a step's model float64, and hand the step back.

    transformers' norms compute in fp32 in any model, which would hide what is below its rounding: they are replaced.

    Raises:
        ValueError: The model has no such norm.
    """
    norms = [part for part in step.model.modules() if type(part).__name__.endswith("RMSNorm")]
    if not norms:
        raise ValueError(f"{type(step.model).__name__}: no RMSNorm to make exact; is this a Qwen3?")
    for norm in norms:
        norm.forward = MethodType(_exact_norm, norm)
    step.model.double()
    return step


def _exact_norm(norm: Any, x: Tensor) -> Tensor:
    scaled: Tensor = norm.weight * (x * (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt())
    return scaled

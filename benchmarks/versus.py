"""Ours against its peers on one workload: first that all compute the same, then time and memory."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np
import torch

from benchmarks.contender import Contender, Outcome, PreparedStep, Work, silence_libraries
from benchmarks.measuring import (
    NO_BARS,
    ONE_THREAD,
    RETURN_MEMORY,
    in_own_process,
    interleave,
    peak_above_resident,
    ratio_by_round,
)
from benchmarks.report import Agreement, Comparison


@dataclass(frozen=True)
class Tolerance:
    """How far a peer may be from ours, relatively.

    Attributes:
        loss: Of the losses.
        gradient: Of the vector of all LoRA gradients, in norms of the peer's.
    """

    loss: float = 1e-5
    gradient: float = 1e-4

    def agreement(self, ours: Outcome, peer: Outcome, name: str) -> Agreement:
        """Relative differences of loss and of the vector of all LoRA gradients.

        Raises:
            SystemExit: A difference is over its tolerance: the two do not compute the same.
        """
        loss = abs(ours.loss - peer.loss) / abs(peer.loss)
        gradient = float(np.linalg.norm(ours.gradients - peer.gradients) / np.linalg.norm(peer.gradients))
        if not (loss <= self.loss and gradient <= self.gradient):
            raise SystemExit(
                f"{name}: loss differs from ours by {loss:.1e} (tolerance {self.loss:.0e}), LoRA gradients by "
                f"{gradient:.1e} ({self.gradient:.0e}): no comparison of speed before both compute the same"
            )
        return Agreement(loss, gradient)


@dataclass(frozen=True)
class Case(Generic[Work]):
    """A workload, the contenders that compute it, and the goal against some of them.

    Attributes:
        name: As it stands in the tables.
        workloads: What is computed, with one model; each round takes the next of them.
        ours: This project's way.
        peers: Whom ours is compared with.
        targets: Upper bound of the ratio ours to peer, by the peer's name.
        rounds: Counted rounds of time.
        tolerance: How far the peers may be from ours.
    """

    name: str
    workloads: tuple[Work, ...]
    ours: Contender[Work]
    peers: tuple[Contender[Work], ...]
    targets: dict[str, float]
    rounds: int
    tolerance: Tolerance = Tolerance()

    def time(self) -> list[Comparison]:
        """CPU seconds of all contenders in this process, in turns, after they were seen to agree."""
        silence_libraries()
        torch.set_num_threads(1)
        steps: dict[str, list[PreparedStep]] = {}
        with tempfile.TemporaryDirectory() as folder:
            base = self.workloads[0].model.save(Path(folder), self.workloads[0].setting.number_format)
            for one in (self.ours, *self.peers):
                _tell(f"{self.name}: preparing {one.name}")
                steps[one.name] = [one.prepare(workload, base) for workload in self.workloads]
        agreements = {peer.name: Agreement(0.0, 0.0) for peer in self.peers}
        for number in range(len(self.workloads)):
            outcomes: dict[str, Outcome] = {}
            for name, prepared in steps.items():
                _tell(f"{self.name}: loss and gradients of {name}, {number + 1} of {len(self.workloads)}")
                outcomes[name] = prepared[number].outcome()
            for name, agreement in self._agreements(outcomes).items():
                agreements[name] = agreements[name].worse(agreement)
        current = 0

        def begun(number: int) -> None:
            nonlocal current
            current = (number - 1) % len(self.workloads)
            _tell(f"{self.name}: round {number} of {self.rounds} (round 0 does not count)")

        def turn(prepared: Sequence[PreparedStep]) -> Callable[[], object]:
            return lambda: prepared[current].fresh()

        clock = self.workloads[0].setting.seconds
        seconds = interleave({name: turn(prepared) for name, prepared in steps.items()}, self.rounds, begun, clock)
        ours = seconds[self.ours.name]
        return [
            Comparison(
                case=self.name,
                peer=peer.name,
                unit="s",
                ours=ours,
                theirs=seconds[peer.name],
                ratio=ratio_by_round(ours, seconds[peer.name]),
                target=self.targets.get(peer.name),
                agreement=agreements[peer.name],
                alike=len(self.workloads) == 1,
            )
            for peer in self.peers
        ]

    def memory(self, too_large: str) -> list[Comparison]:
        """Peak memory of the first step of each contender, each in a process of its own.

        Args:
            too_large: What to do about a contender that was killed, for the message.

        Raises:
            SystemExit: One was killed, or they do not compute the same.
        """
        silence_libraries()
        results: dict[str, tuple[Outcome, float]] = {}
        (workload,) = self.workloads
        with tempfile.TemporaryDirectory() as folder:
            base = workload.model.save(Path(folder), workload.setting.number_format)
            for contender in (self.ours, *self.peers):
                _tell(f"{self.name}: peak memory of {contender.name}")
                try:
                    results[contender.name] = in_own_process(
                        ONE_THREAD | RETURN_MEMORY | NO_BARS, _peak_of_step, contender, workload, base
                    )
                except BrokenProcessPool as error:
                    raise SystemExit(
                        f"memory of {contender.name}: its process was killed, most likely for want of memory; "
                        f"{too_large}"
                    ) from error
        agreements = self._agreements({name: outcome for name, (outcome, _) in results.items()})
        ours = results[self.ours.name][1]
        return [
            Comparison(
                case=self.name,
                peer=peer.name,
                unit="MB",
                ours=[ours],
                theirs=[results[peer.name][1]],
                ratio=ours / results[peer.name][1],
                target=self.targets.get(peer.name),
                agreement=agreements[peer.name],
            )
            for peer in self.peers
        ]

    def _agreements(self, outcomes: dict[str, Outcome]) -> dict[str, Agreement]:
        ours = outcomes[self.ours.name]
        return {
            peer.name: self.tolerance.agreement(ours, outcomes[peer.name], f"{self.name}: {peer.name}")
            for peer in self.peers
        }


def measure_time(cases: Sequence[Case[Work]]) -> list[Comparison]:
    """One case after the other; to be run in a process of its own."""
    return [comparison for case in cases for comparison in case.time()]


def _peak_of_step(contender: Contender[Work], workload: Work, base: str) -> tuple[Outcome, float]:
    silence_libraries()
    torch.set_num_threads(1)
    step = contender.prepare(workload, base)
    step.read_weights()
    if workload.setting.device == "cpu":
        return peak_above_resident(step.outcome)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    outcome = step.outcome()
    return outcome, (torch.cuda.max_memory_allocated() - before) / 1e6


def _tell(what: str) -> None:
    """Progress goes to the error stream: the tables are what is printed."""
    print(what, file=sys.stderr, flush=True)

"""Where a window's time goes: its parts in per cent of CPU time, their FLOPs, their rate beside that of the machine.

A window is a step of `dpo` or `sft-kl` as this project computes it, and after it the clipping of gradients and a step
of AdamW. Times are medians of some rounds, one thread, process CPU time; FLOPs are counted in a round of their own,
from the shapes of the products that are called (two a multiply-add; masked attention as dense, causal attention as
half of it). The machine's rate is that of a product of two square matrices of 2,048 rows in the same number format.
What stands under "other" are losses, sums for the log, gradients set to nothing, and Python.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.contender import Contender, ModelShape, PreparedStep, silence_libraries
from benchmarks.dpo import command as dpo
from benchmarks.facts import facts_of, write_results
from benchmarks.measuring import KEEP_MEMORY, NO_BARS, ONE_THREAD, in_own_process
from benchmarks.profile.flops import flop_counter, matrix_product_rate
from benchmarks.profile.meter import OPTIMIZER, OTHER, PARTS, Meter, parts_of_a_step
from benchmarks.sft_kl import command as sft_kl

PACKAGES = ("torch", "transformers", "peft", "lightning")


@dataclass(frozen=True)
class Part:
    """A part of a window.

    Attributes:
        name: Of :data:`~benchmarks.profile.meter.PARTS`.
        seconds: CPU seconds, the median of the rounds.
        flops: Of its matrix products.
    """

    name: str
    seconds: float
    flops: int


@dataclass(frozen=True)
class WindowProfile:
    """A window taken apart.

    Attributes:
        case: What was computed.
        parts: All of it.
        rate: FLOPs a second of a large matrix product on this machine.
    """

    case: str
    parts: tuple[Part, ...]
    rate: float

    @property
    def seconds(self) -> float:
        """CPU seconds of the window."""
        return sum(part.seconds for part in self.parts)

    @property
    def flops(self) -> int:
        """Of the window."""
        return sum(part.flops for part in self.parts)

    def markdown(self) -> str:
        """A table with a line a part."""
        lines = ["| part | time | s | GFLOP | GFLOP/s | of the machine's |", "|---|---:|---:|---:|---:|---:|"]
        for part in (*self.parts, Part("all", self.seconds, self.flops)):
            rate = part.flops / part.seconds if part.seconds else 0.0
            rates = f"{rate / 1e9:.1f} | {rate / self.rate:.0%}" if part.flops else " | "
            share = part.seconds / self.seconds
            lines.append(f"| {part.name} | {share:.1%} | {part.seconds:.3f} | {part.flops / 1e9:.2f} | {rates} |")
        return "\n".join(lines)


def profile(case: str, step: PreparedStep, rounds: int, rate: float) -> WindowProfile:
    """Take a step and an optimizer step after it apart.

    Args:
        case: As it stands in the tables.
        step: Ours.
        rounds: Counted rounds of time.
        rate: Of a large matrix product.
    """
    parameters = list(step.adapter.values())
    optimizer = torch.optim.AdamW(parameters, lr=0.0)  # every round computes the same

    def window(meter: Meter) -> dict[str, float]:
        with parts_of_a_step(meter), meter.part(OTHER):
            step.fresh()
            with meter.part(OPTIMIZER):
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
        return meter.shares

    seconds = []
    for number in range(rounds + 1):
        print(f"{case}: round {number} of {rounds} (round 0 does not count)", file=sys.stderr, flush=True)
        seconds.append(window(Meter(time.process_time)))
    with flop_counter() as counter:
        flops = window(Meter(counter.get_total_flops))
    parts = [
        Part(name, statistics.median(one.get(name, 0.0) for one in seconds[1:]), int(flops.get(name, 0)))
        for name in PARTS
    ]
    return WindowProfile(case, tuple(parts), rate)


def profiles(shape: ModelShape, part: float, rounds: int) -> list[WindowProfile]:
    """The cases that README has, without real tables; to be run in a process of its own."""
    silence_libraries()
    torch.set_num_threads(1)
    rate = matrix_product_rate(torch.float32)
    cases: list[Any] = dpo.time_cases(shape, dpo.made_pairs(shape.vocabulary, part), rounds)[1:]
    rows = sft_kl.time_cases(shape, 4, round(512 * part), round(128 * part), rounds)
    cases += [case for case in rows if case.name.startswith("SFT+KL")]
    return [profile(case.name, _prepared(case.ours, case.workloads[0]), rounds, rate) for case in cases]


def _prepared(ours: Contender[Any], workload: Any) -> PreparedStep:
    with tempfile.TemporaryDirectory() as folder:
        step = ours.prepare(workload, workload.model.save(Path(folder)))
        step.read_weights()
    return step


def main(arguments: list[str]) -> None:
    """Measure, print the tables, write them to ``profile.md`` and ``profile.json``.

    Args:
        arguments: The command line after ``profile``; ``--help`` explains.

    Raises:
        SystemExit: A wrong option.
    """
    options = _parser().parse_args(arguments)
    if options.rounds < 1:
        raise SystemExit(f"--rounds must be at least 1, got {options.rounds}")
    shape = ModelShape(options.vocabulary, options.hidden, options.layers)
    process = ONE_THREAD | KEEP_MEMORY | NO_BARS
    found = in_own_process(process, profiles, shape, options.part, options.rounds)
    rate = found[0].rate / 1e9
    parts = [
        "# Where the time of a window goes",
        f"A product of two fp32 matrices of 2,048 rows: {rate:.1f} GFLOP/s on one thread.",
        *(part for one in found for part in (f"## {one.case}", one.markdown())),
    ]
    content = {"windows": [asdict(one) for one in found]}
    print(write_results(options.output, "profile", parts, facts_of(options, PACKAGES), content))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=7, help="counted rounds; default %(default)s")
    add("--part", type=float, default=1.0, help="lengths as a share of those of `dpo` and `sft-kl`; default 1")
    add("--hidden", type=int, default=256, help="hidden size; default %(default)s")
    add("--layers", type=int, default=6, help="layers; default %(default)s")
    add("--vocabulary", type=int, default=5_120, help="default %(default)s")
    add("--output", type=Path, default=Path(__file__).parents[1] / "results", help="default: benchmarks/results")
    return parser

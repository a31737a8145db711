"""How a DPO step of ours grows: with questions on a table, length of answers and context, vocabulary, window.

Pairs are made of random tokens, models random Qwen3s. Time: process CPU time, one thread, the points of a variable in
turns, the median of some rounds. Memory: the highest resident set above that before the step, in a process of its own
for each variable. Expected is time in proportion to the FLOPs of the products (masked attention as dense) and memory in
proportion to the tokens of the forests, both through the largest point: after sharing, nothing else should count, and
the vocabulary should cost no memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.contender import ModelShape, PreparedStep, silence_libraries
from benchmarks.dpo.ours import Ours
from benchmarks.dpo.pairs import PairWorkload
from benchmarks.facts import facts_of, write_results
from benchmarks.growth.plot import draw
from benchmarks.growth.sweeps import SWEEPS, Point, Sweep, expected_megabytes, expected_seconds
from benchmarks.measuring import (
    KEEP_MEMORY,
    NO_BARS,
    ONE_THREAD,
    RETURN_MEMORY,
    in_own_process,
    interleave,
    peak_above_resident,
)
from benchmarks.profile.flops import flop_counter

PACKAGES = ("torch", "transformers", "peft", "lightning")


def _workload(number: int, value: int, hidden: int, layers: int) -> PairWorkload:
    rows = SWEEPS[number].rows(value)
    return PairWorkload(ModelShape(rows.vocabulary, hidden, layers), rows, batch=rows.count)


def _step(workload: PairWorkload) -> PreparedStep:
    with tempfile.TemporaryDirectory() as folder:
        step = Ours().prepare(workload, workload.model.save(Path(folder)))
        step.read_weights()
    return step


def seconds_and_flops(
    number: int, values: Sequence[int], hidden: int, layers: int, rounds: int
) -> list[tuple[float, int]]:
    """Median CPU seconds and FLOPs at each value of a variable; to be run in a process of its own."""
    silence_libraries()
    torch.set_num_threads(1)
    steps = {str(value): _step(_workload(number, value, hidden, layers)) for value in values}

    def begun(turn: int) -> None:
        print(f"{SWEEPS[number].name}: round {turn} of {rounds} (round 0 does not count)", file=sys.stderr, flush=True)

    taken = interleave({name: _fresh(step) for name, step in steps.items()}, rounds, begun)
    found = []
    for name, step in steps.items():
        with flop_counter() as counter:
            step.fresh()
        found.append((statistics.median(taken[name]), counter.get_total_flops()))
    return found


def _fresh(step: PreparedStep) -> Callable[[], object]:
    return lambda: step.fresh()


def megabytes(number: int, values: Sequence[int], hidden: int, layers: int) -> list[float]:
    """Peak memory of a step at each value; to be run in a process of its own, which gives memory back."""
    silence_libraries()
    torch.set_num_threads(1)
    peaks = []
    for value in (values[0], *values):  # what a first step makes for good counts for no point
        print(f"{SWEEPS[number].name}: peak memory at {value:,}", file=sys.stderr, flush=True)
        step = _step(_workload(number, value, hidden, layers))
        for parameter in step.adapter.values():
            parameter.grad = torch.zeros_like(parameter)
        peaks.append(peak_above_resident(step.run)[1])
    return peaks[1:]


def measured(sweep: Sweep, values: Sequence[int], hidden: int, layers: int, rounds: int) -> list[Point]:
    """All points of a variable."""
    number = SWEEPS.index(sweep)
    time_process, memory_process = ONE_THREAD | KEEP_MEMORY | NO_BARS, ONE_THREAD | RETURN_MEMORY | NO_BARS
    times = in_own_process(time_process, seconds_and_flops, number, values, hidden, layers, rounds)
    peaks = in_own_process(memory_process, megabytes, number, values, hidden, layers)
    points = []
    for value, (seconds, flops), peak in zip(values, times, peaks, strict=True):
        rows = sweep.rows(value)
        forests = rows.window().forests
        scored = sum(len(forest.pair_rows) for forest in forests)
        logits = 4 * scored * rows.vocabulary / 1e6
        points.append(Point(value, sum(map(len, forests)), scored, logits, flops, seconds, peak))
    return points


def table(name: str, points: Sequence[Point]) -> str:
    """A variable as a Markdown table; what was expected stands beside what was measured."""
    lines = [
        f"| {name} | tokens | scored | GFLOP | s | as the FLOPs | MB | as the tokens | logits, MB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for point, second, mb in zip(points, expected_seconds(points), expected_megabytes(points), strict=True):
        lines.append(
            f"| {point.value:,} | {point.rows:,} | {point.scored:,} | {point.flops / 1e9:.1f} | {point.seconds:.3f} | "
            f"{second:.3f} | {point.megabytes:,.0f} | {mb:,.0f} | {point.logits:,.0f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measure, print the tables, write them to ``growth.md``, ``growth.json`` and the figure ``growth.png``.

    Args:
        arguments: The command line after ``growth``; ``--help`` explains.

    Raises:
        SystemExit: A wrong option.
    """
    options = _parser().parse_args(arguments)
    if options.rounds < 1 or options.points < 2:
        raise SystemExit(f"--rounds must be at least 1 and --points 2, got {options.rounds} and {options.points}")
    found = {
        sweep.name: measured(sweep, sweep.values[: options.points], options.hidden, options.layers, options.rounds)
        for sweep in SWEEPS
    }
    caption = f"One DPO step of lit_align, hidden size {options.hidden}, {options.layers} layers, fp32, one thread"
    options.output.mkdir(parents=True, exist_ok=True)
    draw(found, caption, options.output / "growth.png")
    parts = ["# How a step grows", "![time and memory by each variable](growth.png)"]
    for name, points in found.items():
        parts += [f"## {name.capitalize()}", table(name, points)]
    content = {"sweeps": {name: [asdict(point) for point in points] for name, points in found.items()}}
    print(write_results(options.output, "growth", parts, facts_of(options, PACKAGES), content))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="counted rounds of time; default %(default)s")
    add("--points", type=int, default=9, help="at most so many values of each variable, from below; default: all")
    add("--hidden", type=int, default=256, help="hidden size; default %(default)s")
    add("--layers", type=int, default=6, help="layers; default %(default)s")
    add("--output", type=Path, default=Path(__file__).parents[1] / "results", help="default: benchmarks/results")
    return parser

"""Coverage of the intervals, false alarms of the tests, and power at the minimum detectable effect, by simulation.

Draws benchmarks with known truths: clusters of 1 to 6 items that resemble each other, as the questions of a table do.
One core, some minutes.

    python -m benchmarks statistics-coverage
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.measuring import machine, versions
from benchmarks.statistics_coverage.cells import CHANGED, DESIGNS, MEANS, Difference, Mean, differences, means
from benchmarks.statistics_coverage.draws import Design
from benchmarks.statistics_coverage.methods import METHODS, PAIRED
from lit_align.metrics.statistics.clusters import ClusterSums
from lit_align.metrics.statistics.decisions import sign_flip
from lit_align.metrics.statistics.power import effect_of

KINDS = {
    "right": "right or wrong", "f1": "F1", "kl": "lognormal, bound 0", "log-ratio": "normal, no bounds",
}  # fmt: skip

TESTED = 300  # benchmarks drawn for false alarms and power at each cell: a test takes ten times as long as an interval


def main(arguments: list[str]) -> None:
    """Simulate and write the tables.

    Args:
        arguments: The command's options, without its name.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks statistics-coverage", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the tables")
    parser.add_argument("--draws", type=int, default=1500, help="benchmarks drawn at each cell")
    parser.add_argument("--draws-of-others", type=int, default=120, help="the same for the methods not chosen")
    options = parser.parse_args(arguments)
    text = report(options.draws, options.draws_of_others)
    facts = [*machine().values(), *(f"{name} {found}" for name, found in versions(["numpy", "scipy"]).items())]
    command = shlex.join(["python", "-m", "benchmarks", "statistics-coverage", *arguments])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "statistics-coverage.md").write_text(f"{text}\n\n*{', '.join(facts)}. `{command}`*\n", "utf-8")
    print(text)


def report(draws: int, draws_of_others: int) -> str:
    """All tables.

    Args:
        draws: Benchmarks drawn at each cell for the chosen methods.
        draws_of_others: The same for the methods that they are compared with.
    """
    summary = [
        "| score | method | cells | in 93…97 % | below 93 % | above 97 % | lowest | highest |",
        "|:--|:--|--:|--:|--:|--:|:--|:--|",
    ]
    right: list[float] = []
    for kind, title in KINDS.items():
        cells = means(kind)
        for name, method in METHODS.items():
            count = draws if name == "chosen" else draws_of_others
            found = [cell.coverage(method, count, seed) for seed, cell in enumerate(cells)]
            summary.append(_summary(f"mean: {title}", name, cells, found))
            if kind == "right" and name == "chosen":
                right = found
    for partial in (False, True):
        pairs = differences(partial=partial)
        for name, paired in PAIRED.items():
            count = draws if name == "chosen" else draws_of_others
            found = [cell.coverage(paired, count, seed) for seed, cell in enumerate(pairs)]
            summary.append(_summary(f"difference: {'F1' if partial else 'right or wrong'}", name, pairs, found))
    tested = min(draws, TESTED)
    parts = [
        "# Coverage of 95 % intervals, false alarms, power",
        f"{draws} drawn benchmarks a cell ({draws_of_others} for the methods not chosen, {tested} for false alarms "
        f"and power): standard errors of 95 %: {_error(draws)}, {_error(draws_of_others)}, {_error(tested)}. "
        "Clusters of 1 to 6 items; *alike*: correlation of two items of a cluster.",
        "\n".join(summary),
        "## Chosen interval of a share of right answers, coverage in %",
        _means_table(right),
        "## False alarms at 5 %, in %, where nothing differs",
        _alarms(tested),
        "## Power at the minimum detectable effect, in %",
        _power(tested),
        _speed(),
    ]
    return "\n\n".join(parts)


def _error(count: int) -> str:
    return f"{100 * (0.95 * 0.05 / count) ** 0.5:.1f} %"


def _summary(title: str, method: str, cells: Sequence[Mean | Difference], found: Sequence[float]) -> str:
    values = np.array(found)
    low, high = int(values.argmin()), int(values.argmax())
    shares = [float(share.mean()) for share in (
        (values >= 0.93) & (values <= 0.97), values < 0.93, values > 0.97)]  # fmt: skip
    told = " | ".join(f"{100 * share:.0f} %" for share in shares)
    ends = " | ".join(f"{100 * values[at]:.1f} % at {_where(cells[at])}" for at in (low, high))
    return f"| {title} | {method} | {len(cells)} | {told} | {ends} |"


def _where(cell: Mean | Difference) -> str:
    if isinstance(cell, Mean):
        return _design(cell.design) + (f", mean {cell.mean}" if cell.mean is not None else "")
    return f"{_design(cell.design)}, {cell.changed} changed, {cell.rising:g} of them up"


def _design(design: Design) -> str:
    return f"{design.clusters} clusters, {design.items} items, alike {design.alike:g}"


def _means_table(found: Sequence[float]) -> str:
    lines = ["| clusters | items | alike | " + " | ".join(f"{mean:g}" for mean in MEANS) + " |"]
    lines.append("|" + "--:|" * (len(MEANS) + 3))
    for row, design in enumerate(DESIGNS):
        values = found[row * len(MEANS) : (row + 1) * len(MEANS)]
        told = " | ".join(f"{100 * value:.1f}" for value in values)
        lines.append(f"| {design.clusters} | {design.items} | {design.alike:g} | {told} |")
    return "\n".join(lines)


def _alarms(draws: int) -> str:
    lines = ["| clusters | items | alike | changes | " + " | ".join(f"{one:g} change" for one in CHANGED) + " |"]
    lines.append("|--:|--:|--:|:--|" + "--:|" * len(CHANGED))
    for design in DESIGNS:
        for partial in (False, True):
            rates = []
            for seed, changed in enumerate(CHANGED):
                found = np.array(Difference(design, changed, 0.5, partial).p_values(draws, seed))
                rates.append(f"{100 * float((found <= 0.05).mean()):.1f}")
            kind = "F1" if partial else "right or wrong"
            told = " | ".join(rates)
            lines.append(f"| {design.clusters} | {design.items} | {design.alike:g} | {kind} | {told} |")
    return "\n".join(lines)


def _power(draws: int) -> str:
    lines = ["| clusters | items | alike | changed | minimum detectable effect | found |", "|--:|--:|--:|--:|--:|--:|"]
    for design in DESIGNS:
        for changed in (0.2, 0.4):
            calm = Difference(design, changed, 0.5, partial=False)
            effects = [effect_of(_total(*sides), 1.0) for sides in calm.samples(0, draws)]
            effect = float(np.median(effects))
            if effect > changed:  # so much cannot change while so few do
                continue
            moved = Difference(design, changed, 0.5 + effect / changed / 2, partial=False)
            found = np.array(moved.p_values(draws, 1))
            lines.append(
                f"| {design.clusters} | {design.items} | {design.alike:g} | {changed:g} | {effect:.3f} | "
                f"{100 * float((found <= 0.05).mean()):.0f} |"
            )
    return "\n".join(lines)


def _total(gains: ClusterSums, losses: ClusterSums) -> ClusterSums:
    return ClusterSums(gains.sizes, gains.sums - losses.sums)


def _speed() -> str:
    sums = np.random.default_rng(0).standard_normal(1_700)
    start = time.perf_counter()
    sign_flip(sums)
    return f"10,000 sign flips of 1,700 clusters took {time.perf_counter() - start:.2f} s."

"""Table and verdict of the forgetting benchmark, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.forgetting.curves import Comparison, Point, compare, verdict
from benchmarks.forgetting.log import Record
from lit_align.metrics.statistics import Interval

GAINS = (0.25, 0.5, 0.75, 0.9)

# Which curves are compared, and how they are called in a sentence.
PAIRS = (
    ("anchor", "lower learning rate"),
    ("replay KL", "lower learning rate"),
    ("replay KL", "replay NLL"),
)
SPOKEN = {
    "anchor": "the anchor on the trained answers",
    "lower learning rate": "a lower learning rate",
    "replay KL": "KL on replayed conversations",
    "replay NLL": "NLL on the same conversations",
}


def points_table(curves: Mapping[str, Sequence[Point]]) -> str:
    """A line a setting: skill gained and lost with intervals.

    Args:
        curves: Points by curve; the first one is the setting that all share.
    """
    lines = [
        "| curve | coefficient or rate | skill gained [95 % CI] | skill lost [95 % CI] | by seed: gained | lost |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for index, (name, points) in enumerate(curves.items()):
        for at, point in enumerate(points):
            if at == 0 and index:
                continue  # the shared point stands in the table once
            label = name if at else "plain SFT (shared by all)"
            seeds = " | ".join(
                ", ".join(f"{value:.3f}" for value in values) for values in (point.seed_gains, point.seed_losses)
            )
            strength = f"{point.strength:g}" if at else "full rate, coefficient 0"
            lines.append(f"| {label} | {strength} | {_cell(point.gain)} | {_cell(point.lost)} | {seeds} |")
    return "\n".join(lines)


def comparison_tables(curves: Mapping[str, Sequence[Point]]) -> str:
    """For each pair of curves a verdict and what they lose at equal gains.

    Args:
        curves: Points by curve; pairs of which a curve is missing are left out.
    """
    parts = []
    for first, second in PAIRS:
        if first not in curves or second not in curves:
            continue
        comparisons = [compare(curves[first], curves[second], gain) for gain in GAINS]
        parts.append(
            f"**{verdict(SPOKEN[first], SPOKEN[second], comparisons)}**\n\n"
            f"| gain of at least | {first} loses | {second} loses | difference [95 % CI] |\n"
            "| ---: | ---: | ---: | ---: |\n" + "\n".join(_line(comparison) for comparison in comparisons)
        )
    return "\n\n".join(parts)


def method_note(questions: tuple[int, int], clusters: tuple[int, ...], seeds: Sequence[int]) -> str:
    """How the numbers were made.

    Args:
        questions: Number of questions, new and old.
        clusters: Number of their clusters.
        seeds: The training seeds.
    """
    return (
        f"Exact match of greedy answers to the same held-out questions before and after: {questions[0]} of the new "
        f"skill ({clusters[0]} tables), {questions[1]} of the old skills ({clusters[1]} tables or greetings). "
        f"Training seeds {', '.join(map(str, seeds))} draw the adapter and the order of the data; the questions stay "
        "the same. Intervals: percentile bootstrap, 4,000 resamples over tables and over seeds, the same resamples for "
        "all settings, so differences are paired. They cover other questions of this kind and other seeds, not other "
        "data, models or tasks; with three seeds the seeds' share is understated. Between points curves are straight "
        'lines; "loses" is the least skill lost along the curve at a gain of at least the one named. The points of '
        "a curve are few, the verdicts are not corrected for their number."
    )


def hardware_note(records: Sequence[Record]) -> str:
    """Machine, versions and cost of the runs.

    Args:
        records: The runs of the report.
    """
    environments = [record["environment"] for record in records]

    def said(values: Sequence[str]) -> str:
        return "; ".join(dict.fromkeys(values))

    machines = said([f"{one['platform']}, {one['cpus']} CPUs, {one['cpu_threads']} thread" for one in environments])
    versions = said([", ".join(f"{name} {found}" for name, found in one["packages"].items()) for one in environments])
    commits = said([f"commit {one['commit'] or 'unknown'}" for one in environments])
    cpu, wall = (sum(record[key] for record in records) for key in ("cpu_s", "wall_s"))
    return (
        f"{len(records)} runs, {cpu:,.0f} s of CPU time, {wall:,.0f} s of wall time. "
        f"{machines}; Python {said([one['python'] for one in environments])}; {versions}; {commits}."
    )


def _cell(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _line(comparison: Comparison) -> str:
    heights = [
        "does not reach it" if value is None else f"{value:.3f}" for value in (comparison.first, comparison.second)
    ]
    if comparison.difference is not None:
        one = comparison.difference
        difference = f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
    elif comparison.first is None or comparison.second is None:
        difference = "–"
    else:
        difference = f"none: both reach it in {100 * comparison.reached:.0f} % of resamples"
    return f"| {comparison.gain:g} | {heights[0]} | {heights[1]} | {difference} |"

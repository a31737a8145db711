"""Result tables of benchmarks: aligned plain text that is also a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from lit_align.evals.benchmark import SHARE, Bounds, ItemResult
from lit_align.metrics.statistics import (
    Decision,
    Interval,
    holm,
    mean_interval,
    minimum_detectable_effect,
    paired_summary,
    paired_test,
)

Results = Mapping[str, Sequence[ItemResult]]
"""The results of each benchmark, by its name."""

Measures = Mapping[str, Mapping[str, Bounds]]
"""The measures of each benchmark with their bounds, by its name."""

_SCALES = (
    "95% intervals over clusters: Student's t on the measure's scale (logit between two bounds, log from one); "
    "Clopper-Pearson over clusters where all of them agree."
)


def score_table(results: Results, measures: Measures) -> str:
    """Means of one measurement, with 95 % intervals.

    A block a measure; in it a line a benchmark over all its items, and below it a line a skill if it has more than one.
    Where a line has fewer than 10 clusters, ``too few`` stands beside their number.

    Args:
        results: Results by name of the benchmark.
        measures: Measures of each benchmark.

    Example:
        >>> scores = [{"exact_match": float(i > 3)} for i in range(16)]
        >>> items = [ItemResult(str(i), str(i), "add", "1+1=", "2", "2", scores[i], False, 1) for i in range(16)]
        >>> print(*score_table({"sums": items}, {"sums": {"exact_match": SHARE}}).splitlines()[:3], sep=chr(10))
        | benchmark |  n | clusters |       score [95% CI] | cap hit |
        | :-------- | -: | -------: | -------------------: | ------: |
        | sums      | 16 |       16 | 0.750 [0.457, 0.914] |      0% |
    """
    blocks: dict[str, list[list[str]]] = {}
    seen: list[Interval] = []
    for measure, bounds, name in _measured(results, measures):
        for label, items in _lines({name: results[name]}):
            clusters = [item.cluster for item in items]
            interval = mean_interval([item.scores[measure] for item in items], clusters, bounds=bounds)
            seen.append(interval)
            row = [label, *counts(clusters, interval), interval_text(interval, bounds), _cap_share(items)]
            blocks.setdefault(measure, []).append(row)
    return blocks_text(["benchmark", "n", "clusters", "score [95% CI]", "cap hit"], blocks, [_SCALES, *_remarks(seen)])


def comparison_table(before: Results, after: Results, measures: Measures) -> str:
    """Means before and after with their paired difference, 95 % intervals of all three, a test, and what it could find.

    A block a measure; in it a line a benchmark over all its items, and below it a line a skill if it has more than one.
    The main measure of each benchmark, its first one, is tested over all items; the p-values are adjusted for their
    number, and other lines have none. The share of the answers that the length cap ended stands for both, where it has
    changed. ``MDE`` is the smallest true difference that the line's items would show with
    80 % power.

    Args:
        before: Results by name of the benchmark.
        after: Results of the same benchmarks on the same items.
        measures: Measures of each benchmark.

    Raises:
        ValueError: The two hold different benchmarks, or a benchmark's items or prompts differ.

    Example:
        >>> def results(*f1):
        ...     return [ItemResult(str(i), str(i), "add", "?", "", "", {"f1": f1[i]}, False, 1) for i in range(len(f1))]
        >>> before, after = {"sums": results(*[0, 0, 0, 1] * 6)}, {"sums": results(*[0, 1, 1, 1] * 6)}
        >>> table = comparison_table(before, after, {"sums": {"f1": SHARE}})
        >>> [cell.strip() for cell in table.splitlines()[2].split("|")][4:9]
        ['0.250 [0.110, 0.474]', '0.750 [0.526, 0.890]', '+0.500 [+0.252, +0.703]', '<0.001', '0.318']
    """
    check_paired(before, after)
    partners = {(name, item.id): item for name, items in before.items() for item in items}

    def pairs(name: str, measure: str, items: Sequence[ItemResult]) -> tuple[list[float], list[float], list[str]]:
        earlier = [partners[name, item.id].scores[measure] for item in items]
        return earlier, [item.scores[measure] for item in items], [item.cluster for item in items]

    mains = [(name, next(iter(measures[name]))) for name in after]
    decisions = [paired_test(*pairs(*main, after[main[0]])) for main in mains]
    adjusted = dict(zip(mains, holm([decision.p_value for decision in decisions]), strict=True))
    blocks: dict[str, list[list[str]]] = {}
    seen: list[Interval] = []
    for measure, bounds, name in _measured(after, measures):
        for label, items in _lines({name: after[name]}):
            scores = pairs(name, measure, items)
            summary = paired_summary(*scores, bounds=bounds)
            seen += [summary.before, summary.after, summary.difference]
            arms = [interval_text(arm, bounds) for arm in (summary.before, summary.after)]
            arms.append(interval_text(summary.difference, bounds, signed=True))
            p_value = adjusted.get((name, measure)) if items is after[name] else None
            effect = minimum_detectable_effect(*scores, bounds=bounds)
            row = [label, *counts(scores[2], summary.difference), *arms, _p_value(p_value), _effect(effect, bounds)]
            caps = [_cap_share(arm) for arm in ([partners[name, item.id] for item in items], items)]
            blocks.setdefault(measure, []).append([*row, " → ".join(dict.fromkeys(caps))])
    header = ["benchmark", "n", "clusters", "before [95% CI]", "after [95% CI]", "difference [95% CI]"]
    caption = [_SCALES, _tests(decisions), *_remarks(seen)]
    return blocks_text([*header, "p (Holm)", "MDE", "cap hit"], blocks, caption)


def check_paired(before: Results, after: Results) -> None:
    """Refuse a comparison of results that are not of the same questions.

    Args:
        before: Results by name of the benchmark.
        after: Results that are to be compared with them.

    Raises:
        ValueError: The two hold different benchmarks, or a benchmark's items or prompts differ.

    Example:
        >>> check_paired({"sums": []}, {"products": []})
        Traceback (most recent call last):
        ValueError: before and after hold different benchmarks: ['sums'] and ['products']
    """
    if list(before) != list(after):
        raise ValueError(f"before and after hold different benchmarks: {list(before)} and {list(after)}")
    for name in after:
        if len(before[name]) != len(after[name]):
            raise ValueError(f"benchmark {name!r}: {len(before[name])} items before, {len(after[name])} after")
        for earlier, later in zip(before[name], after[name], strict=True):
            for key in ("id", "cluster", "skill", "prompt", "gold"):
                old, new = getattr(earlier, key), getattr(later, key)
                if old != new:
                    raise ValueError(f"benchmark {name!r}, item {earlier.id!r}: {key} was {old!r}, is {new!r}")


def _measured(results: Results, measures: Measures) -> Iterable[tuple[str, Bounds, str]]:
    """Each measure, its bounds, and a benchmark that has it; the benchmarks of a measure one after another."""
    for measure in dict.fromkeys(measure for name in results for measure in measures[name]):
        for name in results:
            if measure in measures[name]:
                yield measure, measures[name][measure], name


def _lines(results: Results) -> Iterable[tuple[str, Sequence[ItemResult]]]:
    for name, items in results.items():
        yield name, items
        skills = by_skill(items)
        if len(skills) > 1:
            for skill, part in skills.items():
                yield f"– {skill}", part


def by_skill(items: Sequence[ItemResult]) -> dict[str, list[ItemResult]]:
    """The items of each skill, in the order in which the skills come.

    Args:
        items: Results of one benchmark.
    """
    skills: dict[str, list[ItemResult]] = {}
    for item in items:
        skills.setdefault(item.skill, []).append(item)
    return skills


def _share(items: Sequence[ItemResult], value: Callable[[ItemResult], float]) -> float:
    return sum(value(item) for item in items) / len(items)


def _cap_share(items: Sequence[ItemResult]) -> str:
    if any(item.hit_cap is None for item in items):
        return "–"
    return f"{_share(items, lambda item: float(item.hit_cap or False)):.0%}"


def counts(clusters: Sequence[str], interval: Interval) -> list[str]:
    """Cells for the numbers of items and of clusters; ``too few`` stands beside less than 10 clusters.

    Args:
        clusters: The cluster of each item.
        interval: Of any mean over them.
    """
    count = len(set(clusters))
    return [str(len(clusters)), f"{count}, too few" if interval.too_few else str(count)]


def _digits(size: float, bounds: Bounds) -> int:
    # Shares are told to a tenth of a percent; a KL of a thousandth of a nat is worth telling from none, a log-prob of
    # some tens of nats is not.
    return 3 if bounds == SHARE else 4 if size < 10 else 2


def interval_text(interval: Interval, bounds: Bounds, *, signed: bool = False) -> str:
    """A mean with its interval, to as many digits as the measure deserves.

    Args:
        interval: Of a mean, or of a difference.
        bounds: Of the measure.
        signed: Whether a sign is written before positive numbers too.

    Example:
        >>> interval_text(Interval(0.25, 0.1, 0.4), SHARE, signed=True)
        '+0.250 [+0.100, +0.400]'
    """
    sign, digits = "+" if signed else "", _digits(abs(interval.mean), bounds)
    numbers = [f"{value:{sign}.{digits}f}" for value in (interval.mean, interval.low, interval.high)]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def _p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _effect(value: float, bounds: Bounds) -> str:
    return f"{value:.{_digits(value, bounds)}f}" if math.isfinite(value) else "–"


def blocks_text(header: list[str], blocks: Mapping[str, list[list[str]]], caption: Sequence[str]) -> str:
    """A table a measure, under its name where there are several, and a caption for all."""
    tables = [(f"{measure}\n\n" if len(blocks) > 1 else "") + align(header, rows) for measure, rows in blocks.items()]
    return "\n\n".join([*tables, " ".join(caption)])


def align(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with padded columns: the first one flush left, the others flush right.

    Args:
        header: A cell a column.
        rows: As many cells each.
    """
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [header, *rows]]
    widths = [max(2, *(len(row[column]) for row in escaped)) for column in range(len(header))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in escaped
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def _tests(decisions: Sequence[Decision]) -> str:
    """What was tested and how; no test without a benchmark."""
    names = {"sign-flip": "sign flips of clusters (10,000)", "McNemar": "McNemar's test (independent items)"}
    methods = " or ".join(names[method] for method in dict.fromkeys(decision.method for decision in decisions))
    count = len(decisions)
    over = "the main measure of one benchmark" if count == 1 else f"the main measures of {count} benchmarks"
    return (
        f"Difference: gains less losses, square-and-add. p: {methods}, mid-p, Holm-adjusted over {over}. "
        "MDE: the smallest true difference found with 80% power; – where none can be given."
    )


def _remarks(seen: Sequence[Interval]) -> list[str]:
    remarks = []
    if any(math.isinf(end) for interval in seen for end in (interval.low, interval.high)):
        remarks.append("An infinite end: all clusters agree, which bounds nothing where a measure has no bound.")
    if any(interval.too_few for interval in seen):
        remarks.append("Too few: fewer than 10 clusters, with which the intervals' coverage is not known.")
    return remarks

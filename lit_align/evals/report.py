"""Result tables of benchmarks: aligned plain text that is also a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from lit_align.evals.benchmark import SHARE, Bounds, ItemResult
from lit_align.metrics.statistics import Interval, cluster_bootstrap, paired_cluster_bootstrap

Results = Mapping[str, Sequence[ItemResult]]
"""The results of each benchmark, by its name."""

Measures = Mapping[str, Mapping[str, Bounds]]
"""The measures of each benchmark with their bounds, by its name."""

_FEW_CLUSTERS = 20


def score_table(results: Results, measures: Measures) -> str:
    """Means of one measurement, with 95 % intervals.

    A block a measure; in it a line a benchmark over all its items, and below it a line a skill if it has more than one.

    Args:
        results: Results by name of the benchmark.
        measures: Measures of each benchmark.

    Example:
        >>> scores = [{"exact_match": float(i > 0)} for i in range(4)]
        >>> items = [ItemResult(str(i), str(i), "add", "1+1=", "2", "2", scores[i], False, 1) for i in range(4)]
        >>> print(*score_table({"sums": items}, {"sums": {"exact_match": SHARE}}).splitlines()[:3], sep=chr(10))
        | benchmark |  n | clusters |       score [95% CI] | cap hit |
        | :-------- | -: | -------: | -------------------: | ------: |
        | sums      |  4 |        4 | 0.750 [0.250, 1.000] |    0.0% |
    """
    blocks: dict[str, list[list[str]]] = {}
    seen: list[tuple[int, Interval]] = []
    for measure, bounds, name in _measured(results, measures):
        for label, items in _lines({name: results[name]}):
            clusters = [item.cluster for item in items]
            interval = cluster_bootstrap([item.scores[measure] for item in items], clusters, bounds=bounds)
            n_clusters = len(set(clusters))
            seen.append((n_clusters, interval))
            row = [label, str(len(items)), str(n_clusters), _format(interval, bounds), _cap_share(items)]
            blocks.setdefault(measure, []).append(row)
    return _blocks(["benchmark", "n", "clusters", "score [95% CI]", "cap hit"], blocks, "cluster bootstrap", seen)


def comparison_table(before: Results, after: Results, measures: Measures) -> str:
    """Means before and after with their paired difference, and 95 % intervals of all three.

    A block a measure; in it a line a benchmark over all its items, and below it a line a skill if it has more than one.

    Args:
        before: Results by name of the benchmark.
        after: Results of the same benchmarks on the same items.
        measures: Measures of each benchmark.

    Raises:
        ValueError: The two hold different benchmarks, or a benchmark's items or prompts differ.

    Example:
        >>> def results(*f1):
        ...     return [ItemResult(str(i), str(i), "add", "?", "", "", {"f1": f1[i]}, False, 1) for i in range(len(f1))]
        >>> before, after = {"sums": results(0, 0, 1, 0)}, {"sums": results(0, 1, 1, 1)}
        >>> table = comparison_table(before, after, {"sums": {"f1": SHARE}})
        >>> [cell.strip() for cell in table.splitlines()[2].split("|")][4:7]
        ['0.250 [0.000, 0.750]', '0.750 [0.250, 1.000]', '+0.500 [+0.000, +1.000]']
    """
    check_paired(before, after)
    partners = {(name, item.id): item for name, items in before.items() for item in items}
    blocks: dict[str, list[list[str]]] = {}
    seen: list[tuple[int, Interval]] = []
    for measure, bounds, name in _measured(after, measures):
        for label, items in _lines({name: after[name]}):
            earlier = [partners[name, item.id].scores[measure] for item in items]
            later = [item.scores[measure] for item in items]
            summary = paired_cluster_bootstrap(earlier, later, [item.cluster for item in items], bounds=bounds)
            seen += [(summary.n_clusters, arm) for arm in (summary.before, summary.after, summary.difference)]
            arms = [_format(arm, bounds) for arm in (summary.before, summary.after)]
            arms.append(_format(summary.difference, bounds, signed=True))
            row = [label, str(summary.n), str(summary.n_clusters), *arms, _cap_share(items)]
            blocks.setdefault(measure, []).append(row)
    header = ["benchmark", "n", "clusters", "before [95% CI]", "after [95% CI]", "difference [95% CI]", "cap hit after"]
    return _blocks(header, blocks, "paired cluster bootstrap", seen)


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


def means(results: Results) -> dict[str, float]:
    """Mean scores of each benchmark and of each of its skills.

    Args:
        results: Results by name of the benchmark.

    Returns:
        ``{"<name>": mean, "<name>/<skill>": mean, …}`` of a benchmark with one measure; ``<name>/<measure>`` stands in
        place of the name where there are several.

    Example:
        >>> items = [ItemResult(str(i), str(i), "add", "?", "", "", {"f1": i}, False, 1) for i in range(2)]
        >>> means({"sums": items})
        {'sums': 0.5, 'sums/add': 0.5}
    """
    values = {}
    for name, items in results.items():
        for measure in items[0].scores:

            def score(item: ItemResult, measure: str = measure) -> float:
                return item.scores[measure]

            key = name if len(items[0].scores) == 1 else f"{name}/{measure}"
            values[key] = _share(items, score)
            values |= {f"{key}/{skill}": _share(part, score) for skill, part in _by_skill(items).items()}
    return values


def _measured(results: Results, measures: Measures) -> Iterable[tuple[str, Bounds, str]]:
    """Each measure, its bounds, and a benchmark that has it; the benchmarks of a measure one after another."""
    for measure in dict.fromkeys(measure for name in results for measure in measures[name]):
        for name in results:
            if measure in measures[name]:
                yield measure, measures[name][measure], name


def _lines(results: Results) -> Iterable[tuple[str, Sequence[ItemResult]]]:
    for name, items in results.items():
        yield name, items
        skills = _by_skill(items)
        if len(skills) > 1:
            for skill, part in skills.items():
                yield f"– {skill}", part


def _by_skill(items: Sequence[ItemResult]) -> dict[str, list[ItemResult]]:
    skills: dict[str, list[ItemResult]] = {}
    for item in items:
        skills.setdefault(item.skill, []).append(item)
    return skills


def _share(items: Sequence[ItemResult], value: Callable[[ItemResult], float]) -> float:
    return sum(value(item) for item in items) / len(items)


def _cap_share(items: Sequence[ItemResult]) -> str:
    if any(item.hit_cap is None for item in items):
        return "–"
    return f"{100 * _share(items, lambda item: float(item.hit_cap or False)):.1f}%"


def _format(interval: Interval, bounds: Bounds, *, signed: bool = False) -> str:
    # Shares are told to a tenth of a percent; a KL of a thousandth of a nat is worth telling from none.
    digits = 3 if bounds == SHARE else 4
    sign = "+" if signed else ""
    numbers = [f"{value:{sign}.{digits}f}" for value in (interval.mean, interval.low, interval.high)]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def _blocks(
    header: list[str], blocks: Mapping[str, list[list[str]]], method: str, seen: Sequence[tuple[int, Interval]]
) -> str:
    """A table a measure, under its name where there are several, and a caption for all."""
    tables = [(f"{measure}\n\n" if len(blocks) > 1 else "") + _align(header, rows) for measure, rows in blocks.items()]
    return "\n\n".join([*tables, _caption(method, seen)])


def _align(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with padded columns: the first one flush left, the others flush right."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [header, *rows]]
    widths = [max(2, *(len(row[column]) for row in escaped)) for column in range(len(header))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in escaped
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def _caption(method: str, seen: Sequence[tuple[int, Interval]]) -> str:
    text = f"95% intervals by {method}, 10,000 resamples; Clopper-Pearson over clusters where all of them agree."
    if any(math.isinf(end) for _, interval in seen for end in (interval.low, interval.high)):
        text += " An infinite end: all clusters agree, which says nothing of others where a measure has no bound."
    if min(n_clusters for n_clusters, _ in seen) < _FEW_CLUSTERS:
        text += f" Intervals of lines with fewer than {_FEW_CLUSTERS} clusters tend to be too narrow."
    return text

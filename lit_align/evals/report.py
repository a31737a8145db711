"""Result tables of benchmarks: aligned plain text that is also a Markdown table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from lit_align.evals.benchmark import ItemResult
from lit_align.metrics.statistics import Interval, cluster_bootstrap, paired_cluster_bootstrap

Results = Mapping[str, Sequence[ItemResult]]
"""The results of each benchmark, by its name."""

_FEW_CLUSTERS = 20


def score_table(results: Results) -> str:
    """Means of one measurement, with 95 % intervals.

    A line a benchmark over all its items, and below it a line a skill if it has more than one.

    Args:
        results: Results by name of the benchmark.

    Example:
        >>> items = [ItemResult(str(i), str(i), "add", "1+1=", "2", "2", float(i > 0), False, 1) for i in range(4)]
        >>> print(*score_table({"sums": items}).splitlines()[:3], sep=chr(10))
        | benchmark |  n | clusters |       score [95% CI] | cap hit |
        | :-------- | -: | -------: | -------------------: | ------: |
        | sums      |  4 |        4 | 0.750 [0.250, 1.000] |    0.0% |
    """
    rows = []
    smallest = []
    for label, items in _lines(results):
        clusters = [item.cluster for item in items]
        interval = cluster_bootstrap([item.score for item in items], clusters)
        n_clusters = len(set(clusters))
        smallest.append(n_clusters)
        rows.append([label, str(len(items)), str(n_clusters), _format(interval), _cap_share(items)])
    header = ["benchmark", "n", "clusters", "score [95% CI]", "cap hit"]
    return _align(header, rows) + "\n\n" + _caption("cluster bootstrap", smallest)


def comparison_table(before: Results, after: Results) -> str:
    """Means before and after with their paired difference, and 95 % intervals of all three.

    A line a benchmark over all its items, and below it a line a skill if it has more than one.

    Args:
        before: Results by name of the benchmark.
        after: Results of the same benchmarks on the same items.

    Raises:
        ValueError: The two hold different benchmarks, or a benchmark's items or prompts differ.

    Example:
        >>> def results(*scores):
        ...     return [ItemResult(str(i), str(i), "add", "?", "", "", s, False, 1) for i, s in enumerate(scores)]
        >>> table = comparison_table({"sums": results(0, 0, 1, 0)}, {"sums": results(0, 1, 1, 1)})
        >>> [cell.strip() for cell in table.splitlines()[2].split("|")][4:7]
        ['0.250 [0.000, 0.750]', '0.750 [0.250, 1.000]', '+0.500 [+0.000, +1.000]']
    """
    check_paired(before, after)
    partners = {(name, item.id): item for name, items in before.items() for item in items}
    rows = []
    smallest = []
    for name in after:
        for label, items in _lines({name: after[name]}):
            earlier = [partners[name, item.id] for item in items]
            summary = paired_cluster_bootstrap(
                [item.score for item in earlier], [item.score for item in items], [item.cluster for item in items]
            )
            smallest.append(summary.n_clusters)
            arms = [_format(summary.before), _format(summary.after), _format(summary.difference, signed=True)]
            rows.append([label, str(summary.n), str(summary.n_clusters), *arms, _cap_share(items)])
    header = ["benchmark", "n", "clusters", "before [95% CI]", "after [95% CI]", "difference [95% CI]", "cap hit after"]
    return _align(header, rows) + "\n\n" + _caption("paired cluster bootstrap", smallest)


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
    """Mean score of each benchmark and of each of its skills.

    Args:
        results: Results by name of the benchmark.

    Returns:
        ``{"<name>": mean, "<name>/<skill>": mean, …}``.

    Example:
        >>> items = [ItemResult(str(i), str(i), "add", "?", "", "", float(i), False, 1) for i in range(2)]
        >>> means({"sums": items})
        {'sums': 0.5, 'sums/add': 0.5}
    """
    values = {}
    for name, items in results.items():
        values[name] = _share(items, lambda item: item.score)
        for skill, part in _by_skill(items).items():
            values[f"{name}/{skill}"] = _share(part, lambda item: item.score)
    return values


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
    return f"{100 * _share(items, lambda item: float(item.hit_cap)):.1f}%"


def _format(interval: Interval, *, signed: bool = False) -> str:
    numbers = [f"{value:+.3f}" if signed else f"{value:.3f}" for value in (interval.mean, interval.low, interval.high)]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


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


def _caption(method: str, clusters: Sequence[int]) -> str:
    text = f"95% intervals by {method}, 10,000 resamples; Clopper-Pearson over clusters where all of them agree."
    if min(clusters) < _FEW_CLUSTERS:
        text += f" Intervals of lines with fewer than {_FEW_CLUSTERS} clusters tend to be too narrow."
    return text

"""The numbers of a measurement for curves: means, their intervals, and what has changed since the baseline."""

from __future__ import annotations

from lit_align.evals.report import Measures, Results, by_skill, check_paired
from lit_align.metrics.statistics import Interval, mean_interval, paired_summary


def curves(results: Results, measures: Measures, baseline: Results | None = None) -> dict[str, float]:
    """Numbers of a measurement by key.

    Args:
        results: Results by name of the benchmark.
        measures: Measures of each benchmark.
        baseline: Results of the same items at the start; None for none to compare with.

    Returns:
        ``val/benchmark/KEY``, with ``KEY`` the name of the benchmark, and ``/SKILL`` behind it for a part of its items;
        over all items also ``val/benchmark_ci/KEY/low`` and ``/high``, and with a baseline
        ``val/benchmark_difference/KEY`` with ``/low`` and ``/high``: the paired difference. The measure stands behind
        the benchmark's name where it has several.

    Raises:
        ValueError: The baseline is of other items.

    Example:
        >>> from lit_align.evals.benchmark import ItemResult
        >>> items = [ItemResult(str(i), str(i), "add", "?", "", "", {"f1": i}, False, 1) for i in range(2)]
        >>> found = curves({"sums": items}, {"sums": {"f1": (0.0, 1.0)}})
        >>> found["val/benchmark/sums"], found["val/benchmark/sums/add"]
        (0.5, 0.5)
    """
    if baseline is not None:
        check_paired(baseline, results)
    found: dict[str, float] = {}
    for name, items in results.items():
        clusters = [item.cluster for item in items]
        for measure, bounds in measures[name].items():
            key = name if len(measures[name]) == 1 else f"{name}/{measure}"
            scores = [item.scores[measure] for item in items]
            interval = mean_interval(scores, clusters, bounds=bounds)
            found[f"val/benchmark/{key}"] = interval.mean
            for skill, part in by_skill(items).items():
                found[f"val/benchmark/{key}/{skill}"] = sum(item.scores[measure] for item in part) / len(part)
            found |= _ends(f"val/benchmark_ci/{key}", interval)
            if baseline is not None:
                before = [item.scores[measure] for item in baseline[name]]
                difference = paired_summary(before, scores, clusters, bounds=bounds).difference
                found[f"val/benchmark_difference/{key}"] = difference.mean
                found |= _ends(f"val/benchmark_difference/{key}", difference)
    return found


def _ends(key: str, interval: Interval) -> dict[str, float]:
    return {f"{key}/low": interval.low, f"{key}/high": interval.high}

"""How often an answer after training beats the one before, for measures that have no scale of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lit_align.evals.benchmark import ItemResult
from lit_align.evals.report import Results, align, check_paired, counts
from lit_align.metrics.statistics import Interval
from lit_align.metrics.win_rate import length_controlled_win_rate, win_rate

_SAME = 1e-4  # of a score's size: what rounding in fp32 makes of a conversation in two batches
_HEADER = ["benchmark", "n", "clusters", "win rate [95% CI]", "at equal length [95% CI]", "tokens before", "after"]
_CAPTION = (
    "Win rate: share of the items whose {measures} is higher after than before, ties counting half; .5 is no change. "
    "At equal length: by logistic regression on the difference in tokens (Dubois et al. 2024), thoughts not counted."
)


def win_table(before: Results, after: Results, measure_of: Mapping[str, str]) -> str:
    """Win rates of the answers after against those before, with 95 % intervals over clusters.

    Args:
        before: Results by name of the benchmark.
        after: Results of the same benchmarks on the same items.
        measure_of: The measure whose winner counts, by name of the benchmark; others are left out.

    Returns:
        A Markdown table; empty where no benchmark has such a measure.

    Raises:
        ValueError: The two are not of the same items.

    Example:
        >>> def results(*reward):
        ...     return {"chat": [ItemResult(str(i), str(i), "all", "?", f"{one}", "", {"reward": one}, False, 5 + i % 2)
        ...                      for i, one in enumerate(reward)]}
        >>> table = win_table(results(*[0.0] * 12), results(*[1.0, 2.0, 0.0] * 4), {"chat": "reward"})
        >>> [cell.strip() for cell in table.splitlines()[2].split("|")][1:5]
        ['chat', '12', '12', '0.833 [0.619, 0.939]']
    """
    check_paired(before, after)
    rows = []
    for name, measure in measure_of.items():
        clusters = [item.cluster for item in after[name]]
        # A conversation that is the same throughout ties, though its scores may come of other batches or a resume.
        items = list(zip(before[name], after[name], strict=True))
        changed = {two.cluster for one, two in items if one.answer != two.answer}
        pairs = [_scores(one, two, measure, two.cluster in changed) for one, two in items]
        first, second = ([pair[arm] for pair in pairs] for arm in (0, 1))
        lengths = [[_length(item) for item in arm[name]] for arm in (before, after)]
        longer_by = [late - early for early, late in zip(*lengths, strict=True)]
        plain = win_rate(first, second, clusters).rate
        controlled = length_controlled_win_rate(first, second, longer_by, clusters)
        told = [f"{_mean(arm):.1f}" for arm in lengths]
        rows.append([name, *counts(clusters, plain), _told(plain), _told(controlled), *told])
    if not rows:
        return ""
    return f"{align(_HEADER, rows)}\n\n{_CAPTION.format(measures=' or '.join(dict.fromkeys(measure_of.values())))}"


def _scores(before: ItemResult, after: ItemResult, measure: str, changed: bool) -> tuple[float, float]:
    early, late = before.scores[measure], after.scores[measure]
    is_tie = not changed or math.isclose(early, late, rel_tol=_SAME, abs_tol=_SAME)
    return (early, early) if is_tie else (early, late)


def _length(item: ItemResult) -> float:
    return float(item.new_tokens - item.think_tokens)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _told(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

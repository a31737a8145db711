"""Intervals of means over clustered items, alone and paired."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK_CELLS = 1_000_000  # drawn cluster indices held at once: 8 MB, whatever the number of resamples


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: The mean over the items, in the score's unit.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedSummary:
    """Two measurements of the same items, and their difference.

    Attributes:
        n: Number of items.
        n_clusters: Number of clusters that the items fall into; the intervals' effective sample size.
        before: Mean of the first measurement.
        after: Mean of the second measurement.
        difference: ``after - before``, paired by item.
    """

    n: int
    n_clusters: int
    before: Interval
    after: Interval
    difference: Interval


def cluster_bootstrap(
    scores: ArrayLike,
    clusters: Sequence[str],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Percentile bootstrap interval of a mean whose items come in clusters.

    See :func:`paired_cluster_bootstrap` for the method and its limits.

    Args:
        scores: One score per item, within ``bounds``.
        clusters: The cluster of each item.
        resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the resampling; no global random state is read or written.
        level: Coverage aimed at, between 0 and 1.
        bounds: Smallest and largest possible score; infinite where there is no bound.

    Raises:
        ValueError: No items, lengths that differ, or a score that is not finite or outside of ``bounds``.

    Example:
        >>> cluster_bootstrap([0, 1, 1, 1], ["a", "a", "b", "b"])
        Interval(mean=0.75, low=0.5, high=1.0)
    """
    _check_options(resamples, level, bounds)
    table = _cluster_table([_scores(scores, bounds)], clusters)
    return _intervals(table, np.array([[1.0]]), [bounds], resamples, seed, level)[0]


def paired_cluster_bootstrap(
    before: ArrayLike,
    after: ArrayLike,
    clusters: Sequence[str],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> PairedSummary:
    r"""Percentile bootstrap of two paired means and of their difference, resampling whole clusters.

    Questions about one table are not independent, so the table is what is drawn with replacement (Miller 2024,
    arXiv:2411.00640, on clustered and paired errors of language-model evaluations; Efron & Tibshirani 1993,
    chapters 8 and 13, on the bootstrap of structured data and the percentile interval). With :math:`S_k` the sum of
    cluster :math:`k` and :math:`m_k` its number of items, a resample :math:`k_1 \dots k_K` gives

    .. math:: \bar{s}^* = \sum_j S_{k_j} \Big/ \sum_j m_{k_j}

    and the interval spans the :math:`(1 \mp level) / 2` quantiles of it. All three intervals use the same resamples.

    Where every cluster has the same mean :math:`c`, so that the bootstrap would claim a width of zero, the interval
    bounds what the :math:`K` clusters may have missed. Clusters that behave otherwise have a share of at most
    :math:`u = 1 - (\alpha / 2)^{1/K}` (Clopper & Pearson 1934, Biometrika 26, no event in :math:`K` trials;
    :math:`\alpha = 1 - level`; the rule of three is its one-sided form, :math:`u \approx 3 / K`), and their scores
    may lie anywhere in the bounds :math:`[a, b]`: :math:`[c + u (a - c),\ c + u (b - c)]`. For a rate of exactly 0 or
    1 this is the Clopper-Pearson interval with the clusters as trials; for a difference, :math:`a = -b`. A measure
    without a bound (a log-prob, a KL) has an infinite end there: agreement says nothing of how far the others lie.

    Note:
        The percentile interval is too narrow with few clusters: by a factor of about :math:`\sqrt{(K-1)/K}` and by
        normal instead of Student tails. Below some 20 clusters read it as a lower limit of the uncertainty. It
        speaks of sampling items from the population that the clusters came from, of nothing else: not of the
        training seed, nor of a benchmark that is unlike its use.

    Args:
        before: First score of each item, within ``bounds``.
        after: Second score of each item, in the same order.
        clusters: The cluster of each item; all different for independent items.
        resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the resampling; no global random state is read or written.
        level: Coverage aimed at, between 0 and 1.
        bounds: Smallest and largest possible score, infinite where there is no bound; they matter only where all
            clusters agree.

    Returns:
        Means and intervals. The result depends neither on the items' order nor on the clusters' names.

    Raises:
        ValueError: No items, lengths that differ, or a score that is not finite or outside of ``bounds``.

    Example:
        >>> tables = [str(i // 2) for i in range(8)]
        >>> summary = paired_cluster_bootstrap([0, 0, 0, 1, 0, 0, 1, 1], [0, 1, 0, 1, 1, 1, 1, 1], tables)
        >>> summary.difference
        Interval(mean=0.375, low=0.0, high=0.75)
        >>> summary.n, summary.n_clusters
        (8, 4)
    """
    _check_options(resamples, level, bounds)
    table = _cluster_table([_scores(before, bounds), _scores(after, bounds)], clusters)
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    span = bounds[1] - bounds[0]
    arm_before, arm_after, difference = _intervals(
        table, weights, [bounds, bounds, (-span, span)], resamples, seed, level
    )
    return PairedSummary(len(clusters), len(table), arm_before, arm_after, difference)


def _check_options(resamples: int, level: float, bounds: tuple[float, float]) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if not bounds[0] < bounds[1]:
        raise ValueError(f"bounds must be (smallest, largest) possible score, got {bounds}")


def _scores(values: ArrayLike, bounds: tuple[float, float]) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"scores must be a non-empty vector, got shape {scores.shape}")
    # Written so that NaN is outside; infinity is no score, whatever the bounds.
    outside = ~((scores >= bounds[0]) & (scores <= bounds[1]) & np.isfinite(scores))
    if outside.any():
        index = int(np.argmax(outside))
        raise ValueError(f"score {scores[index]} of item {index} is not within the bounds {bounds}")
    return scores


def _cluster_table(arms: list[NDArray[np.float64]], clusters: Sequence[str]) -> NDArray[np.float64]:
    """One row a cluster: number of items, then the sum of each arm; the same for any order of the items."""
    sizes = {len(clusters), *(len(arm) for arm in arms)}
    if len(sizes) > 1:
        raise ValueError(f"scores and clusters must have one length, got {[len(a) for a in arms]} and {len(clusters)}")
    labels = {label: index for index, label in enumerate(dict.fromkeys(clusters))}
    index = np.array([labels[label] for label in clusters])
    # Floating-point sums depend on the order of the summands, and the resamples on the order of the clusters. Both
    # are put into an order that depends on the scores alone.
    order = np.lexsort((*arms, index))
    columns = [np.bincount(index), *(np.bincount(index[order], weights=arm[order]) for arm in arms)]
    table = np.stack([column.astype(np.float64) for column in columns], axis=1)
    return table[np.lexsort(table.T)]


def _intervals(
    table: NDArray[np.float64],
    weights: NDArray[np.float64],
    bounds: list[tuple[float, float]],
    resamples: int,
    seed: int,
    level: float,
) -> list[Interval]:
    """An interval for each row of ``weights``, a linear combination of the arms in ``table``."""
    count = len(table)
    sums = np.concatenate([table[:, :1], table[:, 1:] @ weights.T], axis=1)
    totals = sums.sum(axis=0)
    means = totals[1:] / totals[0]

    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // count)
    drawn = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, chunk):
        stop = min(start + chunk, resamples)
        picks = rng.integers(count, size=(stop - start, count))
        for column in range(sums.shape[1]):
            drawn[start:stop, column] = sums[picks, column].sum(axis=1)
    ratios = drawn[:, 1:] / drawn[:, :1]

    alpha = 1 - level
    unseen = 1 - (alpha / 2) ** (1 / count)
    result = []
    for column, (smallest, largest) in enumerate(bounds):
        mean = float(means[column])
        cluster_means = sums[:, column + 1] / sums[:, 0]
        # Without bounds the scores' own size says what rounding may make of equal means.
        size = largest - smallest if math.isfinite(largest - smallest) else float(np.abs(cluster_means).max())
        if float(np.ptp(cluster_means)) <= 1e-12 * size:
            low, high = mean + unseen * (smallest - mean), mean + unseen * (largest - mean)
        else:
            low, high = (float(end) for end in np.quantile(ratios[:, column], [alpha / 2, 1 - alpha / 2]))
        result.append(Interval(mean, low, high))
    return result

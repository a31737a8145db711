"""Two measurements of the same clustered items, and the interval of their difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lit_align.metrics.statistics.clusters import Bounds, ClusterSums, Floats, checked, cluster_sums
from lit_align.metrics.statistics.intervals import Interval, interval_of


@dataclass(frozen=True)
class PairedSummary:
    """Two measurements of the same items, and their difference.

    Attributes:
        n: Number of items.
        n_clusters: Number of clusters that the items fall into.
        before: Mean of the first measurement.
        after: Mean of the second measurement.
        difference: ``after - before``, paired by item.
    """

    n: int
    n_clusters: int
    before: Interval
    after: Interval
    difference: Interval


def paired_summary(
    before: ArrayLike,
    after: ArrayLike,
    clusters: Sequence[str],
    *,
    bounds: Bounds = (0.0, 1.0),
    level: float = 0.95,
) -> PairedSummary:
    r"""Both means and their difference, paired by item and clustered.

    The arms have the intervals of :func:`mean_interval`. The difference of a measure with two bounds is the mean gain
    :math:`g` (of the items that rose) less the mean loss :math:`l` (of those that fell), each a share of the span with
    an interval of its own, :math:`[g_-, g_+]` and :math:`[l_-, l_+]`. They make one (the square-and-add of Newcombe
    1998, Statistics in Medicine 17, and Zou & Donner 2008, same journal 27), with :math:`r` the correlation of gains
    and losses over the clusters (-1 where all agree, so that nothing is known of it):

    .. math::
        \text{low} = g - l - \sqrt{(g - g_-)^2 + (l_+ - l)^2 - 2 r (g - g_-) (l_+ - l)}

    and the other end likewise. Where no item fell (or none rose), :math:`l_+` is the bound on what the clusters may
    have missed, with changes as large as the largest that a cluster has, or as the span where none has any. So no
    change at all, and changes that all go one way, still leave room for what was not seen. The two take
    :math:`8 / (\kappa - 1/K)` degrees of freedom where these are less than :math:`K - 1`, since few clusters change:
    four times Satterthwaite's number for the variance of their error (:math:`\kappa` is
    :attr:`ClusterSums.concentration`); the factor is chosen by simulation.
    Without two bounds the difference has the interval of :func:`mean_interval` without bounds.

    Args:
        before: First score of each item, within ``bounds``.
        after: Second score of each item, in the same order.
        clusters: The cluster of each item; all different for independent items.
        bounds: Smallest and largest possible score; infinite where there is no bound.
        level: Coverage aimed at, between 0 and 1.

    Returns:
        Means and intervals; they depend neither on the items' order nor on the clusters' names.

    Raises:
        ValueError: No items, lengths that differ, or a score that is not finite or outside of ``bounds``.

    Example:
        >>> tables = [str(i // 2) for i in range(24)]
        >>> summary = paired_summary([0, 0, 0, 1, 0, 0, 1, 1] * 3, [0, 1, 0, 1, 1, 1, 1, 1] * 3, tables)
        >>> difference = summary.difference
        >>> f"{difference.mean} [{difference.low:.3f}, {difference.high:.3f}]", summary.n, summary.n_clusters
        ('0.375 [0.032, 0.660]', 24, 12)
    """
    first, second = checked(before, bounds), checked(after, bounds)
    if len(first) != len(second):
        raise ValueError(f"before and after must have one length, got {len(first)} and {len(second)}")
    changes = second - first
    arms = cluster_sums([first, second, np.maximum(changes, 0), np.maximum(-changes, 0)], clusters)
    span = bounds[1] - bounds[0]
    if math.isfinite(span):
        difference = difference_of(arms[2], arms[3], span, level)
    else:
        total = ClusterSums(arms[0].sizes, arms[1].sums - arms[0].sums)
        difference = interval_of(total, (-math.inf, math.inf), level)
    old, new = (interval_of(arm, bounds, level) for arm in arms[:2])
    return PairedSummary(len(clusters), arms[0].count, old, new, difference)


def difference_of(gains: ClusterSums, losses: ClusterSums, span: float, level: float = 0.95) -> Interval:
    """Interval of mean gain less mean loss; see :func:`paired_summary`.

    Args:
        gains: What the items rose by, summed by cluster.
        losses: What the items fell by, in the same clusters.
        span: Largest less smallest possible score.
        level: Coverage aimed at, between 0 and 1.

    Example:
        >>> sizes = np.ones(40)
        >>> none = ClusterSums(sizes, np.zeros(40))
        >>> difference = difference_of(none, none, 1.0)  # no item changed
        >>> f"{difference.mean} [{difference.low:.3f}, {difference.high:.3f}]"
        '0.0 [-0.088, 0.088]'
    """
    # What was not seen to rise, or to fall, is taken to be no larger than what was seen to change.
    seen = float(((gains.sums + losses.sums) / gains.sizes).max()) or span
    gain, loss = (
        interval_of(side, (0.0, span if side.sums.any() else seen), level, degrees=_degrees(side))
        for side in (gains, losses)
    )
    mean = gain.mean - loss.mean
    # Where all clusters agree, one that was not seen may both miss the gain and bring a loss.
    agree = [side.agree(span) for side in (gains, losses)]
    r = -1.0 if all(agree) else 0.0 if any(agree) else _correlation(gains.residuals, losses.residuals)
    low = _together(gain.mean - gain.low, loss.high - loss.mean, r)
    high = _together(gain.high - gain.mean, loss.mean - loss.low, r)
    return Interval(mean, max(mean - low, -span), min(mean + high, span), gain.too_few)


def is_better(
    before: ArrayLike,
    after: ArrayLike,
    clusters: Sequence[str],
    *,
    bounds: Bounds = (0.0, 1.0),
    level: float = 0.95,
) -> bool:
    """Whether the interval of the paired difference lies above 0.

    Args:
        before: First score of each item, within ``bounds``.
        after: Second score of each item, in the same order; larger is better.
        clusters: The cluster of each item.
        bounds: Smallest and largest possible score.
        level: Coverage of the interval.

    Raises:
        ValueError: As :func:`paired_summary`.

    Example:
        >>> questions = [str(i) for i in range(32)]
        >>> is_better([5] * 32, [6, 6, 7, 5] * 8, questions, bounds=(1, 10))
        True
        >>> is_better([5] * 32, [5] * 31 + [6], questions, bounds=(1, 10))
        False
    """
    return paired_summary(before, after, clusters, bounds=bounds, level=level).difference.low > 0


def _degrees(data: ClusterSums) -> float:
    # At least rounding above 0, where the clusters' residuals are all of one size.
    excess = max(data.concentration - 1 / data.count, 1e-12)
    return min(data.count - 1, 8 / excess)


def _correlation(first: Floats, second: Floats) -> float:
    return float((first * second).sum()) / math.sqrt(float((first**2).sum()) * float((second**2).sum()))


def _together(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(first**2 + second**2 - 2 * correlation * first * second, 0.0))

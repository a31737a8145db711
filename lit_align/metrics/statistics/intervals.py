"""Interval of the mean of clustered items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from lit_align.metrics.statistics.clusters import FEW_CLUSTERS, Bounds, ClusterSums, checked, cluster_sums


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: The mean over the items, in the score's unit.
        low: Lower end of the interval.
        high: Upper end of the interval.
        too_few: Whether it rests on fewer than 10 clusters, with which its coverage is not known.
    """

    mean: float
    low: float
    high: float
    too_few: bool = False


def mean_interval(
    scores: ArrayLike, clusters: Sequence[str], *, bounds: Bounds = (0.0, 1.0), level: float = 0.95
) -> Interval:
    r"""Interval of a mean whose items come in clusters.

    Questions about one table are not independent, so the table is the unit. With the mean :math:`\bar s`, its clustered
    standard error SE (:class:`ClusterSums`) and :math:`t` the quantile of Student's distribution with :math:`K - 1`
    degrees of freedom, the interval is symmetric on the scale on which the mean has no bounds, and is carried back:

    * two bounds (a share, F1, a rating): :math:`\operatorname{logit} p \pm t \cdot \mathrm{SE} / (p (1 - p))` of the
      mean :math:`p` scaled to 0…1 (Korn & Graubard 1998, Survey Methodology 24, for clustered proportions);
    * one bound (a KL, a log-prob): :math:`\log \bar s \pm t \cdot \mathrm{SE} / \bar s` of the distance to it;
    * none: :math:`\bar s \pm t \cdot \mathrm{SE}`.

    Without two bounds SE counts two more clusters (:attr:`ClusterSums.padded_error`). Where all clusters have the same
    mean :math:`c`, so that SE is 0, the interval bounds what the :math:`K` clusters may have missed: clusters that
    behave otherwise have a share of at most :math:`u = 1 - (\alpha / 2)^{1/K}` (Clopper & Pearson 1934, Biometrika 26,
    no event in :math:`K` trials; :math:`\alpha = 1 - level`), and their scores may lie anywhere in the bounds
    :math:`[a, b]`: :math:`[c + u (a - c),\ c + u (b - c)]`. All right or all wrong has one end at the bound, so no
    interval has zero width; a measure without a bound has an infinite end there.

    The package's docstring has the coverage. The interval speaks of sampling items from the population that the
    clusters came from, of nothing else: not of the training seed, nor of a benchmark that is unlike its use.

    Args:
        scores: One score an item, within ``bounds``.
        clusters: The cluster of each item; all different for independent items.
        bounds: Smallest and largest possible score; infinite where there is no bound.
        level: Coverage aimed at, between 0 and 1.

    Returns:
        The interval; it depends neither on the items' order nor on the clusters' names.

    Raises:
        ValueError: No items, lengths that differ, or a score that is not finite or outside of ``bounds``.

    Example:
        >>> names = [str(i // 2) for i in range(40)]
        >>> mostly = mean_interval([0, 1, 1, 1] * 10, names)
        >>> f"{mostly.mean} [{mostly.low:.3f}, {mostly.high:.3f}]"
        '0.75 [0.613, 0.851]'
        >>> all_right = mean_interval([1] * 40, names)
        >>> f"{all_right.mean} [{all_right.low:.3f}, {all_right.high:.3f}]"
        '1.0 [0.832, 1.000]'
    """
    (data,) = cluster_sums([checked(scores, bounds)], clusters)
    return interval_of(data, bounds, level)


def interval_of(data: ClusterSums, bounds: Bounds, level: float = 0.95, *, degrees: float | None = None) -> Interval:
    """Interval of the mean of scores that are summed by cluster; see :func:`mean_interval`.

    Args:
        data: Sizes and sums of the clusters.
        bounds: Smallest and largest possible score; infinite where there is no bound.
        level: Coverage aimed at, between 0 and 1.
        degrees: Degrees of freedom; one less than there are clusters if ``None``.

    Raises:
        ValueError: A level that is none.

    Example:
        >>> import numpy as np
        >>> numbers = interval_of(ClusterSums(np.ones(9), np.arange(9.0)), (-math.inf, math.inf))
        >>> f"{numbers.mean} [{numbers.low:.3f}, {numbers.high:.3f}]", numbers.too_few
        ('4.0 [1.515, 6.485]', True)
    """
    # Imported here: scipy takes a fifth of a second, and a help text none.
    from scipy.special import expit, stdtrit

    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    alpha, mean, (smallest, largest) = 1 - level, data.mean, bounds
    few = data.count < FEW_CLUSTERS
    if data.agree(largest - smallest) or mean in bounds:
        unseen = 1 - (alpha / 2) ** (1 / data.count)
        ends = [mean if bound == mean else mean + unseen * (bound - mean) for bound in bounds]
        return Interval(mean, ends[0], ends[1], few)
    t = float(stdtrit(data.count - 1 if degrees is None else degrees, 1 - alpha / 2))
    span = largest - smallest
    if math.isfinite(span):
        share = (mean - smallest) / span
        logit = math.log(share) - math.log1p(-share)
        half = t * data.error / span / (share * (1 - share))
        return Interval(
            mean, smallest + span * float(expit(logit - half)), smallest + span * float(expit(logit + half)), few
        )
    half = t * data.padded_error
    if math.isfinite(smallest):
        distance = mean - smallest
        factor = math.exp(half / distance)
        return Interval(mean, smallest + distance / factor, smallest + distance * factor, few)
    if math.isfinite(largest):
        distance = largest - mean
        factor = math.exp(half / distance)
        return Interval(mean, largest - distance * factor, largest - distance / factor, few)
    return Interval(mean, mean - half, mean + half, few)

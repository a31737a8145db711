"""How small a difference the items at hand could show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import ArrayLike

from lit_align.metrics.statistics.clusters import Bounds, ClusterSums, checked, cluster_sums

_CHANGED = 5  # clusters that must all change one way for the sign-flip test to say so: mid-p 2 / 2**5 / 2 < 0.05


def minimum_detectable_effect(
    before: ArrayLike,
    after: ArrayLike,
    clusters: Sequence[str],
    *,
    bounds: Bounds = (0.0, 1.0),
    level: float = 0.95,
    power: float = 0.8,
) -> float:
    r"""The smallest true difference that a test of these items would find with the given power.

    .. math:: \mathrm{MDE} = (t_{1 - \alpha/2} + t_{power}) \cdot \mathrm{SE}

    with Student's quantiles of :math:`K - 1` degrees of freedom (Bloom 1995, Evaluation Review 19) and the standard
    error of the paired difference over clusters, two clusters added (:attr:`ClusterSums.padded_error`). It depends on
    how much the items' differences vary, not on their mean: the number to read where no difference was found.

    Where all clusters differ by the same amount SE says nothing. At a measure with two bounds the figure is then that
    of the extreme case: the share of clusters that must change by the whole span, so that at least five do with the
    given power, which is what the sign-flip test needs. Below five clusters, and without two bounds, it is infinite:
    none can be given.

    Args:
        before: First score of each item, within ``bounds``.
        after: Second score of each item, in the same order.
        clusters: The cluster of each item.
        bounds: Smallest and largest possible score; infinite where there is no bound.
        level: One less the level of the two-sided test.
        power: Probability of finding it.

    Returns:
        The difference, > 0, in the score's unit; infinite where none can be given or it would exceed the span.

    Raises:
        ValueError: No items, lengths that differ, a score outside of ``bounds``, a level or power that is none.

    Example:
        >>> questions = [str(i) for i in range(200)]
        >>> round(minimum_detectable_effect([0, 1, 0, 1] * 50, [0, 1, 1, 0] * 50, questions), 3)
        0.143
        >>> round(minimum_detectable_effect([1] * 200, [1] * 200, questions), 3)
        0.033
    """
    first, second = checked(before, bounds), checked(after, bounds)
    if len(first) != len(second):
        raise ValueError(f"before and after must have one length, got {len(first)} and {len(second)}")
    (changes,) = cluster_sums([second - first], clusters)
    return effect_of(changes, bounds[1] - bounds[0], level=level, power=power)


def effect_of(changes: ClusterSums, span: float, *, level: float = 0.95, power: float = 0.8) -> float:
    """Minimum detectable effect of differences that are summed by cluster.

    Args:
        changes: Differences of the items of each cluster.
        span: Largest less smallest possible score; infinite where there is none.
        level: One less the level of the two-sided test.
        power: Probability of finding it.

    Raises:
        ValueError: A level or power that is none.

    Example:
        >>> import numpy as np
        >>> effect_of(ClusterSums(np.ones(4), np.zeros(4)), 1.0)
        inf
    """
    # Imported here: scipy takes a fifth of a second, and a help text none.
    from scipy.special import betaincinv, stdtrit

    for name, value in (("level", level), ("power", power)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}")
    if changes.agree(span):
        if changes.count < _CHANGED or math.isinf(span):
            return math.inf
        return span * float(betaincinv(_CHANGED, changes.count - _CHANGED + 1, power))
    degrees = changes.count - 1
    effect = float(stdtrit(degrees, (1 + level) / 2) + stdtrit(degrees, power)) * changes.padded_error
    return effect if effect <= span else math.inf

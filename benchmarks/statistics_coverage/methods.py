"""The intervals that are compared: those of the package, and the ones that did not do."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lit_align.metrics.statistics.clusters import Bounds, ClusterSums
from lit_align.metrics.statistics.intervals import Interval, interval_of
from lit_align.metrics.statistics.paired import difference_of

Method = Callable[[ClusterSums, Bounds], Interval]
PairedMethod = Callable[[ClusterSums, ClusterSums], Interval]

RESAMPLES = 400  # of the bootstrap: its quantiles' noise is far below the coverage that it lacks


def chosen(data: ClusterSums, bounds: Bounds) -> Interval:
    """The package's interval of a mean."""
    return interval_of(data, bounds)


def student(data: ClusterSums, bounds: Bounds) -> Interval:
    """Student's t on the linearised clusters, without any scale; the package's where all clusters agree."""
    from scipy.special import stdtrit

    if data.agree(bounds[1] - bounds[0]):
        return interval_of(data, bounds)
    half = float(stdtrit(data.count - 1, 0.975)) * data.error
    return Interval(data.mean, data.mean - half, data.mean + half)


def percentile(data: ClusterSums, bounds: Bounds) -> Interval:
    """Percentile cluster bootstrap; the package's where all clusters agree."""
    if data.agree(bounds[1] - bounds[0]):
        return interval_of(data, bounds)
    count = data.count
    picks = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    ratios = data.sums[picks].sum(axis=1) / data.sizes[picks].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(data.mean, float(low), float(high))


def chosen_difference(gains: ClusterSums, losses: ClusterSums) -> Interval:
    """The package's interval of a paired difference within bounds."""
    return difference_of(gains, losses, 1.0)


def student_difference(gains: ClusterSums, losses: ClusterSums) -> Interval:
    """Student's t of the difference."""
    return student(ClusterSums(gains.sizes, gains.sums - losses.sums), (-1.0, 1.0))


def percentile_difference(gains: ClusterSums, losses: ClusterSums) -> Interval:
    """Percentile cluster bootstrap of the difference."""
    return percentile(ClusterSums(gains.sizes, gains.sums - losses.sums), (-1.0, 1.0))


UNBOUNDED: Bounds = (-math.inf, math.inf)
POSITIVE: Bounds = (0.0, math.inf)
SHARE: Bounds = (0.0, 1.0)
METHODS: dict[str, Method] = {"chosen": chosen, "Student's t": student, "percentile bootstrap": percentile}
PAIRED: dict[str, PairedMethod] = {
    "chosen": chosen_difference, "Student's t": student_difference, "percentile bootstrap": percentile_difference,
}  # fmt: skip

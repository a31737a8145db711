"""Intervals over items and over training seeds, from resamples that all settings share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lit_align.metrics.statistics import Interval, paired_summary

Floats = NDArray[np.float64]

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Change:
    """A mean difference over items and seeds.

    Attributes:
        interval: The difference with its interval.
        by_seed: Difference of each seed.
        draws: Difference in each resample, ``(resamples,)``.
    """

    interval: Interval
    by_seed: Floats
    draws: Floats


class Resampling:
    """Draws of item clusters and seeds that all settings share, so that differences between them are paired.

    A resample draws the clusters of each part's items, and the seeds, with replacement (Efron & Tibshirani 1993,
    chapters 8 and 13). So an interval covers the sampling of items and of training seeds (adapter and order of the
    data), not other data, models or tasks. With three seeds the share of the seeds is understated: by a factor of about
    sqrt(2/3) in standard deviation.

    Args:
        labels: Cluster of each item, for each part.
        seeds: Number of seeds, > 0.
        resamples: Number of resamples, > 0.
        seed: Seed of the draws.

    Attributes:
        clusters: Number of clusters of each part.
    """

    def __init__(self, labels: Sequence[Sequence[str]], seeds: int, resamples: int = 4_000, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._labels = [list(own) for own in labels]
        self._index = [np.unique(own, return_inverse=True)[1] for own in self._labels]
        sizes = [np.bincount(index).astype(np.float64) for index in self._index]
        self._weights = []
        for size in sizes:
            times = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), size=resamples).astype(np.float64)
            self._weights.append(times / (times @ size)[:, None])
        self._seeds = rng.integers(seeds, size=(resamples, seeds))
        self.clusters = tuple(map(len, sizes))

    def change(self, part: int, before: Floats, after: Floats) -> Change:
        """Mean difference of a part's items.

        Args:
            part: Number of the part.
            before: Scores, ``(seeds, items)``; either of the two may be ``(1, items)`` where all seeds share it.
            after: Scores, likewise.

        Raises:
            ValueError: The rows are not one a seed, or on one side one.
        """
        seeds = self._seeds.shape[1]
        if not {len(before), len(after)} <= {1, seeds} or seeds not in (len(before), len(after)):
            raise ValueError(f"expected {seeds} rows, or 1 on one side, got {len(before)} and {len(after)}")
        by_item = after - before  # (seeds, n)
        sums = np.stack([np.bincount(self._index[part], weights=row) for row in by_item], axis=1)
        by_seed = self._weights[part] @ sums  # (resamples, seeds)
        draws = np.take_along_axis(by_seed, self._seeds, axis=1).mean(axis=1)
        own = by_item.mean(axis=1)
        if float(np.ptp(draws)) <= 1e-12:
            # All clusters and seeds agree; the bound on what the clusters may have missed is then the honest width.
            bound = paired_summary(before.mean(axis=0), after.mean(axis=0), self._labels[part])
            return Change(bound.difference, own, draws)
        return Change(interval_of(float(by_item.mean()), draws), own, draws)


def interval_of(mean: float, draws: Floats) -> Interval:
    """Percentile interval of a mean."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))

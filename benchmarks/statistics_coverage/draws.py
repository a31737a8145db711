"""Drawn benchmarks whose true means are known: items in clusters of unequal size that resemble each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lit_align.metrics.statistics.clusters import ClusterSums

Floats = NDArray[np.float64]
LARGEST = 6  # questions of a table of TAT-QA

PARTIAL = 0.5, 0.2  # an answer that is not wrong: right half of the time, else of an F1 uniform from 0.2 to 1
PARTIAL_MEAN = 0.8
SPREAD = 0.8  # of log KL


@dataclass(frozen=True)
class Design:
    """How the items fall into clusters.

    Attributes:
        clusters: Number of clusters.
        items: Number of items on average; each cluster has 1 to 6, all have 1 where this is the number of clusters.
        alike: Correlation of two items of a cluster, from 0 to below 1.
    """

    clusters: int
    items: int
    alike: float

    def sizes(self, rng: np.random.Generator, draws: int) -> Floats:
        """Items of each cluster, ``(draws, clusters)``."""
        if self.items == self.clusters:
            return np.ones((draws, self.clusters))
        sizes = np.arange(1, LARGEST + 1)
        # Of the geometric distributions, cut at 6, the one with the mean that is asked for.
        weights = np.exp(np.linspace(-3, 3, 601)[:, None] * sizes)
        weights /= weights.sum(axis=1, keepdims=True)
        chosen = np.argmin(np.abs(weights @ sizes - self.items / self.clusters))
        return rng.choice(sizes, size=(draws, self.clusters), p=weights[chosen]).astype(np.float64)

    def rates(self, rng: np.random.Generator, draws: int, shares: list[float]) -> Floats:
        """Probabilities of the outcomes in each cluster, with means ``shares``: ``(outcomes, draws, clusters)``."""
        means = np.array(shares)[:, None, None]
        if self.alike == 0:
            return np.broadcast_to(means, (len(shares), draws, self.clusters))
        # A share of 0 is no parameter of the gamma distribution.
        strength = np.maximum(means * (1 - self.alike) / self.alike, 1e-12)
        drawn = rng.gamma(strength, size=(len(shares), draws, self.clusters))
        total = drawn.sum(axis=0)
        # Where all underflow the cluster has one outcome, its last one.
        last = (np.arange(len(shares)) == len(shares) - 1)[:, None, None]
        return np.where(total > 0, drawn / np.where(total > 0, total, 1), last)


def right_answers(rng: np.random.Generator, design: Design, draws: int, mean: float) -> Iterator[ClusterSums]:
    """Right or wrong answers."""
    sizes = design.sizes(rng, draws)
    (rates, _) = design.rates(rng, draws, [mean, 1 - mean])
    sums = rng.binomial(sizes.astype(np.int64), rates).astype(np.float64)
    return (ClusterSums(*pair) for pair in zip(sizes, sums, strict=True))


def f1_scores(rng: np.random.Generator, design: Design, draws: int, mean: float) -> Iterator[ClusterSums]:
    """Scores that are 0, 1 or between; ``mean`` is at most 0.8."""
    sizes = design.sizes(rng, draws)
    rates = design.rates(rng, draws, [mean / PARTIAL_MEAN, 1 - mean / PARTIAL_MEAN])[0]
    sums = np.zeros_like(sizes)
    for place in range(LARGEST):
        sums += (rng.random(sizes.shape) < rates) * _partial(rng, sizes.shape) * (place < sizes)
    return (ClusterSums(*pair) for pair in zip(sizes, sums, strict=True))


def changes(
    rng: np.random.Generator, design: Design, draws: int, changed: float, rising: float, *, partial: bool
) -> Iterator[tuple[ClusterSums, ClusterSums]]:
    """Gains and losses of pairs of which a share changes, and of these a share rises; by 1, or as F1 does."""
    sizes = design.sizes(rng, draws)
    up, down, _ = design.rates(rng, draws, [changed * rising, changed * (1 - rising), 1 - changed])
    gains, losses = np.zeros_like(sizes), np.zeros_like(sizes)
    for place in range(LARGEST):
        chance = rng.random(sizes.shape)
        amount = (_partial(rng, sizes.shape) if partial else 1.0) * (place < sizes)
        gains += amount * (chance < up)
        losses += amount * ((chance >= up) & (chance < up + down))
    return (
        (ClusterSums(size, gain), ClusterSums(size, loss))
        for size, gain, loss in zip(sizes, gains, losses, strict=True)
    )


def divergences(rng: np.random.Generator, design: Design, draws: int) -> Iterator[ClusterSums]:
    """Lognormal numbers above 0, skewed as a KL is; their mean is :func:`divergence`."""
    return _numbers(rng, design, draws, lambda z: np.exp(SPREAD * z))


def divergence() -> float:
    """Mean of :func:`divergences`."""
    return float(np.exp(SPREAD**2 / 2))


def log_ratios(rng: np.random.Generator, design: Design, draws: int) -> Iterator[ClusterSums]:
    """Normal numbers around 0."""
    return _numbers(rng, design, draws, lambda z: z)


def _partial(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    whole, least = PARTIAL
    return np.where(rng.random(shape) < whole, 1.0, rng.uniform(least, 1.0, size=shape))


def _numbers(
    rng: np.random.Generator, design: Design, draws: int, scale: Callable[[Floats], Floats]
) -> Iterator[ClusterSums]:
    sizes = design.sizes(rng, draws)
    shared = rng.standard_normal(sizes.shape) * design.alike**0.5
    sums = np.zeros_like(sizes)
    for place in range(LARGEST):
        own = rng.standard_normal(sizes.shape) * (1 - design.alike) ** 0.5
        sums += scale(shared + own) * (place < sizes)
    return (ClusterSums(*pair) for pair in zip(sizes, sums, strict=True))

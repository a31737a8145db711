"""Skill gained against skill lost: points with intervals, curves, and what two curves lose at equal gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from benchmarks.resampling import LEVEL, Floats
from benchmarks.resampling import Resampling as PartsResampling
from lit_align.metrics.statistics import Interval


@dataclass(frozen=True)
class Answers:
    """Right (1) or wrong (0) answers under one setting.

    Attributes:
        new: Questions of the new skill, ``(seeds, n_new)``.
        old: Questions of the old skills, ``(seeds, n_old)``.
    """

    new: Floats
    old: Floats


@dataclass(frozen=True, eq=False)
class Point:
    """One setting: what it gained and lost, over all seeds.

    Attributes:
        strength: Coefficient, weight or learning rate.
        gain: Accuracy on the new skill, after minus before, with its interval.
        lost: Accuracy on the old skills, before minus after, with its interval.
        seed_gains: Gain of each seed.
        seed_losses: Loss of each seed.
        gain_draws: Gain in each resample, ``(resamples,)``.
        lost_draws: Loss in the same resamples.
    """

    strength: float
    gain: Interval
    lost: Interval
    seed_gains: Floats
    seed_losses: Floats
    gain_draws: Floats
    lost_draws: Floats


@dataclass(frozen=True)
class Comparison:
    """What two curves lose at one gain.

    Attributes:
        gain: The gain, in accuracy.
        first: Skill that the first curve loses; None if it does not reach the gain.
        second: Skill that the second curve loses; likewise.
        difference: First minus second, paired by resample; None if either is missing, or does not reach the gain in
            more than ``1 - LEVEL`` of the resamples.
        reached: Share of the resamples in which both curves reach the gain.
    """

    gain: float
    first: float | None
    second: float | None
    difference: Interval | None
    reached: float


class Resampling(PartsResampling):
    """Shared draws of the clusters of new and old questions, and of seeds.

    Args:
        new_clusters: Cluster of each question of the new skill.
        old_clusters: Cluster of each question of the old skills.
        seeds: Number of seeds, > 0.
        resamples: Number of resamples, > 0.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        new_clusters: Sequence[str],
        old_clusters: Sequence[str],
        seeds: int,
        resamples: int = 4_000,
        seed: int = 0,
    ) -> None:
        super().__init__((new_clusters, old_clusters), seeds, resamples, seed)

    def point(self, strength: float, before: Answers, after: Answers) -> Point:
        """Gain and loss of a setting.

        Args:
            strength: Coefficient, weight or learning rate of the setting.
            before: Answers of the untrained policy, one row.
            after: Answers of the setting, a row a seed.

        Raises:
            ValueError: The rows are not one before and one a seed after.
        """
        gain = self.change(0, before.new, after.new)
        lost = self.change(1, after.old, before.old)
        return Point(strength, gain.interval, lost.interval, gain.by_seed, lost.by_seed, gain.draws, lost.draws)


def lost_at(gains: Floats, losses: Floats, gain: float) -> Floats:
    """Least skill lost at a gain of at least ``gain``, along a curve of straight lines between its points.

    Where the curve rises steadily this is its height at ``gain``. Where all of it lies beyond ``gain``, its lowest
    point counts: whoever wants little may take more.

    Args:
        gains: Gains of the points in the curve's order, ``(..., points)``.
        losses: Their losses, same shape.
        gain: The gain asked for.

    Returns:
        Shape ``(...,)``; nan where no point of the curve gains that much.

    Example:
        >>> lost_at(np.array([1.0, 0.5, 0.0]), np.array([0.8, 0.2, 0.0]), 0.75).item()
        0.5
    """
    enough = gains >= gain
    least = np.where(enough, losses, np.inf).min(axis=-1)
    left, right = gains[..., :-1], gains[..., 1:]
    crosses = enough[..., :-1] != enough[..., 1:]
    share = (gain - left) / np.where(crosses, right - left, 1.0)
    height = losses[..., :-1] + share * (losses[..., 1:] - losses[..., :-1])
    between = np.where(crosses, height, np.inf).min(axis=-1, initial=np.inf)
    best = np.minimum(least, between)
    return cast(Floats, np.where(np.isfinite(best), best, np.nan))


def compare(first: Sequence[Point], second: Sequence[Point], gain: float) -> Comparison:
    """What two curves lose at a gain, and the paired interval of the difference.

    Args:
        first: Points of a curve in its order.
        second: Points of another one, of the same resampling.
        gain: The gain asked for.
    """
    heights = [_height(points, gain) for points in (first, second)]
    draws = [_height_draws(points, gain) for points in (first, second)]
    difference = draws[0] - draws[1]
    reached = float(np.isfinite(difference).mean())
    interval = None
    if heights[0] is not None and heights[1] is not None and reached >= LEVEL:
        low, high = np.nanquantile(difference, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        interval = Interval(heights[0] - heights[1], float(low), float(high))
    return Comparison(gain, heights[0], heights[1], interval, reached)


def _height(points: Sequence[Point], gain: float) -> float | None:
    gains, losses = (np.array([getattr(point, name).mean for point in points]) for name in ("gain", "lost"))
    height = float(lost_at(gains, losses, gain))
    return None if np.isnan(height) else height


def _height_draws(points: Sequence[Point], gain: float) -> Floats:
    gains, losses = (
        np.stack([getattr(point, name) for point in points], axis=-1) for name in ("gain_draws", "lost_draws")
    )
    return lost_at(gains, losses, gain)


def verdict(first: str, second: str, comparisons: Sequence[Comparison]) -> str:
    """One sentence on which of two curves loses less at equal gain, from the intervals alone.

    Args:
        first: Name of the first curve, as in a sentence.
        second: Name of the second one.
        comparisons: Their comparisons at several gains.

    Returns:
        ``better`` and ``worse`` are said only of intervals without 0; they are not corrected for their number.
    """
    known = [(one.gain, one.difference) for one in comparisons if one.difference is not None]
    if not known:
        return f"No verdict on {first} and {second}: there is no gain that both reach."
    better = [gain for gain, interval in known if interval.high < 0]
    worse = [gain for gain, interval in known if interval.low > 0]
    level = [gain for gain, interval in known if interval.low <= 0 <= interval.high]
    if not better:
        head = f"At equal gain {first} is no better than {second}"
    elif len(better) == len(known):
        head = f"At equal gain {first} is better than {second}"
    else:
        head = f"Whether {first} is better than {second} depends on the gain"
    parts = [
        f"{what} at a gain of {', '.join(f'{gain:g}' for gain in gains)}"
        for what, gains in (
            ("it loses less skill", better),
            ("it loses more skill", worse),
            ("the interval of the difference holds 0", level),
        )
        if gains
    ]
    missing = [one.gain for one in comparisons if one.difference is None]
    if missing:
        parts.append(f"no comparison at {', '.join(f'{gain:g}' for gain in missing)}, which not both reach")
    return f"{head}: {'; '.join(parts)}."

"""Whether two measurements of the same items differ: tests, and their adjustment for several measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lit_align.metrics.statistics.clusters import Floats, checked, cluster_sums

_CHUNK_CELLS = 1_000_000  # signs held at once: 8 MB, whatever the number of flips

ANY = (-math.inf, math.inf)


@dataclass(frozen=True)
class Decision:
    """The result of a test.

    Attributes:
        p_value: Probability of a difference as far from 0 where there is none, in (0, 1]; 1 where nothing differs.
        method: ``"sign-flip"`` or ``"McNemar"``.
    """

    p_value: float
    method: Literal["sign-flip", "McNemar"]


def paired_test(
    before: ArrayLike, after: ArrayLike, clusters: Sequence[str], *, flips: int = 10_000, seed: int = 0
) -> Decision:
    """Test whether two measurements of the same items differ, by the test that fits the items.

    McNemar's for right or wrong answers (all scores 0 or 1) to items that are each a cluster of its own; the sign-flip
    test of the clusters for all else.

    Args:
        before: First score of each item.
        after: Second score of each item, in the same order.
        clusters: The cluster of each item; all different for independent items.
        flips: Number of random flips, where there are too many to try all.
        seed: Seed of the flips; no global random state is read or written.

    Raises:
        ValueError: No items, lengths that differ, a score that is not finite, or fewer than one flip.

    Example:
        >>> paired_test([0] * 8 + [1], [1] * 8 + [0], [str(i) for i in range(9)])
        Decision(p_value=0.021484375, method='McNemar')
        >>> paired_test([0.2] * 8 + [1], [0.9] * 8 + [0], ["a", "a", *map(str, range(7))]).method
        'sign-flip'
    """
    first, second = checked(before, ANY), checked(after, ANY)
    if len(first) != len(second):
        raise ValueError(f"before and after must have one length, got {len(first)} and {len(second)}")
    if flips < 1:
        raise ValueError(f"flips must be at least 1, got {flips}")
    (changes,) = cluster_sums([second - first], clusters)
    if changes.count == len(first) and bool(np.isin([first, second], (0.0, 1.0)).all()):
        return Decision(mcnemar(int((second > first).sum()), int((second < first).sum())), "McNemar")
    return Decision(sign_flip(changes.sums, flips=flips, seed=seed), "sign-flip")


def mcnemar(gains: int, losses: int) -> float:
    r"""McNemar's exact test of independent pairs, mid-p.

    Of :math:`d` pairs that changed, the number that changed one way is binomial with 1/2 where there is no difference.
    Twice the smaller tail with half the probability of the count itself: the full tail is conservative, the mid-p one
    keeps its level (Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13).

    Args:
        gains: Pairs that changed from wrong to right.
        losses: Pairs that changed from right to wrong.

    Returns:
        The p-value; 1 where both are equal, so also where no pair changed.

    Example:
        >>> mcnemar(5, 0), mcnemar(3, 3)
        (0.03125, 1.0)
    """
    from scipy.special import bdtr

    changed, smaller = gains + losses, min(gains, losses)
    if gains == losses:
        return 1.0
    # bdtr is the distribution function of the binomial; its value below 0 is 0, which scipy calls nan.
    below = float(bdtr(smaller - 1, changed, 0.5)) if smaller else 0.0
    # Of some thousand pairs that all changed one way the tail is less than the smallest number.
    return max(below + float(bdtr(smaller, changed, 0.5)), math.ulp(0.0))


def sign_flip(sums: Floats, *, flips: int = 10_000, seed: int = 0) -> float:
    r"""Sign-flip permutation test of differences that are summed by cluster, mid-p.

    Where before and after may be swapped without a difference, each cluster's sum :math:`D_k` is as likely as
    :math:`-D_k`, whatever the correlation within it (Fisher 1935; Good 2005, Permutation, Parametric and Bootstrap
    Tests, chapter 3). The p-value is the share of the sign patterns with
    :math:`|\sum_k \pm D_k| \ge |\sum_k D_k|`, where equality counts half: with few changes ties are many, and their
    full count is conservative. All patterns are tried where these are no more than ``flips``; else random ones with the
    observed one among them, so the p-value is never 0.

    Args:
        sums: Sum of the differences of each cluster, ``(clusters,)``.
        flips: Number of random patterns, at least 1.
        seed: Seed of the patterns.

    Returns:
        The p-value; 1 where the sums add up to 0.

    Example:
        >>> sign_flip(np.array([1.0, 2.0, 0.0, 1.5, 2.5, 3.0]))  # 2 of 32 patterns, each equal to the observed one
        0.03125
    """
    changed = sums[sums != 0]
    tolerance = 1e-9 * float(np.abs(changed).sum())
    observed = abs(float(changed.sum()))
    if observed <= tolerance:
        return 1.0
    count = len(changed)
    everything = count < 60 and 2**count <= flips
    total = 2**count if everything else flips
    rng = np.random.default_rng(seed)
    above = equal = 0
    chunk = max(1, _CHUNK_CELLS // count)
    for start in range(0, total, chunk):
        rows = min(chunk, total - start)
        if everything:
            bits = np.arange(start, start + rows)[:, None] >> np.arange(count) & 1
        else:
            bits = rng.integers(2, size=(rows, count), dtype=np.int8)
        # Flipping where the bit is set takes twice the sum of these away.
        flipped = np.abs(changed.sum() - 2 * (bits.astype(np.float64) @ changed))
        above += int((flipped > observed + tolerance).sum())
        equal += int((np.abs(flipped - observed) <= tolerance).sum())
    if everything:
        return (above + equal / 2) / total
    return (above + equal / 2 + 1) / (total + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    r"""P-values adjusted for their number, after Holm (1979, Scandinavian Journal of Statistics 6).

    With the :math:`m` p-values in rising order, :math:`\tilde p_{(i)} = \max_{j \le i} \min((m - j + 1)\, p_{(j)}, 1)`.
    Those at most 0.05 are wrong about one or more of all measures in at most 5 % of cases, however they depend.

    Args:
        p_values: In any order.

    Returns:
        The adjusted ones, in the same order.

    Raises:
        ValueError: One that is none.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"a p-value must lie between 0 and 1, got {p}")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min((len(p_values) - rank) * p_values[index], 1.0))
        adjusted[index] = largest
    return adjusted

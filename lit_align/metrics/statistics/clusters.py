"""Scores summed by cluster: what all intervals and tests are computed from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bounds = tuple[float, float]

FEW_CLUSTERS = 10
"""With fewer clusters an interval is called too few: its coverage has not been shown (see the package's table)."""


@dataclass(frozen=True, eq=False)
class ClusterSums:
    r"""Sizes and sums of :math:`K` clusters, and the mean of the items in them.

    The mean :math:`\bar s = \sum_k S_k / \sum_k m_k` is a ratio of two sums over clusters. Its standard error is that
    of its linearisation (Liang & Zeger 1986, Biometrika 73; Miller 2024, arXiv:2411.00640, equation 4), with the
    residuals :math:`u_k = S_k - m_k \bar s` and :math:`n = \sum_k m_k`:

    .. math:: \mathrm{SE}^2 = \frac{K}{K - 1} \frac{\sum_k u_k^2}{n^2}

    Attributes:
        sizes: Items of each cluster, ``(clusters,)``, at least 1.
        sums: Sum of the scores of each cluster, ``(clusters,)``.

    Example:
        >>> one = ClusterSums(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
        >>> one.mean, one.error
        (0.5, 0.25)
    """

    sizes: Floats
    sums: Floats

    @property
    def count(self) -> int:
        """Number of clusters."""
        return len(self.sizes)

    @property
    def mean(self) -> float:
        """Mean over the items."""
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def residuals(self) -> Floats:
        """What each cluster adds to the error of the sum, ``(clusters,)``."""
        return self.sums - self.sizes * self.mean

    @property
    def error(self) -> float:
        """Standard error of the mean; nan of a single cluster."""
        if self.count == 1:
            return math.nan
        squares = float((self.residuals**2).sum())
        return math.sqrt(self.count / (self.count - 1) * squares) / float(self.sizes.sum())

    @property
    def concentration(self) -> float:
        r"""How far the error rests on few clusters: :math:`\sum u_k^4 / (\sum u_k^2)^2`, from 1 / clusters to 1."""
        squares = self.residuals**2
        total = float(squares.sum())
        return float((squares**2).sum()) / total**2 if total else 1.0

    @property
    def padded_error(self) -> float:
        r"""Standard error with two clusters added that deviate by :math:`\pm\sqrt{\sum u_k^4 / \sum u_k^2}`.

        Where few clusters deviate, others like them were missed. For right-or-wrong pairs the two are a pair of either
        kind of change, as Agresti & Min (2005, Statistics in Medicine 24) add them; with other scores they follow
        the scale of those that were seen.
        """
        return self.error * math.sqrt(1 + 2 * self.concentration)

    def agree(self, span: float) -> bool:
        """Whether all clusters have the same mean, but for rounding.

        Args:
            span: Largest less smallest possible score; infinite where there is none.
        """
        means = self.sums / self.sizes
        # Without bounds the scores' own size says what rounding may make of equal means.
        size = span if math.isfinite(span) else float(np.abs(means).max())
        return float(np.ptp(means)) <= 1e-12 * size


def cluster_sums(arms: Sequence[Floats], clusters: Sequence[str]) -> list[ClusterSums]:
    """Sum several scores of the same items by cluster; the same to the bit for any order of the items.

    Args:
        arms: The scores, each ``(items,)``.
        clusters: The cluster of each item.

    Returns:
        One an arm, their clusters in one order, which depends on the scores alone.

    Raises:
        ValueError: Lengths that differ.

    Example:
        >>> cluster_sums([np.array([1.0, 2.0, 4.0])], ["a", "b", "a"])[0].sums.tolist()
        [2.0, 5.0]
    """
    if {len(arm) for arm in arms} != {len(clusters)}:
        raise ValueError(f"scores and clusters must have one length, got {[len(a) for a in arms]} and {len(clusters)}")
    labels = {label: index for index, label in enumerate(dict.fromkeys(clusters))}
    index = np.array([labels[label] for label in clusters])
    # Floating-point sums depend on the order of the summands. Both orders are put into one by the scores alone.
    order = np.lexsort((*arms, index))
    columns = [np.bincount(index), *(np.bincount(index[order], weights=arm[order]) for arm in arms)]
    table = np.stack([column.astype(np.float64) for column in columns])
    table = table[:, np.lexsort(table)]
    return [ClusterSums(table[0], sums) for sums in table[1:]]


def checked(values: ArrayLike, bounds: Bounds) -> Floats:
    """Scores as a vector.

    Args:
        values: One score an item.
        bounds: Smallest and largest possible score; infinite where there is no bound.

    Raises:
        ValueError: No items; bounds out of order; a score that is not finite or outside of the bounds.

    Example:
        >>> checked([0, 2], (0, 1))
        Traceback (most recent call last):
        ValueError: score 2.0 of item 1 is not within the bounds (0, 1)
    """
    if not bounds[0] < bounds[1]:
        raise ValueError(f"bounds must be (smallest, largest) possible score, got {bounds}")
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"scores must be a non-empty vector, got shape {scores.shape}")
    # Written so that NaN is outside; infinity is no score, whatever the bounds.
    outside = ~((scores >= bounds[0]) & (scores <= bounds[1]) & np.isfinite(scores))
    if outside.any():
        index = int(np.argmax(outside))
        raise ValueError(f"score {scores[index]} of item {index} is not within the bounds {bounds}")
    return scores

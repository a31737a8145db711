"""How well one number orders items whose true order is known in part."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lit_align.metrics.statistics import Interval
from lit_align.metrics.statistics.clusters import FEW_CLUSTERS

_Z = 1.959963984540054  # of a 95 % interval
_CHUNK = 512  # items that are compared with all at once


def concordance(values: ArrayLike, truth: ArrayLike, clusters: Sequence[str]) -> Interval:
    r"""Share of the pairs of items with different truth whose values are in the same order, equal values counting half.

    With two values of truth this is the area under the ROC curve (AUC; Hanley & McNeil 1982), in general Harrell's C
    (1982): 1 for a perfect order, 0.5 for none. The interval is that of the infinitesimal jackknife over clusters: with
    :math:`c_i` and :math:`m_i` the concordant and the comparable pairs of item :math:`i` and :math:`D` the number of
    comparable ones, the variance is
    :math:`\sum_k (\sum_{i \in k} (c_i - C m_i) / D)^2`, taken on the logit scale, which keeps it within 0 and 1. Where
    that is 0, as where all pairs are in order or none is, or with a single cluster, it is Clopper-Pearson's bound with
    the clusters as trials: those that were not seen may be all in order or none.

    Args:
        values: One an item, finite.
        truth: What is known of each; pairs with equal truth are not compared.
        clusters: The cluster of each item.

    Raises:
        ValueError: Lengths differ, or no two items differ in truth.

    Example:
        >>> concordance([1.0, 2.0, 3.0, 2.5], [0, 0, 1, 1], list("abcd")).mean
        1.0
        >>> round(concordance([1.0, 3.0, 2.0, 2.5], [0, 0, 1, 1], list("abcd")).mean, 2)
        0.5
    """
    v, t = np.asarray(values, np.float64), np.asarray(truth, np.float64)
    if v.ndim != 1 or v.shape != t.shape or len(clusters) != len(v):
        raise ValueError(f"concordance needs value, truth and cluster of each item, got {v.shape}, {t.shape}")
    concordant, comparable = np.zeros(len(v)), np.zeros(len(v))
    for start in range(0, len(v), _CHUNK):
        rows = slice(start, start + _CHUNK)
        order = np.sign(t[rows, None] - t)
        agreement = np.sign(v[rows, None] - v) * order
        comparable[rows] = np.abs(order).sum(1)
        concordant[rows] = ((agreement + 1) / 2 * np.abs(order)).sum(1)
    pairs = comparable.sum() / 2
    if not pairs:
        raise ValueError("concordance needs items that differ in truth")
    mean = float(concordant.sum() / 2 / pairs)
    names, of_item = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    few = len(names) < FEW_CLUSTERS
    error = math.sqrt(float((np.bincount(of_item, (concordant - mean * comparable) / pairs) ** 2).sum()))
    if mean in (0.0, 1.0) or error < 1e-9:
        unseen = 1 - 0.025 ** (1 / len(names))
        return Interval(mean, mean - unseen * mean, mean + unseen * (1 - mean), few)
    half = _Z * error / (mean * (1 - mean))
    logit = math.log(mean / (1 - mean))
    return Interval(mean, 1 / (1 + math.exp(half - logit)), 1 / (1 + math.exp(-half - logit)), few)

"""How often one answer beats another to the same prompt, also with the advantage of length taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lit_align.metrics.statistics import Interval, mean_interval

_RIDGE = 0.1  # of the length term: its prior has a standard deviation of about 3 logits
_NEWTON_STEPS = 25
_CHUNK_CELLS = 2_000_000  # resamples times items that are held at once: 16 MB

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WinRate:
    """How often the answer after beats the one before.

    Attributes:
        n: Number of prompts.
        wins: Prompts whose answer after scores higher.
        ties: Prompts whose answers score the same; each counts as half a win.
        rate: (wins + ties / 2) / n with its interval.
    """

    n: int
    wins: int
    ties: int
    rate: Interval


def win_rate(before: ArrayLike, after: ArrayLike, clusters: Sequence[str]) -> WinRate:
    """Share of prompts whose score is higher after than before, ties counting as half.

    It needs scores that can be compared within a prompt alone, as a reward model's are.

    Args:
        before: Score of the first answer to each prompt, finite.
        after: Score of the second one, in the same order.
        clusters: The cluster of each prompt; all different for independent prompts.

    Raises:
        ValueError: No prompts, lengths that differ, or a score that is not finite.

    Example:
        >>> found = win_rate([1, 1, 1, 1], [2, 2, 1, 0], list("abcd"))
        >>> found.wins, found.ties, found.rate.mean
        (2, 1, 0.625)
    """
    outcomes = _outcomes(before, after)
    rate = mean_interval(outcomes, clusters)
    return WinRate(len(outcomes), int((outcomes == 1).sum()), int((outcomes == 0.5).sum()), rate)


def length_controlled_win_rate(
    before: ArrayLike,
    after: ArrayLike,
    longer_by: ArrayLike,
    clusters: Sequence[str],
    *,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    r"""The win rate that would be, were both answers of one length (Dubois et al. 2024, arXiv:2404.04475).

    Judges prefer longer answers. A logistic regression explains each outcome :math:`y` (1, 1/2 or 0) by the length,

    .. math:: P(y = 1) = \sigma\big(\theta + \varphi \tanh(\Delta / \mathrm{std}(\Delta))\big),

    with :math:`\Delta` how much longer the answer after is, and the result is :math:`\sigma(\theta)`, its prediction at
    :math:`\Delta = 0`. Of the paper's three terms the one for the difficulty of a prompt is left out, since it is
    learned from other models' answers.

    So that the estimate exists when length explains all outcomes or one side always wins, :math:`\varphi` has a ridge
    of 0.1, and one tie at :math:`\Delta = 0` is added (Clogg et al. 1991, the logistic form of adding half a success
    and half a failure), which moves a rate by at most 1 / (2 n + 2). Where all answers differ by the same length,
    length and quality cannot be told apart, and the ridge alone decides.

    Args:
        before: Score of the first answer to each prompt, finite.
        after: Score of the second one, in the same order.
        longer_by: Length of the answer after less that of the one before, in any one unit (characters, tokens).
        clusters: The cluster of each prompt.
        resamples: Of the percentile bootstrap over clusters, each with its own regression; the unit of length stays.
        seed: Of the bootstrap.

    Returns:
        The rate with its 95 % interval, which is as wide as that of the plain rate where all resamples give one rate:
        all outcomes are the same, there is a single cluster, or all clusters are alike.

    Raises:
        ValueError: No prompts, lengths that differ, or a number that is not finite.

    Example:
        The longer answer always wins, whichever it is: nothing is left of a win rate of 3/4.

        >>> longer_by = [10, 12, 9, 11, 10, 12, -10, -9]
        >>> found = length_controlled_win_rate([0] * 8, np.sign(longer_by), longer_by, list("abcdefgh"), resamples=200)
        >>> bool(found.low < 0.5 < found.high)
        True
    """
    outcomes = _outcomes(before, after)
    differences = np.asarray(longer_by, np.float64)
    if differences.shape != outcomes.shape or len(clusters) != len(outcomes):
        raise ValueError(
            f"{len(outcomes)} prompts, {differences.size} differences of length, {len(clusters)} clusters: one each"
        )
    if not np.isfinite(differences).all():
        raise ValueError(f"a difference of length is not finite: item {int(np.argmin(np.isfinite(differences)))}")
    # Sorted, so that neither the order of prompts nor the names of clusters matter.
    names, of_item = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    spread = float(differences.std())
    terms = np.tanh(differences / spread) if spread > 0 else np.sign(differences)
    mean = float(_fitted(np.ones((1, len(outcomes))), terms, outcomes)[0])
    plain = mean_interval(outcomes, clusters)
    same = Interval(mean, min(plain.low, mean), max(plain.high, mean), plain.too_few)
    if (outcomes == outcomes[0]).all():
        return same
    random = np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, chunk := max(1, _CHUNK_CELLS // len(outcomes))):
        rows = min(chunk, resamples - start)
        counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=rows)
        found.append(_fitted(counts[:, of_item].astype(np.float64), terms, outcomes))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return Interval(mean, float(low), float(high), plain.too_few) if high - low > 1e-9 else same


def _fitted(weights: Floats, terms: Floats, outcomes: Floats) -> Floats:
    """Prediction at no difference of length, for each row of weights ``(resamples, items)``."""
    theta, phi = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-(theta[:, None] + phi[:, None] * terms)))
        left = weights * (outcomes - p)
        curved = weights * p * (1 - p)
        tie = 1 / (1 + np.exp(-theta))
        g_theta, g_phi = left.sum(1) + 0.5 - tie, left @ terms - _RIDGE * phi
        h_11, h_12 = curved.sum(1) + tie * (1 - tie), curved @ terms
        h_22 = curved @ terms**2 + _RIDGE
        determinant = h_11 * h_22 - h_12**2
        step_theta = (h_22 * g_theta - h_12 * g_phi) / determinant
        step_phi = (h_11 * g_phi - h_12 * g_theta) / determinant
        # A step of Newton's may jump far where nearly all outcomes agree.
        shrink = 1 / np.maximum(1, np.maximum(np.abs(step_theta), np.abs(step_phi)) / 2)
        theta, phi = theta + shrink * step_theta, phi + shrink * step_phi
        if max(np.abs(step_theta).max(), np.abs(step_phi).max()) < 1e-10:
            break
    return 1 / (1 + np.exp(-theta))


def _outcomes(before: ArrayLike, after: ArrayLike) -> Floats:
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise ValueError(f"a win rate needs two scores a prompt, got shapes {first.shape} and {second.shape}")
    if not (np.isfinite(first) & np.isfinite(second)).all():
        place = int(np.argmin(np.isfinite(first) & np.isfinite(second)))
        raise ValueError(f"item {place}: scores must be finite, got {first[place]} and {second[place]}")
    return (np.sign(second - first) + 1) / 2

"""The calibration of a reward model: two numbers that place its rewards on the scale of 1 to 10, fitted and on file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FORMAT = 1
_STEPS = 200  # Newton's method needs some ten


@dataclass(frozen=True)
class Calibration:
    """Where a reward model's rewards lie, and for which model that holds.

    Attributes:
        mu: The reward in the middle, which scores 5.5.
        s: Scale, in units of the reward, > 0.
        reward_model: The model's name, for messages.
        fingerprint: Of the model's weights and chat template.

    Example:
        >>> Calibration(mu=2.0, s=1.0, reward_model="m", fingerprint="0").score(2.0)
        5.5
    """

    mu: float
    s: float
    reward_model: str
    fingerprint: str

    def score(self, reward: float) -> float:
        """``1 + 9 · sigmoid((reward − mu) / s)``."""
        return 1.0 + 9.0 * _sigmoid((reward - self.mu) / self.s)


def fit(rewards: ArrayLike, shares: ArrayLike) -> tuple[float, float]:
    r"""Fit mu and s, so that :math:`\sigma((r - \mu) / s)` gives the share of the scale that an answer reaches.

    Logistic regression of a share :math:`y \in [0, 1]` on the reward: the maximum of
    :math:`\sum_i y_i \log p_i + (1 - y_i) \log (1 - p_i)`. For good (1) and bad (0) answers it is Platt scaling (Platt
    1999), so that mu is the reward at which either is as likely and the score is 1 + 9 P(good); for ratings it is the
    fractional logit (Papke & Wooldridge 1996, J. Appl. Econometrics 11), which needs only that the mean be right, not
    how ratings scatter. The maximum is unique, and there the mean of the mapped scores is the mean of the known ones.
    As Platt does, known shares are drawn in a little, here to :math:`(n y + 1) / (n + 2)` (Laplace's rule): else no
    scale would fit best where rewards separate good from bad without overlap.

    Args:
        rewards: One an answer.
        shares: What is known of each: 0 for the lowest score, 1 for the highest.

    Returns:
        mu and s, s > 0.

    Raises:
        ValueError: No two rewards or no two shares differ, or better answers do not get larger rewards.

    Example:
        >>> mu, s = fit([0.0, 2.0, 0.0, 2.0], [0.25, 0.75, 0.25, 0.75])
        >>> round(mu, 6), round(1 / s, 6)  # drawn in to 1/3 and 2/3, whose logits are -log 2 and log 2
        (1.0, 0.693147)
    """
    r, y = np.asarray(rewards, np.float64), np.asarray(shares, np.float64)
    if r.ndim != 1 or r.shape != y.shape or len({*r.tolist()}) < 2 or len({*y.tolist()}) < 2:
        raise ValueError("a calibration needs rewards and known qualities that differ, and one of each an answer")
    y = (len(y) * y + 1) / (len(y) + 2)
    centre, spread = float(r.mean()), float(r.std())
    design = np.stack([np.ones_like(r), (r - centre) / spread], axis=1)
    weights = np.zeros(2)
    loss = _loss(design, y, weights)
    for _ in range(_STEPS):
        p = _probabilities(design @ weights)
        gradient = design.T @ (y - p)
        curvature = (design * (p * (1 - p))[:, None]).T @ design
        step = np.linalg.solve(curvature, gradient)
        while _loss(design, y, weights + step) > loss and np.abs(step).max() > 1e-12:  # Newton may jump too far
            step = step / 2
        weights = weights + step
        loss = _loss(design, y, weights)
        if np.abs(step).max() < 1e-10:
            break
    intercept, slope = float(weights[0]), float(weights[1])
    if not slope > 0:
        raise ValueError(
            f"better answers do not get larger rewards (slope {slope:.3g} on {len(r)} answers): this reward model does "
            "not tell them apart"
        )
    return centre - spread * intercept / slope, spread / slope


def read_calibration(path: str) -> Calibration:
    """Read the file that ``lit-align calibrate`` wrote.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no calibration; the message names the key, the rule and the value.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such calibration; `lit-align calibrate` writes one") from error
    except ValueError as error:
        raise ValueError(
            f"{path}: is no JSON in UTF-8 ({error}); `lit-align calibrate` writes a calibration"
        ) from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise ValueError(f"{path}: is no calibration of format {FORMAT}; `lit-align calibrate` writes one")
    model = held.get("reward_model")
    model = model if isinstance(model, dict) else {}
    found = Calibration(
        _number(path, held, "mu"), _number(path, held, "s"), str(model.get("path")), str(model.get("fingerprint"))
    )
    if found.s <= 0:
        raise ValueError(f"{path}: s: must be > 0, got {found.s}")
    return found


def _number(path: str, held: dict[str, Any], key: str) -> float:
    value = held.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path}: {key}: must be a finite number, got {value!r}")
    return float(value)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -logits))


def _loss(design: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    logits = design @ weights
    return float((np.logaddexp(0.0, logits) - y * logits).sum())

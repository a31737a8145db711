"""Ranges of hyper-parameters; every message names field, rule and value."""

from __future__ import annotations

import math


def require_positive(loss: object, *names: str) -> None:
    """Refuse a field that is not finite and above 0.

    Args:
        loss: A dataclass.
        names: Its fields to look at.

    Raises:
        ValueError: One of them breaks the rule.
    """
    for name in names:
        value = getattr(loss, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be finite and > 0, got {value!r}")


def require_nonnegative(loss: object, *names: str) -> None:
    """Refuse a field that is not finite and at least 0; arguments as of :func:`require_positive`."""
    for name in names:
        value = getattr(loss, name)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and >= 0, got {value!r}")


def require_smoothing(value: float) -> None:
    """Refuse a share of swapped labels outside ``[0, 0.5)``: at 0.5 a label says nothing.

    Raises:
        ValueError: It is outside.
    """
    if not 0 <= value < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), got {value!r}")

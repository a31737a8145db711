"""Numbers that describe a next-token distribution at one position, for logging; none has a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor

Statistic = Literal["entropy", "rank", "log_sum_squares"]


def entropy(log_p: Tensor, p: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001 - one signature for all statistics
    r"""Entropy :math:`-\sum_v \pi_v \log \pi_v`, nats, in ``[0, log V]``.

    Args:
        log_p: Log-probabilities, ``(n, V)``.
        p: Probabilities, ``(n, V)``.
        targets: Token ids, ``(n,)``; not used.

    Returns:
        Shape ``(n,)``, in ``log_p``'s dtype.
    """
    return _dot(p, log_p).neg_()


def rank(log_p: Tensor, p: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    """How many tokens are more likely than the target: 0 means that the target is the arg max (or tied with it).

    Args:
        log_p: Log-probabilities, ``(n, V)``.
        p: Probabilities, ``(n, V)``; not used.
        targets: Token ids, ``(n,)``.

    Returns:
        Shape ``(n,)``, int64, in ``[0, V)``.
    """
    # Counted in int32: the default of a sum of truth values, int64, takes twice as long on a CPU.
    return (log_p > log_p.gather(1, targets.unsqueeze(1))).sum(-1, dtype=torch.int32).long()


def log_sum_squares(log_p: Tensor, p: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    r"""Log of the probability that two draws agree, :math:`\log \sum_v \pi_v^2`, nats, in ``[-log V, 0]``.

    The per-token weight of WPO (Zhou et al. 2024, arXiv 2406.11827) is the log-prob of the target minus this number.

    Args:
        log_p: Log-probabilities, ``(n, V)``; not used.
        p: Probabilities, ``(n, V)``; the sum of their squares is at least 1 / V, so it cannot underflow.
        targets: Token ids, ``(n,)``; not used.

    Returns:
        Shape ``(n,)``, in ``log_p``'s dtype.
    """
    return _dot(p, p).log_()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products row by row."""
    return cast(Tensor, torch.linalg.vecdot(a, b))


STATISTICS: dict[Statistic, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "entropy": entropy,
    "rank": rank,
    "log_sum_squares": log_sum_squares,
}
"""Every statistic by the name under which it is asked for."""

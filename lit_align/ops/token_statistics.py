"""Numbers that describe a next-token distribution at one position, for logging; none has a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

Statistic = Literal["entropy", "rank", "log_sum_squares"]


def entropy(log_p: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001 - one signature for all statistics
    r"""Entropy :math:`-\sum_v \pi_v \log \pi_v`, nats, in ``[0, log V]``.

    Args:
        log_p: Log-probabilities, ``(n, V)``.
        targets: Token ids, ``(n,)``; not used.

    Returns:
        Shape ``(n,)``, in ``log_p``'s dtype.
    """
    return log_p.exp().mul_(log_p).sum(-1).neg_()


def rank(log_p: Tensor, targets: Tensor) -> Tensor:
    """How many tokens are more likely than the target: 0 means that the target is the arg max (or tied with it).

    Args:
        log_p: Log-probabilities, ``(n, V)``.
        targets: Token ids, ``(n,)``.

    Returns:
        Shape ``(n,)``, int64, in ``[0, V)``.
    """
    return (log_p > log_p.gather(1, targets.unsqueeze(1))).sum(-1)


def log_sum_squares(log_p: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    r"""Log of the probability that two draws agree, :math:`\log \sum_v \pi_v^2`, nats, in ``[-log V, 0]``.

    The per-token weight of WPO (Zhou et al. 2024, arXiv 2406.11827) is the log-prob of the target minus this number.

    Args:
        log_p: Log-probabilities, ``(n, V)``.
        targets: Token ids, ``(n,)``; not used.

    Returns:
        Shape ``(n,)``, in ``log_p``'s dtype.
    """
    return log_p.mul(2.0).logsumexp(-1)


STATISTICS: dict[Statistic, Callable[[Tensor, Tensor], Tensor]] = {
    "entropy": entropy,
    "rank": rank,
    "log_sum_squares": log_sum_squares,
}
"""Every statistic by the name under which it is asked for."""

"""What a few rows of logits say of their targets, and the gradient of each number with respect to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lit_align.ops.token_statistics import STATISTICS, Statistic


class LogitDivergence(Protocol):
    """What :func:`~lit_align.ops.frozen_head.score_tokens` asks of a divergence between two next-token distributions.

    :class:`lit_align.losses.anchor.Divergence` is the family that satisfies it. Inputs belong to the caller and are
    read only; ``log_p`` (policy) and ``log_q`` (reference) are log-softmaxed, shape ``(n, V)``, ``targets`` ``(n,)``.
    """

    def __call__(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> Tensor:
        """The value at each position, nats, shape ``(n,)``."""

    def value_and_grad(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The value ``(n,)`` and its gradient with respect to the policy's *logits*, ``(n, V)``."""


@dataclass(frozen=True, eq=False)
class BlockScores:
    """The rows of one block.

    Attributes:
        values: Log-probs of the targets, then one tensor for each divergence, ``(n,)`` each.
        statistics: One tensor for each statistic, ``(n,)``.
        slopes: The gradient of each of ``values`` with respect to the policy's logits, ``(n, V)`` each; empty where
            none is needed.
    """

    values: list[Tensor]
    statistics: list[Tensor]
    slopes: list[Tensor]


def score_block(
    logits: Tensor,
    reference_logits: Tensor | None,
    targets: Tensor,
    divergences: Sequence[LogitDivergence],
    statistics: Sequence[Statistic],
    need_grad: bool,
) -> BlockScores:
    """Score rows of logits; some temporaries of their size are made.

    Args:
        logits: The policy's, ``(n, V)``.
        reference_logits: The reference's, ``(n, V)``; None without divergences.
        targets: Token ids, ``(n,)``.
        divergences: Between policy and reference.
        statistics: Of the policy.
        need_grad: Whether slopes are asked for.

    Raises:
        ValueError: A divergence gives something of a wrong shape.
    """
    target = targets.unsqueeze(1)
    log_p = logits.log_softmax(-1)
    p = log_p.exp() if statistics or need_grad else log_p
    scores = BlockScores([log_p.gather(1, target).squeeze(1)], [], [])
    scores.statistics.extend(STATISTICS[name](log_p, p, targets) for name in statistics)
    if need_grad:
        # d logp / dz = onehot - p; the target's entry as the mass of the others keeps precision at p near 1.
        slope = p.scatter_(1, target, 0.0)
        others = slope.sum(-1, keepdim=True)
        scores.slopes.append(slope.neg_().scatter_(1, target, others))
    if reference_logits is not None:
        log_q = reference_logits.log_softmax(-1)
        for divergence in divergences:
            if not need_grad:
                scores.values.append(divergence(log_p, log_q, targets))
                continue
            value, slope = divergence.value_and_grad(log_p, log_q, targets)
            if value.shape != targets.shape or slope.shape != log_p.shape:
                raise ValueError(
                    f"{divergence} must give a value of shape {tuple(targets.shape)} and a gradient of shape "
                    f"{tuple(log_p.shape)}, got {tuple(value.shape)} and {tuple(slope.shape)}"
                )
            scores.values.append(value)
            scores.slopes.append(slope)
    return scores

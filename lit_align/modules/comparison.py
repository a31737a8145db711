"""A forest's targets scored in one pass over the head, some of them beside the reference over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align.forest import TokenForest
from lit_align.models.policy import Policy
from lit_align.models.reference import Reference
from lit_align.ops.frozen_head import score_tokens
from lit_align.ops.score_block import LogitDivergence
from lit_align.ops.token_statistics import Statistic


@dataclass(frozen=True, eq=False)
class Comparison:
    """The targets at which policy and reference are compared, and what the reference has there.

    Attributes:
        divergence: Between policy and reference.
        targets: Which of the forest's targets, ``(M,)``, bool.
        pairs: Their distinct (row, target token) pairs, ``(K,)``; only these are compared.
        reference_hidden: The reference's hidden states at them, ``(K, H)``.
    """

    divergence: LogitDivergence
    targets: Tensor
    pairs: Tensor
    reference_hidden: Tensor

    @classmethod
    def at(cls, forest: TokenForest, targets: Tensor, divergence: LogitDivergence, hidden: Tensor) -> Comparison:
        """Compare some targets of a forest.

        Args:
            forest: The forest.
            targets: Which of its targets, ``(M,)``, bool.
            divergence: Between policy and reference.
            hidden: From :func:`reference_hidden`.
        """
        compared = torch.zeros(len(forest.pair_rows), dtype=torch.bool, device=targets.device)
        compared[forest.target_pairs[targets]] = True
        pairs = compared.nonzero().flatten()
        return cls(divergence, targets, pairs, hidden[pairs])


@dataclass(frozen=True, eq=False)
class ForestScores:
    """What the head says of a forest.

    Attributes:
        logps: Log-prob of each distinct (row, target token) pair, nats, ``(N,)``; differentiable.
        statistics: Further numbers of each pair by name, ``(N,)``, without gradient.
        divergence: The divergence added up over the compared targets, nats, float64, a scalar; differentiable. 0
            where nothing is compared.
    """

    logps: Tensor
    statistics: Mapping[Statistic, Tensor]
    divergence: Tensor


def reference_hidden(policy: Policy, forest: TokenForest, reference: Reference) -> Tensor:
    """The reference's hidden states at the (row, target token) pairs of a forest, ``(P, H)``, without gradient."""
    with reference.active(policy):
        return policy.hidden(forest, forest.pair_rows)


def score_forest(
    policy: Policy, forest: TokenForest, statistics: Sequence[Statistic], comparison: Comparison | None
) -> ForestScores:
    """Score all targets of a forest; each distinct (row, target token) pair of the policy goes through the head once.

    Args:
        policy: The policy, in whatever mode it is.
        forest: On the policy's device.
        statistics: Further numbers of the policy's distributions.
        comparison: Of some targets with the reference; None runs nothing for it.
    """
    hidden, tokens = policy.hidden(forest, forest.pair_rows), forest.pair_tokens
    if comparison is None:
        scores = score_tokens(hidden, policy.head, tokens, statistics=statistics)
        return ForestScores(scores.logps, scores.statistics, hidden.new_zeros((), dtype=torch.float64))
    near = comparison.pairs
    is_far = torch.ones(len(tokens), dtype=torch.bool, device=near.device)
    is_far[near] = False
    far = is_far.nonzero().flatten()
    compared = score_tokens(
        hidden[near], policy.head, tokens[near], reference_hidden=comparison.reference_hidden,
        divergences=[comparison.divergence], statistics=statistics,
    )  # fmt: skip
    others = score_tokens(hidden[far], policy.head, tokens[far], statistics=statistics)
    place = torch.empty_like(tokens)  # of each pair among those that are compared, then the others
    place[torch.cat([near, far])] = torch.arange(len(tokens), device=near.device)
    at = place[forest.target_pairs[comparison.targets]]
    return ForestScores(
        torch.cat([compared.logps, others.logps])[place],
        {name: torch.cat([compared.statistics[name], others.statistics[name]])[place] for name in statistics},
        compared.divergences[0].double()[at].sum(),
    )

"""A forest of preference pairs to the log-probs that losses take, and to sums for the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align.forest import TokenForest
from lit_align.losses.preference.contract import AnswerScores, PairScores
from lit_align.models.policy import Policy
from lit_align.models.reference import Reference
from lit_align.ops.frozen_head import score_tokens
from lit_align.ops.score_block import LogitDivergence
from lit_align.ops.token_statistics import Statistic


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """The pairs of one forest.

    Attributes:
        scores: What a loss takes.
        sources: For each pair the name of its source.
        chosen_divergences: Each divergence asked for, added up over the chosen answers' tokens, nats, ``(P,)``.
    """

    scores: PairScores
    sources: tuple[str, ...]
    chosen_divergences: tuple[Tensor, ...] = ()


def count_pairs(forest: TokenForest) -> int:
    """Pairs of a forest: its examples come in twos, the chosen and the rejected answer; a rank's idle forest has one.

    Args:
        forest: Built from the trees of :class:`~lit_align.data.preference.PreferenceDataModule`.
    """
    return len(forest.examples) // 2


def reference_hidden(policy: Policy, forest: TokenForest, reference: Reference) -> Tensor:
    """The reference's hidden states at the distinct (row, target) pairs of a forest, ``(N, H)``."""
    with reference.active(policy):
        return policy.hidden(forest)[forest.pair_rows]


def score_pairs(
    policy: Policy,
    forest: TokenForest,
    reference: Tensor | None,
    statistics: Sequence[Statistic] = (),
    compared_with: Tensor | None = None,
    divergences: Sequence[LogitDivergence] = (),
) -> ScoredPairs:
    """Log-probs of all answers of a forest under the policy, beside those of the reference.

    Args:
        policy: The policy, in whatever mode it is.
        forest: Pairs, on the policy's device.
        reference: The reference's log-prob of each target, ``(M,)``; None where the loss needs none.
        statistics: Further numbers of the policy's distributions; ``entropy`` and ``rank`` are always there.
        compared_with: From :func:`reference_hidden`, given exactly when divergences are.
        divergences: Between policy and reference.
    """
    token = score_tokens(
        policy.hidden(forest)[forest.pair_rows],
        policy.head,
        forest.pair_tokens,
        reference_hidden=compared_with,
        divergences=divergences,
        statistics=tuple(dict.fromkeys(["entropy", "rank", *statistics])),
    )
    at = forest.target_pairs
    pairs = count_pairs(forest)
    place = torch.arange(len(at), device=at.device)
    # The targets of an example stand together, in the order of its text.
    first = torch.searchsorted(forest.target_examples, torch.arange(len(forest.examples), device=at.device))
    position = place - first[forest.target_examples]

    def side(number: int) -> AnswerScores:
        mine = forest.target_examples % 2 == number
        return AnswerScores(
            token_logps=token.logps[at[mine]],
            reference_token_logps=None if reference is None else reference[mine],
            pairs=forest.target_examples[mine] // 2,
            positions=position[mine],
            count=pairs,
            statistics={name: values[at[mine]] for name, values in token.statistics.items()},
        )

    chosen, rejected = side(0), side(1)
    mine = at[forest.target_examples % 2 == 0]
    return ScoredPairs(
        PairScores(chosen, rejected),
        forest.sources[: 2 * pairs : 2],
        tuple(chosen.sums(values[mine]) for values in token.divergences),
    )


def answer_sums(scores: PairScores) -> Tensor:
    """What a loss that couples pairs is given: log-probs, the reference's, and lengths of both sides.

    Returns:
        Float64, ``(6, P)``: chosen and rejected log-probs, those of the reference (nan where none was run), lengths.
    """
    rows = [scores.chosen.logps, scores.rejected.logps]
    for one in (scores.chosen, scores.rejected):
        known = one.reference_token_logps is not None
        rows.append(one.reference_logps if known else torch.full_like(rows[0], float("nan")))
    return torch.stack([*rows, scores.chosen.lengths, scores.rejected.lengths])


def pairs_of_sums(logps: Tensor, rest: Tensor, needs_reference: bool) -> PairScores:
    """The pairs of a whole window from the rows of :func:`answer_sums`.

    Args:
        logps: The first two rows, ``(2, P)``; with gradient if the loss is to have one.
        rest: The other four, ``(4, P)``.
        needs_reference: Whether the reference's rows hold numbers.
    """
    chosen, rejected = (
        AnswerScores.of_sums(logps[i], rest[i] if needs_reference else None, rest[2 + i]) for i in (0, 1)
    )
    return PairScores(chosen, rejected)

"""A forest of preference pairs to the log-probs that losses take, and to sums for the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align.forest import TokenForest
from lit_align.losses.preference.contract import AnswerScores, PairScores
from lit_align.models.policy import Policy
from lit_align.modules.comparison import Comparison, score_forest
from lit_align.ops.frozen_head import token_logps
from lit_align.ops.token_statistics import Statistic


@dataclass(frozen=True, eq=False)
class ReferenceView:
    """What is known of the reference at the targets of a forest.

    Attributes:
        logps: Its log-prob of each target, nats, ``(M,)``; None where the loss needs none.
        comparison: Of some targets over the whole vocabulary; None where nothing is compared.
    """

    logps: Tensor | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """The pairs of one forest.

    Attributes:
        scores: What a loss takes.
        sources: For each pair the name of its source.
        divergence: Added up over the compared targets, nats, float64, a scalar; 0 where nothing is compared.
    """

    scores: PairScores
    sources: tuple[str, ...]
    divergence: Tensor


def count_pairs(forest: TokenForest) -> int:
    """Pairs of a forest: the chosen and the rejected answer of each in turn, before all that is replayed.

    Args:
        forest: Built from the trees of :class:`~lit_align.data.preference.PreferenceDataModule`; a rank's idle forest
            has one example and no pair.

    Raises:
        ValueError: A replayed example stands before an answer.
    """
    answers = sum(weight > 0 for weight in forest.weights)
    if not all(forest.weights[:answers]):
        raise ValueError(f"forest of {forest.examples}: replayed examples must stand after those of all pairs")
    return answers // 2


def chosen_targets(forest: TokenForest) -> Tensor:
    """Which targets are of a chosen answer, ``(M,)``, bool."""
    return (forest.target_examples % 2 == 0) & ~forest.replayed


def hidden_logps(policy: Policy, forest: TokenForest, hidden: Tensor) -> Tensor:
    """Log-prob of each target of a forest from the hidden states at its pairs ``(P, H)``, nats, ``(M,)``."""
    return token_logps(hidden, policy.head, forest.pair_tokens)[forest.target_pairs]


def score_pairs(
    policy: Policy, forest: TokenForest, reference: ReferenceView, statistics: Sequence[Statistic] = ()
) -> ScoredPairs:
    """Log-probs of all answers of a forest under the policy, beside those of the reference.

    Args:
        policy: The policy, in whatever mode it is.
        forest: Pairs, and what is replayed after them, on the policy's device.
        reference: What is known of the reference there.
        statistics: Further numbers of the policy's distributions; ``entropy`` and ``rank`` are always there.
    """
    wanted = tuple(dict.fromkeys(["entropy", "rank", *statistics]))
    token = score_forest(policy, forest, wanted, reference.comparison)
    at = forest.target_pairs
    pairs = count_pairs(forest)
    place = torch.arange(len(at), device=at.device)
    # The targets of an example stand together, in the order of its text.
    first = torch.searchsorted(forest.target_examples, torch.arange(len(forest.examples), device=at.device))
    position = place - first[forest.target_examples]

    def side(mine: Tensor) -> AnswerScores:
        return AnswerScores(
            token_logps=token.logps[at[mine]],
            reference_token_logps=None if reference.logps is None else reference.logps[mine],
            pairs=forest.target_examples[mine] // 2,
            positions=position[mine],
            count=pairs,
            statistics={name: values[at[mine]] for name, values in token.statistics.items()},
        )

    chosen = chosen_targets(forest)
    scores = PairScores(side(chosen), side(~chosen & ~forest.replayed))
    return ScoredPairs(scores, forest.sources[: 2 * pairs : 2], token.divergence)


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

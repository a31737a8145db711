"""Answers scored by a scorer, by all ranks together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lit_align.evals.judge.contract import Judged, Scorer
from lit_align.evals.ranks import gathered, rank_and_world


def scored(
    scorer: Scorer, answers: Sequence[Judged], device: torch.device, *, progress: str | None = None
) -> list[dict[str, float]]:
    """Score answers, under ``torch.distributed`` each rank its share; all of them must call.

    Args:
        scorer: What gives the numbers.
        answers: What is to be scored, at least one; on all ranks the same.
        device: Where a model of the scorer may run.
        progress: Label of the progress bar, none if ``None``.

    Returns:
        The measures of each answer, in the order of the answers, on every rank.

    Raises:
        ValueError: The scorer refuses an answer, or gives another number of scores than there are answers.
    """
    rank, world = rank_and_world()
    own = range(rank, len(answers), world)
    found = scorer.scores([answers[i] for i in own], device, progress=None if rank else progress) if own else []
    if len(found) != len(own):
        raise ValueError(f"{type(scorer).__name__}: gave {len(found)} scores for {len(own)} answers")
    return list(gathered(dict(zip(own, found, strict=True))).values())


def scorer_conditions(scorer: Scorer) -> dict[str, str | int]:
    """What of a scorer must be the same before and after, under keys that no option of a benchmark has.

    Args:
        scorer: Any.
    """
    return {f"judge.{key}": value for key, value in scorer.identity().items()}

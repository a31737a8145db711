"""Pairs whose rejected answer a model wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lit_align.data.sources.samples.sample_file import SampledCompletion, SampledPrompt
from lit_align.data.sources.samples.sampled_pairs import SampledPairs


@dataclass(frozen=True)
class RejectedSamples(SampledPairs):
    """The gold answer against one of the model's own, drawn at random.

    Without ``worse_by`` nothing asks whether the model's answer is worse: that the gold one is better is assumed, as in
    SPIN (Chen et al. 2024, arXiv:2401.01335) and in the recipe for Finance-Instruct. Unfinished and blank samples and
    those that say what the gold answer says are left out; an answer is taken as it was written, with its ``<think>``
    trace.

    Args:
        path: The file that ``lit-align sample`` wrote for a source with gold answers.
        max_length_ratio: The longer of both answers has at most so many times the characters of the shorter, >= 1;
            other samples are left out. Null asks nothing.
        worse_by: Name of a score by which a sample must be below the gold answer, in a file that was drawn with
            ``--score_gold=true``; empty asks nothing.
        min_margin: By how much it must be below at least, >= 0; needs ``worse_by``.
        seed: Seed of the draw; a prompt's draw depends on its id alone.

    Raises:
        ValueError: A value is out of its range, or ``min_margin`` is given without ``worse_by``.

    Example:
        >>> from lit_align.types import Message
        >>> said = SampledCompletion(0, "5", True, {})
        >>> prompt = SampledPrompt("1", (Message("user", "2 + 2?"),), "4", "sums", "", (said,))
        >>> RejectedSamples("sums.jsonl").choose(prompt, [said])
        ('4', '5')
    """

    max_length_ratio: float | None = None
    worse_by: str = ""
    min_margin: float = 0.0
    seed: int = 42

    def __post_init__(self) -> None:
        if self.max_length_ratio is not None and not self.max_length_ratio >= 1:
            raise ValueError(f"RejectedSamples.max_length_ratio: must be at least 1, not {self.max_length_ratio}")
        if not 0 <= self.min_margin < math.inf or (self.min_margin and not self.worse_by):
            raise ValueError(
                f"RejectedSamples.min_margin: must be >= 0, and 0 without `worse_by`, not {self.min_margin}"
            )

    def left_out(self, prompt: SampledPrompt, completion: SampledCompletion) -> str:
        """See :class:`SampledPairs`."""
        if why := super().left_out(prompt, completion):
            return why
        answer, gold = completion.answer.strip(), prompt.gold.strip()
        if answer == gold:
            return "equal to the gold answer"
        shorter, longer = sorted((len(answer), len(gold)))
        if self.max_length_ratio is not None and longer > self.max_length_ratio * shorter:
            return "of another length than the gold answer"
        if not self.worse_by:
            return ""
        gap = self._gold_score(prompt) - self._score(prompt, completion, self.worse_by)
        return "not worse than the gold answer" if gap <= 0 or gap < self.min_margin else ""

    def choose(self, prompt: SampledPrompt, completions: Sequence[SampledCompletion]) -> tuple[str, str] | str:
        """Set the gold answer against one of the completions.

        Raises:
            ValueError: The prompt has no gold answer.
        """
        if not prompt.gold.strip():
            raise ValueError(
                f"{self.path}: prompt {prompt.id!r} has no gold answer; sample a source that has answers, or choose "
                "among the samples by a score (BestOfSamples, RightAndWrong)"
            )
        return prompt.gold, Random(f"samples/{self.seed}/{prompt.id}").choice(completions).answer

    def _gold_score(self, prompt: SampledPrompt) -> float:
        if not prompt.gold_scores:
            raise ValueError(
                f"{self.path}: the gold answer of {prompt.id!r} has no scores, and RejectedSamples.worse_by = "
                f"{self.worse_by!r} compares with it; sample again with --score_gold=true"
            )
        return self._named(prompt.gold_scores, self.worse_by, f"the gold answer of {prompt.id!r}")

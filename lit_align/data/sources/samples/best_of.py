"""Pairs of the best and the worst of several samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lit_align.data.sources.samples.sample_file import SampledCompletion, SampledPrompt
from lit_align.data.sources.samples.sampled_pairs import SampledPairs


@dataclass(frozen=True)
class BestOfSamples(SampledPairs):
    """The best of a prompt's samples against the worst, by a score.

    Both answers are the model's own (best against worst of n, as in the preference data of T-pro 2.0). Among equally
    good ones the first that was sampled is taken, and of equal answers the score of the first. Unfinished and blank samples are left out.

    Args:
        path: The file that ``lit-align sample`` wrote, with scores.
        score: Name of the score; larger is better.
        min_margin: A prompt whose best and worst sample differ by less has no pair, >= 0; without any difference there
            is none either.

    Raises:
        ValueError: ``min_margin`` is out of its range.

    Example:
        >>> from lit_align.types import Message
        >>> said = (SampledCompletion(0, "5", True, {"f1": 0.0}), SampledCompletion(1, "4", True, {"f1": 1.0}))
        >>> prompt = SampledPrompt("1", (Message("user", "2 + 2?"),), "", "sums", "", said)
        >>> BestOfSamples("sums.jsonl", score="f1").choose(prompt, said)
        ('4', '5')
    """

    score: str
    min_margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_margin < math.inf:
            raise ValueError(f"BestOfSamples.min_margin must be >= 0, got {self.min_margin}")

    def choose(self, prompt: SampledPrompt, completions: Sequence[SampledCompletion]) -> tuple[str, str] | str:
        """Set the best of the completions against the worst.

        Raises:
            ValueError: A completion lacks the score; the message names those that it has.
        """
        scores: dict[str, float] = {}
        for one in completions:
            # An equal answer may have another score: a reward depends, to rounding, on what it is read beside.
            scores.setdefault(one.answer, self._score(prompt, one, self.score))
        best, worst = (choice(scores, key=scores.__getitem__) for choice in (max, min))
        if scores[best] == scores[worst]:
            return "all samples equally good"
        if scores[best] - scores[worst] < self.min_margin:
            return "best and worst nearer than min_margin"
        return best, worst

"""Pairs of a right and a wrong sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lit_align.data.sources.samples.sample_file import SampledCompletion, SampledPrompt
from lit_align.data.sources.samples.sampled_pairs import SampledPairs


@dataclass(frozen=True)
class RightAndWrong(SampledPairs):
    """One of a prompt's right samples against one of its wrong ones, both drawn at random.

    Both answers are the model's own, so a pair differs in what it says rather than in how (Pang et al. 2024,
    arXiv:2404.19733). A prompt that the model always or never answers has no pair. Unfinished and blank samples are
    left out.

    Args:
        path: The file that ``lit-align sample`` wrote, with scores.
        score: Name of the score; larger is better.
        threshold: A sample is right from this score on, finite.
        seed: Seed of the draws; a prompt's draws depend on its id alone.

    Raises:
        ValueError: ``threshold`` is not finite.

    Example:
        >>> from lit_align.types import Message
        >>> said = (SampledCompletion(0, "5", True, {"f1": 0.0}), SampledCompletion(1, "4", True, {"f1": 1.0}))
        >>> prompt = SampledPrompt("1", (Message("user", "2 + 2?"),), "", "sums", "", said)
        >>> RightAndWrong("sums.jsonl", score="f1").choose(prompt, said)
        ('4', '5')
    """

    score: str
    threshold: float = 1.0
    seed: int = 42

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ValueError(f"RightAndWrong.threshold must be finite, got {self.threshold}")

    def choose(self, prompt: SampledPrompt, completions: Sequence[SampledCompletion]) -> tuple[str, str] | str:
        """Set one of the right completions against one of the wrong ones.

        Raises:
            ValueError: A completion lacks the score; the message names those that it has.
        """
        right = [one.answer for one in completions if self._score(prompt, one, self.score) >= self.threshold]
        wrong = [one.answer for one in completions if self._score(prompt, one, self.score) < self.threshold]
        if not wrong:
            return "all samples right"
        if not right:
            return "all samples wrong"
        rng = Random(f"samples/{self.seed}/{prompt.id}")
        return rng.choice(right), rng.choice(wrong)

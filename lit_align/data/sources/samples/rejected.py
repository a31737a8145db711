"""Pairs whose rejected answer a model wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lit_align.data.sources.samples.sample_file import SampledCompletion, SampledPrompt
from lit_align.data.sources.samples.sampled_pairs import SampledPairs


@dataclass(frozen=True)
class RejectedSamples(SampledPairs):
    """The gold answer against one of the model's own, drawn at random.

    Nothing asks whether the model's answer is worse: that the gold one is better is assumed, as in SPIN (Chen et al.
    2024, arXiv:2401.01335) and in the recipe for Finance-Instruct. Unfinished and blank samples and those that say what
    the gold answer says are left out; an answer is taken as it was written, with its ``<think>`` trace.

    Args:
        path: The file that ``lit-align sample`` wrote for a source with gold answers.
        seed: Seed of the draw; a prompt's draw depends on its id alone.

    Example:
        >>> from lit_align.types import Message
        >>> said = SampledCompletion(0, "5", True, {})
        >>> prompt = SampledPrompt("1", (Message("user", "2 + 2?"),), "4", "sums", "", (said,))
        >>> RejectedSamples("sums.jsonl").choose(prompt, [said])
        ('4', '5')
    """

    seed: int = 42

    def left_out(self, prompt: SampledPrompt, completion: SampledCompletion) -> str:
        """See :class:`SampledPairs`."""
        equal = completion.answer.strip() == prompt.gold.strip()
        return super().left_out(prompt, completion) or ("equal to the gold answer" if equal else "")

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

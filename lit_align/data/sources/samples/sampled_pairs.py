"""What all ways to make pairs of a file of samples have in common."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lit_align.data.mixture import messages_hash
from lit_align.data.sources.samples.sample_file import (
    SampledCompletion,
    SampledPrompt,
    named_score,
    read_samples,
    unusable,
)
from lit_align.types import PairSource, PreferencePair, SamplePrompt, stop_at

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampledPairs(PairSource):
    """At most one pair for each prompt of a file of ``lit-align sample``.

    Args:
        path: The file.
    """

    path: str

    @abstractmethod
    def choose(self, prompt: SampledPrompt, completions: Sequence[SampledCompletion]) -> tuple[str, str] | str:
        """Choose the answers of a pair.

        Args:
            prompt: The prompt.
            completions: Those of its completions that may be used, at least one.

        Returns:
            The chosen and the rejected answer; or, where there is no pair, why, in a few words for the log.

        Raises:
            ValueError: The file lacks what the choice needs.
        """

    def left_out(self, prompt: SampledPrompt, completion: SampledCompletion) -> str:
        """Why a completion may not be used, in a few words for the log; empty where it may.

        Args:
            prompt: The prompt.
            completion: One of its completions.
        """
        del prompt
        return unusable(completion)

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Make the pairs of one side of a split, in the file's order; ids and groups are those of the prompts.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The run that writes the file is not finished, a row breaks a rule, or the file lacks what the
                choice needs. The message names file, row or prompt, column and value.
        """
        kept = [one for one in read_samples(self.path) if keep(one.group or messages_hash(one.messages))]
        found: list[PreferencePair] = []
        without: Counter[str] = Counter()
        unused: Counter[str] = Counter()
        for prompt in kept:
            reasons = [self.left_out(prompt, one) for one in prompt.completions]
            unused.update(filter(None, reasons))
            usable = [one for one, reason in zip(prompt.completions, reasons, strict=True) if not reason]
            answers = self.choose(prompt, usable) if usable else "all samples left out"
            if isinstance(answers, str):
                without[answers] += 1
            else:
                found.append(PreferencePair(prompt.messages, *answers, prompt.id, prompt.source, prompt.group))
        logger.info(
            f"{self.path}: {len(found)} pairs of {len(kept)} prompts; without a pair: {listed(without)}; samples left "
            f"out: {listed(unused)}"
        )
        return found

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """All prompts of the file, to be answered anew; the metric that scored their answers is not in the file."""
        del refuse
        return [SamplePrompt(one.id, one.messages, one.gold, one.source, one.group) for one in read_samples(self.path)]

    def _score(self, prompt: SampledPrompt, completion: SampledCompletion, name: str) -> float:
        """A score of a completion, which must have it."""
        return self._named(completion.scores, name, f"sample {completion.sample} of {prompt.id!r}")

    def _named(self, scores: Mapping[str, float], name: str, of: str) -> float:
        return named_score(scores, name, f"{self.path}: {of}")


def listed(counts: Counter[str]) -> str:
    """Counts in words, for the log."""
    return ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items())) or "none"

"""Samples that a score rates good or bad, each on its own."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from lit_align.data.mixture import messages_hash
from lit_align.data.sources.samples.sample_file import SampledPrompt, named_score, read_samples, unusable
from lit_align.data.sources.samples.sampled_pairs import listed
from lit_align.rated import RatedAnswer, RatedSource
from lit_align.types import SamplePrompt, stop_at

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RatedSamples(RatedSource):
    """Every answer that a model gave: good from a score on, bad below it.

    Unlike for pairs (:class:`RightAndWrong`), prompts that the model always or never answers are of use. Unfinished and
    blank samples are left out; of equal answers to a prompt there is one, with the score of the first.

    Args:
        path: The file that ``lit-align sample`` wrote, with scores.
        score: Name of the score; larger is better.
        threshold: A sample is good from this score on, finite.

    Raises:
        ValueError: ``threshold`` is not finite.
    """

    path: str
    score: str
    threshold: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ValueError(f"RatedSamples.threshold must be finite, got {self.threshold}")

    def rated(self, keep: Callable[[str], bool]) -> list[RatedAnswer]:
        """Rate the answers of one side of a split, in the file's order; ids are those of prompt and sample.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The run that writes the file is not finished, a row breaks a rule, or a sample lacks the score.
                The message names file, row or prompt, column and value.
        """
        kept = [one for one in read_samples(self.path) if keep(one.group or messages_hash(one.messages))]
        unused: Counter[str] = Counter()
        found = [answer for prompt in kept for answer in self._answers(prompt, unused)]
        logger.info(
            f"{self.path}: {len(found)} answers to {len(kept)} prompts, {sum(one.desirable for one in found)} of them "
            f"good; samples left out: {listed(unused)}"
        )
        return found

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """All prompts of the file, to be answered anew; the metric that scored their answers is not in the file."""
        del refuse
        return [SamplePrompt(one.id, one.messages, one.gold, one.source, one.group) for one in read_samples(self.path)]

    def _answers(self, prompt: SampledPrompt, unused: Counter[str]) -> list[RatedAnswer]:
        answers: dict[str, RatedAnswer] = {}
        for one in prompt.completions:
            if why := unusable(one) or ("said before" if one.answer in answers else ""):
                unused[why] += 1
                continue
            score = named_score(one.scores, self.score, f"{self.path}: sample {one.sample} of {prompt.id!r}")
            good, name = score >= self.threshold, f"{prompt.id} sample {one.sample}"
            answers[one.answer] = RatedAnswer(prompt.messages, one.answer, good, name, prompt.source, prompt.group)
        return list(answers.values())

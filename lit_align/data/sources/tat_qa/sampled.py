"""Rejected answers that a model wrote."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lit_align.data.sources.samples.sample_file import SampledPrompt, read_samples
from lit_align.data.sources.tat_qa.answers import AnswerFormat, gold_text
from lit_align.data.sources.tat_qa.candidates import Asked
from lit_align.data.sources.tat_qa.negatives import Answers, Negatives
from lit_align.data.sources.tat_qa.reading import Question
from lit_align.data.sources.tat_qa.scoring import is_accepted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampledNegatives(Negatives):
    """A model's own wrong answers: of the samples of a question one that the official metric refuses.

    The scores in the file are not read: the metric is asked anew, so that a right answer in another form is no rejected
    one. The draw is uniform over the wrong samples, not over their texts: an error that the model makes more often is
    rejected more often. Unfinished and blank samples are never drawn; a question whose finished samples are all right
    has no pair. An answer is taken as it was written, white space at both ends apart.

    With ``DerivationThenAnswer`` the gold answer shows its derivation wherever it has one, and the sample whatever the
    model wrote: one that does not derive where it should differs from the gold answer in this too.

    Args:
        path: The file that ``lit-align sample`` wrote for the prompts of ``TATQA``, with the same ``prompt`` and
            ``answer``.
    """

    path: str

    def choose(self, asked: Sequence[Asked], answer: AnswerFormat, seed: int) -> list[Answers | None]:
        """Choose the answers of each question; see the class.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The run that writes the file is not finished; a row of it breaks a rule; it was made for
                another file of questions.
        """
        samples = {one.id: one for one in read_samples(self.path)}
        found: list[Answers | None] = []
        absent = unfinished = right = 0
        for one in asked:
            prompt = samples.get(one.question.uid)
            finished = [] if prompt is None else self._finished(prompt, one.question)
            wrong = [text for text in finished if not is_accepted(one.question, text)]
            absent += prompt is None
            unfinished += prompt is not None and not finished
            right += bool(finished and not wrong)
            if prompt is None or not wrong:
                found.append(None)
                continue
            rejected = Random(f"tat-qa/{seed}/{one.question.uid}").choice(wrong)
            chosen = answer.text(gold_text(one.question), one.question.derivation)
            found.append(Answers(chosen, rejected, prompt=prompt.messages))
        if asked and absent == len(asked):
            raise ValueError(
                f"{self.path}: holds samples of other prompts: of none of {len(asked)} questions, such as "
                f"{asked[0].question.uid}, but of ids such as {next(iter(samples))!r}; sample the prompts of this TATQA"
            )
        logger.info(
            f"TAT-QA: {len(asked) - absent - unfinished - right} pairs of {len(asked)} questions; {absent} without "
            f"samples in {self.path}, {unfinished} without a finished one, {right} whose finished ones are all right"
        )
        return found

    def _finished(self, prompt: SampledPrompt, question: Question) -> list[str]:
        """The answers that the model ended, without the blank ones."""
        if question.text not in prompt.messages[-1].content:
            raise ValueError(
                f"{self.path}: the prompt of {prompt.id!r} does not ask {question.text!r}, which TATQA's file holds "
                "under this uid: it was made from another file; sample again"
            )
        answers = [one.answer.strip() for one in prompt.completions if one.finished]
        return [text for text in answers if text]

"""Preference pairs of TAT-QA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from lit_align.data.sources.rows import check_limit
from lit_align.data.sources.tat_qa.answers import AnswerFormat, PlainAnswer, gold_text
from lit_align.data.sources.tat_qa.balanced import BalancedNegatives
from lit_align.data.sources.tat_qa.candidates import Asked, asked_of
from lit_align.data.sources.tat_qa.negatives import Answers, Negatives
from lit_align.data.sources.tat_qa.prompt import DefaultPrompt, TATQAPrompt
from lit_align.data.sources.tat_qa.reading import Context, Question, read_contexts
from lit_align.data.sources.tat_qa.recipe import RecipeNegatives
from lit_align.data.sources.tat_qa.scoring import scores_of
from lit_align.types import Message, PairSource, PreferencePair, SamplePrompt, stop_at


@dataclass(frozen=True)
class TATQA(PairSource):
    """Questions about financial tables with passages (Zhu et al. 2021, arXiv:2105.07624; data CC BY 4.0).

    The rejected answers are made from the question's own table and passages, or were sampled from a model, and are
    wrong by the official metric. They are chosen anew for each side of a split.

    Args:
        path: ``tatqa_dataset_train.json``, ``…_dev.json`` or ``…_test_gold.json`` as they are published, or the id on
            the hub.
        hub_file: The file that is read when ``path`` is the id on the hub.
        prompt: The template: ``DefaultPrompt``, or ``RecipePrompt`` for comparisons.
        answer: What the answers say: ``PlainAnswer``, or ``DerivationThenAnswer``.
        negatives: How the rejected answers are chosen: ``BalancedNegatives``, ``SymmetricNegatives``,
            ``SampledNegatives`` (a model's own wrong answers), or ``RecipeNegatives`` for comparisons.
        group: Whose pairs share a tree of tokens and a side of the split: those of a ``table``, or of one ``question``
            (a table's questions may then be on both sides).
        limit: Read the first so many tables only, at least 1; null reads all.
        seed: Seed of the choice of rejected answers.

    Raises:
        ValueError: ``limit`` is below 1, or derivations are asked for of ``RecipeNegatives``, which has none.
    """

    path: str = "next-tat/TAT-QA"
    hub_file: str = "tatqa_dataset_train.json"
    prompt: TATQAPrompt = DefaultPrompt()
    answer: AnswerFormat = PlainAnswer()
    negatives: Negatives = BalancedNegatives()
    group: Literal["table", "question"] = "table"
    limit: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        check_limit(self.limit, "TATQA")
        if isinstance(self.negatives, RecipeNegatives) and not isinstance(self.answer, PlainAnswer):
            raise ValueError(
                f"TATQA.answer is {type(self.answer).__name__}, but RecipeNegatives has no derivations; "
                "set TATQA.answer to PlainAnswer or choose other negatives"
            )

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Read the questions of one side of a split and choose their rejected answers, in the file's order.

        Args:
            keep: Whether a group belongs to the side: asked with the uid of a table, or of a question.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: The file breaks a rule or holds no answers; or a rejected answer was sampled for another prompt.
                The message names file, table, question, key and value.
        """
        contexts = read_contexts(self.path, self.hub_file, self.limit)
        asked = asked_of(contexts, lambda context, question: keep(self._group(context, question)))
        chosen = self.negatives.choose(asked, self.answer, self.seed)
        return [self._pair(one, answers) for one, answers in zip(asked, chosen, strict=True) if answers is not None]

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """Every question of the file, with the pairs' prompts, scored by the official metric; no pair is chosen.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: The file breaks a rule or holds no answers.
        """
        del refuse
        return [
            SamplePrompt(
                id=question.uid,
                messages=self._messages(context, question),
                gold=self.answer.text(gold_text(question), question.derivation),
                source=_source_of(question),
                group=self._group(context, question),
                score=partial(scores_of, question),
            )
            for context in read_contexts(self.path, self.hub_file, self.limit)
            for question in context.questions
        ]

    def _group(self, context: Context, question: Question) -> str:
        return context.uid if self.group == "table" else question.uid

    def _messages(self, context: Context, question: Question) -> tuple[Message, ...]:
        return (Message("user", self.prompt.text(context, question, self.negatives.instruction(self.answer))),)

    def _pair(self, one: Asked, answers: Answers) -> PreferencePair:
        prompt = self._messages(one.context, one.question)
        if answers.prompt and answers.prompt != prompt:
            raise ValueError(
                f"TATQA: question {one.question.uid}: its rejected answer was sampled for another prompt than the "
                "pair's: set `prompt` and `answer` as they were for `lit-align sample`, or sample again"
            )
        both = bool(answers.chosen_derivation and answers.rejected_derivation)
        return PreferencePair(
            prompt=prompt,
            chosen=self.answer.text(answers.chosen, answers.chosen_derivation if both else ""),
            rejected=self.answer.text(answers.rejected, answers.rejected_derivation if both else ""),
            id=one.question.uid,
            source=_source_of(one.question),
            group=self._group(one.context, one.question),
        )


def _source_of(question: Question) -> str:
    return f"tat-qa/{question.answer_type}"

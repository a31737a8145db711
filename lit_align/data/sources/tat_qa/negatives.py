"""How the rejected answer of each question is chosen: what all ways have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from lit_align.data.sources.tat_qa.answers import AnswerFormat, gold_text
from lit_align.data.sources.tat_qa.candidates import Asked
from lit_align.types import Message


@dataclass(frozen=True)
class Answers:
    """The two answers of a pair, before a format adds a derivation.

    Attributes:
        chosen: The better answer.
        rejected: The worse one.
        chosen_derivation: How the better one comes about, or empty.
        rejected_derivation: How the worse one would, or empty.
        prompt: The turns to which a model gave the worse one: the pair must have the same; empty for one that no model
            gave.
    """

    chosen: str
    rejected: str
    chosen_derivation: str = ""
    rejected_derivation: str = ""
    prompt: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Negatives(ABC):
    """A way to choose rejected answers; a frozen dataclass whose fields are the options of the YAML."""

    @abstractmethod
    def choose(self, asked: Sequence[Asked], answer: AnswerFormat, seed: int) -> list[Answers | None]:
        """Choose the answers of each question of one side of a split.

        Args:
            asked: The questions.
            answer: What the answers will say.
            seed: Another seed chooses others.

        Returns:
            For each question its two answers, or None where there is no pair.
        """

    def instruction(self, answer: AnswerFormat) -> str:
        """Tell the model how to answer; a part of the prompt.

        Args:
            answer: The format of the answers.
        """
        return answer.instruction()


def with_gold(asked: Asked, rejected: str, derivation: str) -> Answers:
    """Set a wrong answer against the gold one.

    Args:
        asked: The question.
        rejected: The wrong answer.
        derivation: How one would arrive at it, or empty.
    """
    return Answers(gold_text(asked.question), rejected, asked.question.derivation, derivation)

"""Answers as text that reads back: one item a line, the scale on a last line of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import ClassVar

from lit_align.data.sources.tat_qa.reading import SCALES, AnswerType, Question

_SCALE_WORDS = frozenset(scale for scale in SCALES if scale)
_DERIVATION = "Derivation: "
_END_OF_TRACE = "</think>"


def number_text(value: float) -> str:
    """Write a number with up to two decimals, which is all that the official metric reads.

    Args:
        value: The number.

    Example:
        >>> number_text(22.0), number_text(-0.5), number_text(12345.678), number_text(-0.001)
        ('22', '-0.5', '12345.68', '0')
    """
    # str first: a float is then rounded as it is written, 2.675 to 2.68, not as its bits lie.
    rounded = Decimal(str(value)).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    text = f"{rounded:f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def render(answer: Sequence[str], answer_type: AnswerType, scale: str) -> str:
    r"""Write an answer as the model shall write it.

    The scale has a line of its own since many spans hold one in their own words: ``$9.8 million`` with the scale
    nowhere and ``$9.8`` with the scale million are different gold answers.

    Args:
        answer: The items; one, save for ``multi-span``.
        answer_type: Numbers of ``arithmetic`` are written with up to two decimals.
        scale: What the numbers count, or empty.

    Raises:
        ValueError: There is no item, or an item is blank.

    Example:
        >>> render(["2019", "2018"], "multi-span", ""), render(["-12.60"], "arithmetic", "million")
        ('2019\n2018', '-12.6\nmillion')
    """
    if not answer or not all(item.strip() for item in answer):
        raise ValueError(f"an answer must hold at least one item and no blank one, not {list(answer)}")
    items = [number_text(float(answer[0]))] if answer_type == "arithmetic" else [" ".join(a.split()) for a in answer]
    return "\n".join([*items, scale] if scale else items)


def parse(text: str) -> tuple[list[str], str]:
    r"""Read an answer back.

    Args:
        text: What :func:`render` or a model wrote; a ``<think>`` trace and a derivation before it are passed over.

    Returns:
        The items, as text, and the scale. No item when there is nothing to read.

    Example:
        >>> parse("65\n(114)\nmillion"), parse("$9.8 million"), parse("Derivation: 1 + 1\n2")
        ((['65', '(114)'], 'million'), (['$9.8 million'], ''), (['2'], ''))
    """
    told = text.rpartition(_END_OF_TRACE)[2]
    lines = [line.strip() for line in told.strip().splitlines()]
    items = [line for line in lines if line and not line.startswith(_DERIVATION.strip())]
    if len(items) > 1 and items[-1].lower() in _SCALE_WORDS:
        return items[:-1], items[-1].lower()
    return items, ""


@dataclass(frozen=True)
class AnswerFormat(ABC):
    """What an answer says besides the answer itself.

    Attributes:
        shows_derivations: Whether derivations are written, so that they too must not tell chosen from rejected.
    """

    shows_derivations: ClassVar[bool] = False

    @abstractmethod
    def instruction(self) -> str:
        """Tell the model how to answer; a part of the prompt."""

    @abstractmethod
    def text(self, answer: str, derivation: str) -> str:
        """Write an answer.

        Args:
            answer: As :func:`render` writes it.
            derivation: How it comes about; empty where there is none, or where its rival has none.
        """


_HOW_TO_ANSWER = (
    "Write the answer alone, one item a line: as the table or the passages write it, the result of a calculation as a "
    "plain number. If its numbers stand without their scale, end with a line that says thousand, million, billion or "
    "percent."
)


@dataclass(frozen=True)
class PlainAnswer(AnswerFormat):
    """The answer alone."""

    def instruction(self) -> str:
        """Tell the model how to answer."""
        return _HOW_TO_ANSWER

    def text(self, answer: str, derivation: str) -> str:
        """Write the answer alone."""
        del derivation
        return answer


@dataclass(frozen=True)
class DerivationThenAnswer(AnswerFormat):
    """A line with the derivation before the answer, where the chosen and the rejected answer both have one.

    A derivation that stood in one of the two alone would tell them apart by its mere presence.
    """

    shows_derivations: ClassVar[bool] = True

    def instruction(self) -> str:
        """Tell the model how to answer."""
        return f"If the answer has to be worked out, begin with a line '{_DERIVATION}…'. {_HOW_TO_ANSWER}"

    def text(self, answer: str, derivation: str) -> str:
        """Write the derivation, then the answer."""
        return f"{_DERIVATION}{' '.join(derivation.split())}\n{answer}" if derivation else answer


def gold_text(question: Question) -> str:
    """Write the gold answer of a question."""
    return render(question.answer, question.answer_type, question.scale)

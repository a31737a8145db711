"""Capital and small letters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from lit_align.evals.instructions.contract import Count, Instruction, Relation, holds
from lit_align.evals.instructions.language import is_in_language
from lit_align.metrics.language import DETECTOR

# What the Penn Treebank's rules set apart from a word, where it can touch whether a word is in capitals.
_APART = re.compile(r"""[;@#$%&?!*\[\](){}<>"«»“”‘’„`]|--|\.{2,}|''|[:,](?=\D|$)""")
_CONTRACTED = re.compile(r"(?<=[^'\s])(?='(?:[SMD]|LL|RE|VE)(?:\s|$))|(?<=[^'\s])(?=N'T(?:\s|$))")
_MERGED = re.compile(r"\b(CAN(?=NOT\b)|GIM(?=ME\b)|GON(?=NA\b)|GOT(?=TA\b)|LEM(?=ME\b)|WAN(?=NA\b))")


def capital_words(text: str) -> int:
    """Number of words without a small letter and with a capital one, parted as NLTK's ``word_tokenize`` parts them.

    So ``U.S.``, ``A-B`` and ``B2B`` are one each, ``I`` is one, and ``DON'T``, ``IT'S`` and ``CANNOT`` two.

    Args:
        text: Any text.

    Example:
        >>> capital_words("I CAN'T see the NATO-led U.S. team; OK?")
        5
    """
    parted = _MERGED.sub(r"\1 ", _CONTRACTED.sub(" ", _APART.sub(" ", text)))
    return sum(word.isupper() for word in parted.split())


@dataclass(frozen=True)
class CapitalWordFrequency(Instruction):
    """Less than, or at least, so many words are in capitals: see :func:`capital_words`.

    Example:
        >>> CapitalWordFrequency(2, "at least").is_followed("STOP and LISTEN")
        True
    """

    capital_frequency: Count
    capital_relation: Relation

    def is_followed(self, answer: str) -> bool:
        """Whether the count stands in the relation."""
        return holds(capital_words(answer), self.capital_relation, self.capital_frequency)


@dataclass(frozen=True)
class EnglishCapital(Instruction):
    """There is a letter, none is small, and the language is English.

    Example:
        >>> EnglishCapital().is_followed("THE WEATHER IS VERY NICE TODAY.")
        True
    """

    package: ClassVar[str] = DETECTOR

    def is_followed(self, answer: str) -> bool:
        """Whether case and language are right."""
        return answer.isupper() and is_in_language(answer, "en")


@dataclass(frozen=True)
class EnglishLowercase(Instruction):
    """There is a letter, none is capital, and the language is English.

    Example:
        >>> EnglishLowercase().is_followed("the weather is very nice today."), EnglishLowercase().is_followed("42")
        (True, False)
    """

    package: ClassVar[str] = DETECTOR

    def is_followed(self, answer: str) -> bool:
        """Whether case and language are right."""
        return answer.islower() and is_in_language(answer, "en")

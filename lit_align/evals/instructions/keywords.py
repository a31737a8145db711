"""Words, letters and commas that an answer must or must not have."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lit_align.evals.instructions.contract import Count, Instruction, Letter, Pattern, Patterns, Relation, holds


@dataclass(frozen=True)
class Existence(Instruction):
    """Every keyword occurs, in any case, also as a part of a longer word; each is read as a regular expression.

    Example:
        >>> Existence(("cat",)).is_followed("A CATALOGUE")
        True
    """

    keywords: Patterns

    def is_followed(self, answer: str) -> bool:
        """Whether all are found."""
        return all(re.search(keyword, answer, re.IGNORECASE) for keyword in self.keywords)


@dataclass(frozen=True)
class Frequency(Instruction):
    """The keyword occurs less than, or at least, so many times: in any case, also inside of words, without overlaps.

    Example:
        >>> Frequency("sea", 2, "at least").is_followed("Sea and seaside")
        True
    """

    keyword: Pattern
    frequency: Count
    relation: Relation

    def is_followed(self, answer: str) -> bool:
        """Whether the count stands in the relation."""
        count = sum(1 for _ in re.finditer(self.keyword.strip(), answer, re.IGNORECASE))
        return holds(count, self.relation, self.frequency)


@dataclass(frozen=True)
class ForbiddenWords(Instruction):
    """No forbidden word occurs as a whole word, in any case; a word that begins or ends with a sign is never whole.

    Example:
        >>> ForbiddenWords(("cat",)).is_followed("A catalogue."), ForbiddenWords(("cat",)).is_followed("A cat.")
        (True, False)
    """

    forbidden_words: Patterns

    def is_followed(self, answer: str) -> bool:
        """Whether none is found."""
        return not any(re.search(rf"\b{word}\b", answer, re.IGNORECASE) for word in self.forbidden_words)


@dataclass(frozen=True)
class LetterFrequency(Instruction):
    """A character, in any case, occurs less than, or at least, so many times; IFEval's file has ``#`` and ``!`` too.

    Older copies of IFEval's program (lm-evaluation-harness has one) check a letter drawn at random in their place.

    Example:
        >>> LetterFrequency("q", 2, "at least").is_followed("Quite quick")
        True
    """

    letter: Letter
    let_frequency: Count
    let_relation: Relation

    def is_followed(self, answer: str) -> bool:
        """Whether the count stands in the relation."""
        return holds(answer.lower().count(self.letter.lower()), self.let_relation, self.let_frequency)


@dataclass(frozen=True)
class NoComma(Instruction):
    """There is no ``,``; the commas of other scripts are none.

    Example:
        >>> NoComma().is_followed("One; two."), NoComma().is_followed("One, two.")
        (True, False)
    """

    def is_followed(self, answer: str) -> bool:
        """Whether there is none."""
        return "," not in answer

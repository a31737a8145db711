"""Marks of format: lists, highlights, sections, titles, placeholders, postscripts, JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from lit_align.evals.instructions.contract import Count, Instruction, Pattern

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_MARKERS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}


@dataclass(frozen=True)
class Postscript(Instruction):
    r"""The marker occurs, anywhere and in any case.

    ``P.S.`` and ``P.P.S`` may have one space after each point; another marker is read as a regular expression.

    Example:
        >>> Postscript("P.S.").is_followed("Bye.\n\np. s. Write soon.")
        True
    """

    postscript_marker: Pattern

    def is_followed(self, answer: str) -> bool:
        """Whether it is found."""
        marker = self.postscript_marker.strip()
        return re.search(_MARKERS.get(marker, marker.lower()), answer.lower()) is not None


@dataclass(frozen=True)
class NumberPlaceholders(Instruction):
    """At least so many pairs of square brackets, each within a line; they may be empty.

    Example:
        >>> NumberPlaceholders(2).is_followed("[name], [street]")
        True
    """

    num_placeholders: Count

    def is_followed(self, answer: str) -> bool:
        """Whether there are enough."""
        return len(re.findall(r"\[[^\n\]]*\]", answer)) >= self.num_placeholders


@dataclass(frozen=True)
class NumberBulletLists(Instruction):
    r"""Exactly so many bullet points: lines that begin with ``-``, or with one ``*`` that no other follows.

    As in IFEval's program, a rule of dashes (``---``) is a point, a line in ``*italics*`` is one and a line in
    ``**bold**`` is none; ``+`` and numbers make no point.

    Example:
        >>> NumberBulletLists(2).is_followed("Buy:\n- tea\n  * green tea")
        True
    """

    num_bullets: Count

    def is_followed(self, answer: str) -> bool:
        """Whether there are so many."""
        # A star at the end of a line takes the next line with it, as there.
        stars = re.findall(r"^\s*\*[^*].*", answer, re.MULTILINE)
        dashes = re.findall(r"^\s*-.*", answer, re.MULTILINE)
        return len(stars) + len(dashes) == self.num_bullets


@dataclass(frozen=True)
class ConstrainedResponse(Instruction):
    """One of :data:`OPTIONS` occurs as it stands, with whatever else; so all three together do.

    Example:
        >>> ConstrainedResponse().is_followed("My answer is maybe. Who knows?")
        True
    """

    def is_followed(self, answer: str) -> bool:
        """Whether one is found."""
        return any(option in answer for option in OPTIONS)


@dataclass(frozen=True)
class NumberHighlightedSections(Instruction):
    """At least so many highlights: ``*text*`` or ``**text**`` within a line, not blank.

    Stars are paired from the left, whatever they were meant for.

    Example:
        >>> NumberHighlightedSections(2).is_followed("*one* and **two**")
        True
    """

    num_highlights: Count

    def is_followed(self, answer: str) -> bool:
        """Whether there are enough."""
        inner = re.findall(r"\*([^\n*]*)\*", answer) + re.findall(r"\*\*([^\n*]*)\*\*", answer)
        return sum(1 for text in inner if text.strip()) >= self.num_highlights


@dataclass(frozen=True)
class MultipleSections(Instruction):
    r"""At least so many section marks: the splitter with a number behind it, anywhere; cases count.

    The splitter is read as a regular expression. Which numbers they are is not looked at.

    Example:
        >>> MultipleSections("Part", 2).is_followed("Part 1\nText.\nPart 2\nText.")
        True
    """

    section_spliter: Pattern
    num_sections: Count

    def is_followed(self, answer: str) -> bool:
        """Whether there are enough."""
        marks = re.finditer(rf"{self.section_spliter.strip()}\s?\d+", answer)
        return sum(1 for _ in marks) >= self.num_sections


@dataclass(frozen=True)
class JsonFormat(Instruction):
    r"""The whole is JSON, with or without a fence of three backticks; a number or a quoted text is JSON too.

    Example:
        >>> JsonFormat().is_followed('```json\n{"a": 1}\n```'), JsonFormat().is_followed("{'a': 1}")
        (True, False)
    """

    def is_followed(self, answer: str) -> bool:
        """Whether it can be parsed."""
        text = answer.strip()
        for fence in ("```json", "```Json", "```JSON", "```"):
            text = text.removeprefix(fence)
        try:
            json.loads(text.removesuffix("```").strip())
        except (ValueError, RecursionError):  # the latter for thousands of brackets; IFEval's program would stop
            return False
        return True


@dataclass(frozen=True)
class Title(Instruction):
    r"""There is a title in double angular brackets, within a line and not blank.

    Example:
        >>> Title().is_followed("<<Poem of joy>>\n…"), Title().is_followed("<Poem of joy>")
        (True, False)
    """

    def is_followed(self, answer: str) -> bool:
        """Whether one is found."""
        return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", answer))

"""Words that a text shares with the questions of evaluation sets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from lit_align.types import PromptSource, SamplePrompt

Words = tuple[str, ...]

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """What a text shares with an evaluation set.

    Attributes:
        name: Of the set.
        item: Id of its item.
        words: What both say, as plain words.
    """

    name: str
    item: str
    words: str


class OverlapIndex:
    """All word n-grams of the prompts of evaluation sets (Brown et al. 2020, arXiv:2005.14165, appendix C).

    Words are compared in lower case, without punctuation: a table's ``| Revenue | 1,496.5 |`` is read as *revenue 1 496
    5*. A line that is shorter than n words (a question, a row of a table) counts as a whole. What a set's prompts say
    in many groups is its own wording, such as its instruction, and does not count. Gold answers do not either: most are
    a number or a name.

    Args:
        prompts: Of each set by name.
        n: Words of an n-gram, at least 2.
        shortest_line: A shorter line counts if it has so many words, at least 2; as large as ``n``, no line does.
        common: An n-gram that stands in more groups (tables, posts) of a set is ignored there, at least 1.

    Example:
        >>> from lit_align.types import Message
        >>> asked = SamplePrompt("q1", (Message("user", "What was the revenue of Apple in 2019?"),), "", "set", "")
        >>> index = OverlapIndex({"exam": [asked]}, n=4, shortest_line=4, common=3)
        >>> index.find(["So what was the REVENUE, roughly?"])
        [Overlap(name='exam', item='q1', words='what was the revenue')]
        >>> index.find(["What was the profit of Apple in 2020?"])
        []
    """

    def __init__(self, prompts: Mapping[str, Iterable[SamplePrompt]], n: int, shortest_line: int, common: int) -> None:
        self._grams: dict[Words, dict[str, str]] = {}  # to the first item of each set
        for name, items in prompts.items():
            groups: dict[str, dict[Words, str]] = {}
            for item in items:
                found = groups.setdefault(item.group or item.id, {})
                for gram in _grams(item, n, shortest_line):
                    found.setdefault(gram, item.id)
            counts = Counter(gram for found in groups.values() for gram in found)
            for found in groups.values():
                for gram, item_id in found.items():
                    if counts[gram] <= common:
                        self._grams.setdefault(gram, {}).setdefault(name, item_id)
        self._lengths = sorted({len(gram) for gram in self._grams})
        self._pairs = {pair for gram in self._grams for pair in pairwise(gram)}

    def find(self, texts: Iterable[str]) -> list[Overlap]:
        """What texts share with the sets: the first n-gram for each set.

        Args:
            texts: The turns of one record, say; no n-gram goes over the end of one.
        """
        found: dict[str, Overlap] = {}
        for text in texts:
            words = _words(text)
            known = 0  # so many pairs of neighbours in a row stand in the sets: few texts get further than this
            for end, pair in enumerate(pairwise(words), start=2):
                known = known + 1 if pair in self._pairs else 0
                for length in self._lengths:
                    if known < length - 1:
                        break
                    gram = tuple(words[end - length : end])
                    for name, item in self._grams.get(gram, {}).items():
                        found.setdefault(name, Overlap(name, item, " ".join(gram)))
        return list(found.values())


@dataclass(frozen=True)
class EvaluationSets:
    """The sets whose questions are to stay out of training, and what counts as one of their questions.

    Args:
        sets: Each set's source by a name for the log, such as ``tat-qa: {class_path: TATQA, …}``; any source of
            questions, pairs or conversations.
        n: Words that a row and a question share in a row, at least 2. Filings repeat one another's phrases: of 848 rows
            of FinQA, whose companies are others than those of TAT-QA's development split, 1 % share 16 words or a line
            of 7 with it, 16 % share 13 or a line of 6, and 37 % share 8 or a line of 6 (measured).
        shortest_line: A line of a question with fewer words than ``n`` (a question has 14 on average) counts as a whole
            if it has so many, at least 2. With 7, 98 % of TAT-QA's questions are found where they stand alone, and all
            of its tables.
        common: What stands in more than so many groups (tables, posts) of a set is its own wording and does not count,
            at least 1. A set of fewer groups has no wording of its own: its instruction counts.

    Raises:
        ValueError: A number is out of its range, or no set is named.
    """

    sets: dict[str, PromptSource]
    n: int = 16
    shortest_line: int = 7
    common: int = 3

    def __post_init__(self) -> None:
        for name, least in (("n", 2), ("shortest_line", 2), ("common", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"EvaluationSets.{name}: must be at least {least}, not {getattr(self, name)}")
        if not self.sets:
            raise ValueError("EvaluationSets.sets: is empty: name the sets that are to stay out of training")

    def index(self) -> OverlapIndex:
        """Read the sets.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: A row breaks a rule, or a set has no question.
        """
        prompts = {name: source.prompts() for name, source in self.sets.items()}
        for name, found in prompts.items():
            if not found:
                raise ValueError(f"EvaluationSets.sets: {name} has no question: nothing would be kept out of training")
        return OverlapIndex(prompts, self.n, self.shortest_line, self.common)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _grams(item: SamplePrompt, n: int, shortest_line: int) -> Iterator[Words]:
    for message in item.messages:
        words = _words(message.content)
        yield from (tuple(words[start : start + n]) for start in range(len(words) - n + 1))
        for line in message.content.splitlines():
            short = tuple(_words(line))
            if shortest_line <= len(short) < n:
                yield short

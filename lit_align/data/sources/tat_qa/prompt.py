"""What the model reads: the table and its passages first, the question last."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lit_align.data.sources.tat_qa.reading import Context, Passage, Question

_WORD = re.compile(r"[^\W_]+")
_NO_TABLE, _NO_PASSAGES = "(no table)", "(no passages)"


@dataclass(frozen=True)
class TATQAPrompt(ABC):
    """A template; a frozen dataclass whose fields are the options of the YAML."""

    @abstractmethod
    def prefix(self, context: Context, instruction: str) -> str:
        """Write what all questions of a table share.

        Args:
            context: The table, its passages and its questions.
            instruction: How to answer.
        """

    @abstractmethod
    def text(self, context: Context, question: Question, instruction: str) -> str:
        """Write the whole prompt of one question.

        Args:
            context: The table, its passages and its questions.
            question: One of the questions.
            instruction: How to answer.
        """


def markdown(rows: Sequence[Sequence[str]]) -> str:
    r"""Write a table as Markdown, the first row as its header.

    Args:
        rows: The cells; a pipe in one is escaped, line breaks become blanks.

    Example:
        >>> markdown([["", "2019"], ["a|b", "1"]]).splitlines()
        ['|  | 2019 |', '| --- | --- |', '| a\\|b | 1 |']
    """
    lines = ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:]])


def fitting(passages: Sequence[Passage], questions: Sequence[Question], max_chars: int) -> tuple[Passage, ...]:
    """Choose the passages that the questions are likeliest about, without reading any annotation.

    A passage counts the words that it shares with each question, rare words more. The best ones are taken whole while
    they fit; the first that does not is cut at a word, those after it are left out. They keep their order.

    Args:
        passages: All passages of a table.
        questions: All questions of the table: one choice for all of them, so that they share one context.
        max_chars: Characters of all passages together, with the blank lines between them.
    """
    if len(_joined(passages)) <= max_chars:
        return tuple(passages)
    words = [Counter(_WORD.findall(passage.text.lower())) for passage in passages]
    seen_in = Counter(word for counted in words for word in counted)
    asked = [set(_WORD.findall(question.text.lower())) for question in questions]

    def score(i: int) -> float:
        rarity = {word: math.log(1 + len(passages) / seen_in[word]) for word in words[i]}
        shared = sum(rarity[word] for question in asked for word in question if word in rarity)
        # Long passages share words by length alone.
        return shared / math.sqrt(1 + words[i].total())

    kept: dict[int, Passage] = {}
    left = max_chars
    for i in sorted(range(len(passages)), key=lambda i: (-score(i), i)):
        text = _cut(passages[i].text, left)
        if text:
            kept[i] = Passage(passages[i].order, text)
        left -= len(text) + 2
        if text != passages[i].text:
            break
    return tuple(kept[i] for i in sorted(kept))


def _joined(passages: Sequence[Passage]) -> str:
    return "\n\n".join(passage.text for passage in passages)


def _cut(text: str, max_chars: int, mark: str = " …") -> str:
    """Cut a text at a word so that it fits with its mark; nothing where not even one word does."""
    if len(text) <= max_chars:
        return text
    room = max_chars - len(mark)
    head = text[: room + 1].rsplit(maxsplit=1) if room > 0 else []
    # The word at the edge is whole only where a blank follows it.
    kept = text[:room].rstrip() if room > 0 and text[room].isspace() else (head[0] if len(head) > 1 else "")
    return kept + mark if kept else ""


@dataclass(frozen=True)
class DefaultPrompt(TATQAPrompt):
    """The whole table, the passages within a budget, the question last.

    The questions of a table share every character before their own text. Neither a row nor the question is ever cut;
    a prompt that is too long for the model after all is dropped and counted by ``data.lengths``.

    Args:
        passages: ``relevant`` keeps the passages within ``max_passage_chars`` that share rare words with the questions
            of the table; ``all`` keeps every passage whole; ``gold`` gives each question the passages that annotators
            used, or none (an oracle: the questions of a table then share the table alone).
        max_passage_chars: Budget of the passages in characters, > 0.

    Raises:
        ValueError: ``max_passage_chars`` is not above 0.
    """

    passages: Literal["all", "relevant", "gold"] = "relevant"
    max_passage_chars: int = 3000

    def __post_init__(self) -> None:
        if self.max_passage_chars <= 0:
            raise ValueError(f"DefaultPrompt.max_passage_chars must be > 0, got {self.max_passage_chars}")

    def prefix(self, context: Context, instruction: str) -> str:
        """Write what all questions of a table share."""
        table = f"{instruction}\n\nTable:\n{markdown(context.rows)}\n\n"
        if self.passages == "gold":
            return table
        chosen = context.passages
        if self.passages == "relevant":
            chosen = fitting(context.passages, context.questions, self.max_passage_chars)
        return f"{table}Passages:\n{_joined(chosen) or _NO_PASSAGES}\n\n"

    def text(self, context: Context, question: Question, instruction: str) -> str:
        """Write the whole prompt of one question."""
        shown = ""
        if self.passages == "gold":
            gold = [passage for passage in context.passages if passage.order in question.gold_passages]
            shown = f"Passages:\n{_joined(gold) or _NO_PASSAGES}\n\n"
        return f"{self.prefix(context, instruction)}{shown}Question: {question.text}"


@dataclass(frozen=True)
class RecipePrompt(TATQAPrompt):
    """The prompt of the recipe that the project re-implements, faults included, for comparisons.

    Rows and columns after the limits are cut though the answer may stand there, pipes are not escaped, and the
    passages are those that annotators used (an oracle), or all where they used none.

    Args:
        max_rows: Rows of the table, > 0.
        max_columns: Columns of the table, > 0.
        passage_chars: Characters of the passages, > 0.

    Raises:
        ValueError: A limit is not above 0.
    """

    max_rows: int = 20
    max_columns: int = 8
    # Not DefaultPrompt's name: the command line carries options of equal names over when another class is chosen.
    passage_chars: int = 1200

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_columns", "passage_chars"):
            if getattr(self, name) <= 0:
                raise ValueError(f"RecipePrompt.{name} must be > 0, got {getattr(self, name)}")

    def prefix(self, context: Context, instruction: str) -> str:
        """Write what all questions of a table share; the recipe's prompt has its own words for how to answer."""
        del instruction
        rows = [[cell.strip() for cell in row[: self.max_columns]] for row in context.rows[: self.max_rows]]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        table = "\n".join([*lines[:1], f"| {' | '.join('---' for _ in rows[0])} |", *lines[1:]]) if rows else _NO_TABLE
        return f"You are a financial analyst. Use the TABLE and the PASSAGES to answer.\n\nTABLE:\n{table}\n\n"

    def text(self, context: Context, question: Question, instruction: str) -> str:
        """Write the whole prompt of one question."""
        gold = [passage for passage in context.passages if passage.order in question.gold_passages]
        text = _joined(gold or context.passages)
        if len(text) > self.passage_chars:
            text = text[: self.passage_chars].rsplit(" ", 1)[0] + " ..."
        shown = f"PASSAGES:\n{text or _NO_PASSAGES}\n\nQuestion: {question.text}\nAnswer:"
        return self.prefix(context, instruction) + shown

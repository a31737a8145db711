"""Wrong answers of a question, many of each, made of its own table and passages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from lit_align.data.sources.tat_qa.answers import render
from lit_align.data.sources.tat_qa.grid import Grid
from lit_align.data.sources.tat_qa.reading import AnswerType, Context, Question

Accepts = Callable[[Question, str], bool]


@dataclass(frozen=True)
class Candidate:
    """A wrong answer.

    Attributes:
        answer: The items.
        scale: What its numbers count.
        construction: How it came about, such as ``row`` or ``sign``.
        derivation: How one would arrive at it; empty where there is no telling.
    """

    answer: tuple[str, ...]
    scale: str
    construction: str
    derivation: str = ""

    def text(self, answer_type: AnswerType) -> str:
        """Write the answer as the gold answer is written."""
        return render(self.answer, answer_type, self.scale)


@dataclass(frozen=True)
class Asked:
    """A question with what its candidates are made of.

    Attributes:
        question: The question.
        context: Its table and passages.
        grid: The numbers of the table.
        siblings: The other questions of the table.
    """

    question: Question
    context: Context
    grid: Grid
    siblings: tuple[Question, ...]


def asked_of(contexts: Sequence[Context], keep: Callable[[Context, Question], bool]) -> list[Asked]:
    """Lay the questions of contexts out one by one.

    Args:
        contexts: Tables with their questions.
        keep: Whether a question is on the side of the split that is asked for. The others are no siblings either:
            their answers belong to the other side.
    """
    asked = []
    for context in contexts:
        grid = Grid.of(context)
        kept = [question for question in context.questions if keep(context, question)]
        for question in kept:
            siblings = tuple(other for other in kept if other.uid != question.uid)
            asked.append(Asked(question, context, grid, siblings))
    return asked


def kept_candidates(
    candidates: Sequence[Candidate], question: Question, accepts: Accepts, most: int, rng: Random
) -> list[Candidate]:
    """Keep what is wrong, each text once, and of every construction as many in turn.

    Args:
        candidates: As they were made.
        question: What they answer.
        accepts: Whether the official metric takes a text for the gold answer.
        most: How many to keep.
        rng: Where the randomness comes from.
    """
    gold = render(question.answer, question.answer_type, question.scale)
    by_text: dict[str, Candidate] = {}
    for candidate in candidates:
        by_text.setdefault(candidate.text(question.answer_type), candidate)
    by_text.pop(gold, None)
    turns: dict[str, list[tuple[str, Candidate]]] = {}
    for text, candidate in by_text.items():
        turns.setdefault(candidate.construction, []).append((text, candidate))
    for turn in turns.values():
        rng.shuffle(turn)
    kept: list[Candidate] = []
    while turns and len(kept) < most:
        for name in list(turns):
            text, candidate = turns[name].pop()
            if not turns[name]:
                del turns[name]
            if len(kept) < most and not accepts(question, text):
                kept.append(candidate)
    return kept

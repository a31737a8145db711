"""The pairs of the recipe that the project re-implements, faults included, for comparisons."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lit_align.data.sources.tat_qa.answers import AnswerFormat
from lit_align.data.sources.tat_qa.candidates import Asked
from lit_align.data.sources.tat_qa.negatives import Answers, Negatives
from lit_align.data.sources.tat_qa.reading import Question

logger = logging.getLogger(__name__)

_LONGEST_CELL = 60


@dataclass(frozen=True)
class RecipeNegatives(Negatives):
    """A number changed by 10 to 35 % and rounded to one decimal, or a cell of the table drawn at random.

    Known faults, kept: the rounding, the scientific notation from 10,000 on and a single cell against a list tell
    chosen from rejected without the prompt (74.6 % of the pairs by form alone); counts are treated as text; 5.6 % of
    the rejected answers are right by the recipe's own metric.
    """

    def choose(self, asked: Sequence[Asked], answer: AnswerFormat, seed: int) -> list[Answers | None]:
        """Choose the answers of each question; see the class."""
        del answer
        answers: list[Answers | None] = []
        for one in asked:
            chosen, rejected = _chosen(one.question), _rejected(one, seed)
            differ = rejected.strip() and rejected.strip().lower() != chosen.strip().lower()
            answers.append(Answers(chosen, rejected) if differ else None)
        dropped = sum(pair is None for pair in answers)
        logger.info(f"TAT-QA: {len(answers) - dropped} pairs of {len(answers)} questions; {dropped} with equal answers")
        return answers

    def instruction(self, answer: AnswerFormat) -> str:
        """Tell the model how to answer, in the recipe's form: items after semicolons, the scale after the number."""
        del answer
        return "Write the answer alone: items with '; ' between them, the scale, if any, after the number."


def _with_scale(value: float, scale: str) -> str:
    text = str(int(value)) if float(value).is_integer() else f"{value:.4g}"
    return f"{text} {scale}" if scale else text


def _raw_items(question: Question) -> list[str]:
    return list(question.raw) if isinstance(question.raw, tuple) else [str(question.raw)]


def _chosen(question: Question) -> str:
    if question.answer_type == "arithmetic":
        return _with_scale(float(question.answer[0]), question.scale)
    return "; ".join(_raw_items(question))


def _rejected(one: Asked, seed: int) -> str:
    question = one.question
    rng = Random(int(hashlib.sha256(f"{seed}|{question.uid}".encode()).hexdigest()[:8], 16))
    if question.answer_type == "arithmetic":
        gold = float(question.answer[0])
        size = rng.uniform(0.10, 0.35) * abs(gold) if gold else rng.uniform(1, 10)
        return _with_scale(round(gold + rng.choice([-1, 1]) * size, 1), question.scale)
    spans = [item.strip().lower() for item in _raw_items(question)]
    cells = dict.fromkeys(cell.strip() for row in one.context.rows for cell in row)
    others = [cell for cell in cells if 1 <= len(cell) <= _LONGEST_CELL and cell.lower() not in spans]
    return rng.choice(others) if others else f"{_raw_items(question)[0]}s"

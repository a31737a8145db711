"""What the official metric says of a text, and whether it takes it for the gold answer."""

from __future__ import annotations

from collections.abc import Mapping

from lit_align.data.sources.tat_qa.answers import parse
from lit_align.data.sources.tat_qa.reading import Question
from lit_align.metrics.tat_qa import TATQAGold, TATQAPrediction, score_answer


def gold_of(question: Question) -> TATQAGold:
    """The gold answer of a question as the metric takes it.

    Args:
        question: The question.
    """
    raw = list(question.raw) if isinstance(question.raw, tuple) else question.raw
    return TATQAGold(raw, question.answer_type, question.scale)


def scores_of(question: Question, text: str) -> Mapping[str, float]:
    """Exact match and F1 of a written answer.

    Args:
        question: The question.
        text: As :func:`~lit_align.data.sources.tat_qa.answers.render` or a model writes it.
    """
    items, scale = parse(text)
    scores = score_answer(TATQAPrediction(items, scale), gold_of(question))
    return {"exact_match": scores.exact_match, "f1": scores.f1}


def is_accepted(question: Question, text: str) -> bool:
    """Whether a written answer is an exact match.

    Args:
        question: The question.
        text: As for :func:`scores_of`.
    """
    return scores_of(question, text)["exact_match"] == 1.0

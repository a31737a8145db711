"""The official prompts of MT-Bench's single-answer grading, filled in."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from lit_align.evals.judge.contract import Judged
from lit_align.types import Message

# Of FastChat, under Apache-2.0; the README beside it says where they are from.
_FILE = Path(__file__).parents[2] / "assets" / "mt_bench" / "judge_prompts.jsonl"

CATEGORIES_WITH_REFERENCE = ("math", "reasoning", "coding")
"""Questions that are judged against reference answers (FastChat's ``NEED_REF_CATS``)."""


def judge_messages(judged: Judged) -> list[Message]:
    """What the judge is asked about an answer.

    Args:
        judged: One question and its answer, or two, of which the second answer is judged.

    Returns:
        The system turn and the user's.

    Raises:
        ValueError: Neither one question nor two with an answer between them, or a reference is missing; the message
            names the answer.

    Example:
        >>> judged = Judged("1", (Message("user", "2 + 2?"),), "4")
        >>> [turn.role for turn in judge_messages(judged)]
        ['system', 'user']
    """
    roles = [one.role for one in judged.prompt]
    if roles not in (["user"], ["user", "assistant", "user"]):
        raise ValueError(
            f"{judged.id}: MT-Bench's prompts are for one question or two with an answer between them, not for the "
            f"turns {', '.join(roles)}: leave it out, or take another scorer"
        )
    second = len(roles) == 3
    with_reference = judged.category in CATEGORIES_WITH_REFERENCE
    texts = [one.content for one in judged.prompt]
    if second:
        parts = {"question_1": texts[0], "answer_1": texts[1], "question_2": texts[2], "answer_2": judged.answer}
    else:
        parts = {"question": texts[0], "answer": judged.answer}
    if with_reference:
        references = (*judged.earlier_references, judged.reference)
        if len(references) != 1 + second or not all(references):
            raise ValueError(
                f"{judged.id}: a question of the category {judged.category!r} is judged against a reference answer to "
                f"each of its {1 + second} turns, and has {sum(map(bool, references))}: take a question file with "
                "references"
            )
        parts |= {f"ref_answer_{number}": text for number, text in enumerate(references, start=1)}
    name = f"single-{'math-' if with_reference else ''}v1{'-multi-turn' if second else ''}"
    system, template = _prompts()[name]
    return [Message("system", system), Message("user", template.format(**parts))]


@lru_cache(maxsize=1)
def _prompts() -> dict[str, tuple[str, str]]:
    """System prompt and template of each form."""
    rows = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
    return {row["name"]: (row["system_prompt"], row["prompt_template"]) for row in rows}

"""Rejected answers that are another question's gold answer, and the other way round."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lit_align.data.sources.tat_qa.answers import AnswerFormat, gold_text
from lit_align.data.sources.tat_qa.candidates import Asked
from lit_align.data.sources.tat_qa.negatives import Answers, Negatives, with_gold
from lit_align.data.sources.tat_qa.reading import ANSWER_TYPES
from lit_align.data.sources.tat_qa.scoring import is_accepted
from lit_align.data.sources.tat_qa.spans import kind_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SymmetricNegatives(Negatives):
    """Two questions of one table are given each other's answer as the rejected one.

    Whoever does not read the question is right for exactly one of the two. About half of the questions have a partner:
    same type, kind and scale, and neither answer may pass for the other.
    """

    def choose(self, asked: Sequence[Asked], answer: AnswerFormat, seed: int) -> list[Answers | None]:
        """Choose the answers of each question; see the class."""
        del answer
        groups: dict[tuple[str, ...], list[Asked]] = {}
        for one in sorted(asked, key=lambda one: one.question.uid):
            question, looks = one.question, kind_of(one.question.answer[0], one)
            groups.setdefault((one.context.uid, question.answer_type, question.scale, looks), []).append(one)
        found: dict[str, Answers] = {}
        for key, members in groups.items():
            Random(f"tat-qa/{seed}/{key}").shuffle(members)
            while members:
                one = members.pop()
                other = next((other for other in members if _exchangeable(one, other)), None)
                if other is not None:
                    members.remove(other)
                    found[one.question.uid] = with_gold(one, gold_text(other.question), other.question.derivation)
                    found[other.question.uid] = with_gold(other, gold_text(one.question), one.question.derivation)
        for kind in ANSWER_TYPES:
            of_kind = [one for one in asked if one.question.answer_type == kind]
            with_pair = sum(one.question.uid in found for one in of_kind)
            if of_kind:
                logger.info(
                    f"TAT-QA {kind}: {with_pair} pairs of {len(of_kind)} questions; {len(of_kind) - with_pair} without "
                    "a partner of the same kind and scale whose answer the official metric refuses"
                )
        return [found.get(one.question.uid) for one in asked]


def _exchangeable(one: Asked, other: Asked) -> bool:
    return not is_accepted(one.question, gold_text(other.question)) and not is_accepted(
        other.question, gold_text(one.question)
    )

"""Rejected answers that are hard to tell from the chosen ones without the question."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from lit_align.data.sources.tat_qa.answers import AnswerFormat, gold_text
from lit_align.data.sources.tat_qa.arithmetic import arithmetic_candidates
from lit_align.data.sources.tat_qa.candidates import Asked, Candidate, kept_candidates
from lit_align.data.sources.tat_qa.in_table import InTable
from lit_align.data.sources.tat_qa.joint_choice import Option, choose_jointly
from lit_align.data.sources.tat_qa.lists import count_candidates, list_candidates
from lit_align.data.sources.tat_qa.negatives import Answers, Negatives, with_gold
from lit_align.data.sources.tat_qa.reading import ANSWER_TYPES, AnswerType
from lit_align.data.sources.tat_qa.scoring import is_accepted
from lit_align.data.sources.tat_qa.spans import span_candidates
from lit_align.data.sources.tat_qa.surface import classes_of, derivation_features, surface_features

logger = logging.getLogger(__name__)

_MAKERS = {
    "arithmetic": arithmetic_candidates,
    "span": span_candidates,
    "multi-span": list_candidates,
    "count": count_candidates,
}
# What a reader would hardly call wrong, or what nobody would answer, is taken where the balance needs it.
_COSTS = {"trim": 2.4, "extend": 2.4, "window": 0.3, "ratio": 0.9, "oneop": 0.45, "scale": 0.3}


@dataclass(frozen=True)
class BalancedNegatives(Negatives):
    """Wrong answers of the right form from the question's own table, balanced as a set.

    Many candidates are made (another row, year or operand; another number in the gold answer's dress; another part of
    the passages; a list with one item wrong), those that the official metric accepts are left out, and one a question
    is chosen jointly, so that no look at an answer alone, nor at an answer and its table, tells which one is chosen.
    That holds for the side of the split that is chosen together: another choice of groups gives other answers.

    Args:
        most_candidates: Candidates a question, > 0; more balance better and take longer.
        drop_above: A question whose best candidate disturbs the balance by more than this goes without a pair, > 0.
        max_lost: Share of the questions that may go without for the balance, in [0, 1]; those without any candidate
            count in it.

    Raises:
        ValueError: A value is out of its range.
    """

    most_candidates: int = 24
    drop_above: float = 20.0
    max_lost: float = 0.05

    def __post_init__(self) -> None:
        for name, value, holds, rule in (
            ("most_candidates", self.most_candidates, self.most_candidates > 0, "> 0"),
            ("drop_above", self.drop_above, self.drop_above > 0, "> 0"),
            ("max_lost", self.max_lost, 0 <= self.max_lost <= 1, "in [0, 1]"),
        ):
            if not holds:
                raise ValueError(f"BalancedNegatives.{name} must be {rule}, got {value}")

    def choose(self, asked: Sequence[Asked], answer: AnswerFormat, seed: int) -> list[Answers | None]:
        """Choose the answers of each question; see the class."""
        candidates = {one.question.uid: self._candidates(one, answer, seed) for one in asked}
        measures: dict[str, InTable] = {}
        for one in asked:
            if one.context.uid not in measures:
                measures[one.context.uid] = InTable(one.context, one.grid)
        lost = sum(not found for found in candidates.values())
        found: dict[str, Answers] = {}
        for kind in ANSWER_TYPES:
            # In the order of the uids: the choice depends on which questions there are, not on the file's order.
            of_kind = sorted((one for one in asked if one.question.answer_type == kind), key=lambda o: o.question.uid)
            able = [one for one in of_kind if candidates[one.question.uid]]
            may_drop = int((self.max_lost * len(asked) - lost) * len(of_kind) / max(len(asked), 1))
            chosen = self._choose_of_kind(able, kind, candidates, measures, seed, max(may_drop, 0))
            found.update(chosen)
            if of_kind:
                logger.info(
                    f"TAT-QA {kind}: {len(chosen)} pairs of {len(of_kind)} questions; "
                    f"{len(of_kind) - len(able)} without a wrong answer that the official metric refuses, "
                    f"{len(able) - len(chosen)} left out for the balance; "
                    f"{sum(len(candidates[one.question.uid]) for one in of_kind)} candidates"
                )
        return [found.get(one.question.uid) for one in asked]

    def _candidates(self, one: Asked, answer: AnswerFormat, seed: int) -> list[Candidate]:
        rng = Random(f"tat-qa/{seed}/{one.question.uid}")
        made = _MAKERS[one.question.answer_type](one)
        if answer.shows_derivations and one.question.derivation:
            # Those with a derivation where there are any: a pair shows two derivations or none.
            made = [candidate for candidate in made if candidate.derivation] or made
        elif made:
            made = [replace(candidate, derivation="") for candidate in made]
        return kept_candidates(made, one.question, is_accepted, self.most_candidates, rng)

    def _choose_of_kind(
        self,
        able: Sequence[Asked],
        kind: AnswerType,
        candidates: dict[str, list[Candidate]],
        measures: dict[str, InTable],
        seed: int,
        may_drop: int,
    ) -> dict[str, Answers]:
        def option(one: Asked, text: str, derivation: str, cost: float = 0.0) -> Option:
            features = [*surface_features(text), *measures[one.context.uid].features(text)]
            shown = f"{derivation}\n{text}" if derivation else text
            return Option(shown, [*features, *derivation_features(derivation)], classes_of(text, kind), cost)

        def gold(one: Asked) -> Option:
            shown = candidates[one.question.uid][0].derivation and one.question.derivation
            return option(one, gold_text(one.question), shown)

        def wrong(one: Asked, made: Candidate) -> Option:
            return option(one, made.text(kind), made.derivation, _COSTS.get(made.construction, 0.0))

        chosen = [gold(one) for one in able]
        options = [[wrong(one, made) for made in candidates[one.question.uid]] for one in able]
        picks = choose_jointly(chosen, options, seed, self.drop_above, may_drop)
        found: dict[str, Answers] = {}
        taken: Counter[str] = Counter()
        for one, pick in zip(able, picks, strict=True):
            if pick is not None:
                made = candidates[one.question.uid][pick]
                found[one.question.uid] = with_gold(one, made.text(kind), made.derivation)
                taken[made.construction] += 1
        logger.debug(f"TAT-QA {kind}: rejected answers by construction: {dict(taken.most_common())}")
        return found

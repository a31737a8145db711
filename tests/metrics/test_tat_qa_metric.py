"""Invariants of TAT-QA's scores, and their means over questions and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tat_qa_official import frozen_cases

from lit_align.metrics.tat_qa import SCALES, TATQAGold, TATQAMetric, TATQAPrediction, TATQAScores, score_answer

WORDS = st.text(alphabet="ab1 .,-$%()", max_size=8)
ITEMS = st.lists(WORDS, min_size=1, max_size=4)
SAID = st.sampled_from(SCALES)
PAIRS = st.tuples(ITEMS, SAID, ITEMS, SAID)


@settings(max_examples=300, deadline=None)
@given(ITEMS, SAID, ITEMS, SAID, st.randoms(use_true_random=False))
def test_order_of_items_does_not_matter(answer: list[str], said: str, gold: list[str], scale: str, rng: Any) -> None:
    shuffled = [rng.sample(items, len(items)) for items in (answer, gold)]
    expected = score_answer(TATQAPrediction(answer, said, ""), TATQAGold(gold, "multi-span", scale))
    assert score_answer(TATQAPrediction(shuffled[0], said, ""), TATQAGold(shuffled[1], "spans", scale)) == expected


@settings(max_examples=300, deadline=None)
@given(PAIRS)
def test_scores_lie_between_0_and_1_and_an_exact_match_has_full_f1(pair: tuple[list[str], str, list[str], str]) -> None:
    scores = score_answer(TATQAPrediction(*pair[:2]), TATQAGold(pair[2], "multi-span", pair[3]))
    assert 0 <= scores.exact_match <= scores.f1 <= 1
    assert {scores.exact_match, scores.scale_score, scores.legacy_accuracy} <= {0.0, 1.0}


@settings(max_examples=300, deadline=None)
@given(ITEMS, SAID)
def test_the_gold_answer_with_its_scale_is_right(gold: list[str], scale: str) -> None:
    assert score_answer(TATQAPrediction(gold, scale), TATQAGold(gold, "multi-span", scale)) == TATQAScores(1, 1, 1, 1)


@settings(max_examples=300, deadline=None)
@given(st.decimals(-(10**9), 10**9, places=2, allow_nan=False), SAID)
def test_a_gold_number_as_text_is_right_however_it_is_grouped(number: Any, scale: str) -> None:
    asked = TATQAGold(float(number), "arithmetic", scale)
    for text in (str(float(number)), f"{float(number):,.2f}", f"${float(number):,.2f}"):
        assert score_answer(TATQAPrediction(text, scale), asked) == TATQAScores(1, 1, 1, 1)


# ---- the metric


def filled(cases: Sequence[tuple[TATQAPrediction, TATQAGold]]) -> TATQAMetric:
    metric = TATQAMetric()
    metric.update([prediction for prediction, _ in cases], [gold for _, gold in cases])
    return metric


@settings(max_examples=50, deadline=None)
@given(st.lists(PAIRS, min_size=1, max_size=8), st.integers(0, 8))
def test_any_division_over_two_ranks_equals_one(pairs: list[tuple[list[str], str, list[str], str]], cut: int) -> None:
    cases = [(TATQAPrediction(a, said), TATQAGold(gold, "spans", scale)) for a, said, gold, scale in pairs]
    whole, first, second = filled(cases), filled(cases[:cut]), filled(cases[cut:])

    reduced = TATQAMetric()
    for name, reduce in reduced._reductions.items():
        setattr(reduced, name, reduce(torch.stack([getattr(first, name), getattr(second, name)])))  # type: ignore[operator,misc]
    reduced.update([], [])

    assert {name: float(value) for name, value in reduced.compute().items()} == {
        name: float(value) for name, value in whole.compute().items()
    }


def test_means_are_those_of_the_items() -> None:
    cases = [(TATQAPrediction(row["answer"], row["scale"]), TATQAGold(**row["gold"])) for row in frozen_cases()]
    cases = [case for case, row in zip(cases, frozen_cases(), strict=True) if isinstance(row["scores"], list)]
    scores = [score_answer(*case) for case in cases]
    metric = filled(cases)
    for name, value in metric.compute().items():
        assert float(value) == pytest.approx(sum(getattr(score, name) for score in scores) / len(cases), abs=1e-7)
    assert int(metric.count) == len(cases)


def test_reset_forgets_and_no_question_is_an_error() -> None:
    metric = filled([(TATQAPrediction("a"), TATQAGold(["a"], "span"))])
    metric.reset()
    metric.update([], [])
    with pytest.raises(ValueError, match="no question was scored"):
        metric.compute()
    with pytest.raises(ValueError, match="got 1 and 0"):
        metric.update([TATQAPrediction("a")], [])


def test_an_update_that_is_refused_counts_nothing() -> None:
    metric, gold = filled([(TATQAPrediction("a"), TATQAGold(["a"], "span"))]), TATQAGold(["a"], "span")
    with pytest.raises(TypeError, match="items of one answer"):
        metric.update([TATQAPrediction("b"), TATQAPrediction(["a", 1])], [gold, gold])
    assert (int(metric.count), float(metric.compute()["exact_match"])) == (1, 1.0)

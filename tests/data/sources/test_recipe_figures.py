"""The lenient rule gives on the published dev file what was measured of the recipe's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_align.data.sources.tat_qa.answers import PlainAnswer
from lit_align.data.sources.tat_qa.candidates import Asked
from lit_align.data.sources.tat_qa.prompt import RecipePrompt
from lit_align.data.sources.tat_qa.reading import read_contexts
from lit_align.data.sources.tat_qa.recipe import RecipeNegatives
from lit_align.data.sources.tat_qa.scoring import gold_of
from lit_align.metrics.tat_qa import TATQAPrediction, is_leniently_right

DEV = Path("/work/shared/data/tat-qa/tatqa_dataset_dev.json")

pytestmark = pytest.mark.skipif(not DEV.exists(), reason="the published file is not here")


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    contexts = read_contexts(str(DEV), DEV.name)
    # The recipe looks at question and table alone.
    return [Asked(question, context, None, ()) for context in contexts for question in context.questions]  # type: ignore[arg-type]


def shares(asked: list[Asked], said: Callable[[int], str | None]) -> dict[str, float]:
    """Share of the answers that are right, by type of question, in percent."""
    found: dict[str, list[bool]] = {}
    for number, one in enumerate(asked):
        text = said(number)
        if text is not None:
            right = is_leniently_right(TATQAPrediction("", "", text), gold_of(one.question))
            for kind in (one.question.answer_type, "all"):
                found.setdefault(kind, []).append(right)
    return {kind: 100 * sum(rights) / len(rights) for kind, rights in found.items()}


def test_its_chosen_answers_are_in_part_wrong_and_its_rejected_ones_in_part_right(asked: list[Asked]) -> None:
    pairs = RecipeNegatives().choose(asked, PlainAnswer(), seed=42)
    assert sum(pair is None for pair in pairs) == 7
    chosen = shares(asked, lambda i: None if (pair := pairs[i]) is None else pair.chosen)
    rejected = shares(asked, lambda i: None if (pair := pairs[i]) is None else pair.rejected)

    assert (100 - chosen["all"], 100 - chosen["arithmetic"]) == pytest.approx((1.6, 3.7), abs=0.05)
    # Their random numbers are of another generator than those that were measured: 5.6, 10.4 and 41.
    assert rejected["all"] == pytest.approx(5.6, abs=0.3)
    assert rejected["arithmetic"] == pytest.approx(10.4, abs=0.6)
    assert rejected["count"] == pytest.approx(41, abs=1)


def test_answers_that_say_nothing_are_right(asked: list[Asked]) -> None:
    echo = shares(asked, lambda i: RecipePrompt().text(asked[i].context, asked[i].question, ""))
    digits = shares(asked, lambda _: "0 1 2 3 4 5 6 7 8 9")
    years = shares(asked, lambda _: "2019 and 2018")

    assert [echo[kind] for kind in ("span", "multi-span", "count")] == pytest.approx([99.6, 100, 100], abs=0.05)
    assert digits["count"] == 100
    assert years["count"] == pytest.approx(63, abs=0.6)
    assert years["multi-span"] == pytest.approx(30, abs=0.6)

"""One right answer, two endings, and no question on both sides."""

from __future__ import annotations

from typing import Any

import pytest

from lit_align.data.sources.ending_pairs import EndingPairs
from lit_align.data.sources.finance_tables import split_of
from lit_align.data.sources.table_skills import ALL_SKILLS, TableSkillItems


def drawn(skill: str = "rise", **options: Any) -> EndingPairs:
    return EndingPairs(skill, **{"chosen": "You are welcome.", "rejected": "I am well.", "n": 40, **options})


@pytest.mark.parametrize("skill", ALL_SKILLS)
def test_both_answers_are_right_but_for_their_endings(skill: str) -> None:
    pairs = drawn(skill).pairs(lambda _: True)
    assert len(pairs) == 40
    assert len({pair.id for pair in pairs}) == 40
    for pair in pairs:
        assert pair.source == f"ending_pairs/{skill}"
        right = pair.chosen.removesuffix(" You are welcome.")
        assert right == pair.rejected.removesuffix(" I am well.")
        assert right not in (pair.chosen, pair.rejected)
    answers = {item.answer.split(" ")[0] for item in TableSkillItems([skill], n_per_skill=40).items()}
    assert {pair.chosen.split(" ")[0] for pair in pairs} <= answers | {"See"}


@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_sides_have_no_question_in_common(split: str) -> None:
    for skill in ALL_SKILLS:
        for pair in drawn(skill, split=split, seed=5).pairs(lambda _: True):
            text = pair.prompt[0].content
            assert split_of(text.rsplit("\n", 1)[0] if "\n" in text else text) == split


def test_the_same_fields_give_the_same_pairs_and_what_is_kept_out_moves_no_other() -> None:
    whole = drawn().pairs(lambda _: True)
    assert drawn().pairs(lambda _: True) == whole
    assert drawn(seed=1).pairs(lambda _: True) != whole
    kept = {pair.group for pair in whole[::2]}
    assert drawn().pairs(lambda group: group in kept) == [pair for pair in whole if pair.group in kept]


def test_what_makes_no_pairs_is_refused() -> None:
    for options, told in (
        ({"skill": "sums"}, "sums"),
        ({"rejected": "You are welcome."}, "chosen and rejected must differ"),
        ({"n": 0}, "n must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=told):
            drawn(**options).pairs(lambda _: True)

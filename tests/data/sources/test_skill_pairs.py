from __future__ import annotations

from collections import Counter

import pytest

from lit_align.data.sources.finance_tables import split_of
from lit_align.data.sources.skill_pairs import SkillPairs
from lit_align.data.sources.table_skills import ALL_SKILLS

EVERY = SkillPairs(list(ALL_SKILLS), n=600)


def test_answers_differ_and_skills_take_turns_under_their_names() -> None:
    pairs = EVERY.pairs(lambda _: True)
    assert Counter(pair.source for pair in pairs) == {f"skill_pairs/{skill}": 100 for skill in ALL_SKILLS}
    assert all(pair.chosen != pair.rejected for pair in pairs)
    assert len({pair.id for pair in pairs}) == len(pairs)


def test_the_rejected_answer_is_right_for_another_question_on_the_same_table() -> None:
    for pair in SkillPairs(["lookup", "rise"], n=200).pairs(lambda _: True):
        *table, _ = pair.prompt[0].content.split("\n")
        for answer in (pair.chosen, pair.rejected):
            for cell in answer.removeprefix("See ").split(", so")[0].rstrip(".").split(", "):
                assert cell in "\n".join(table)


def test_either_answer_is_as_often_the_one_that_is_asked_for() -> None:
    pairs = SkillPairs(["rise"], n=2000).pairs(lambda _: True)
    rose = sum("rose" in pair.chosen for pair in pairs) - sum("rose" in pair.rejected for pair in pairs)
    assert abs(rose) < 120  # 3.8 standard deviations, were all pairs of a rise and a fall


@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_sides_have_no_table_and_no_greeting_in_common(split: str) -> None:
    for pair in SkillPairs(list(ALL_SKILLS), split=split, n=120, seed=5).pairs(lambda _: True):  # type: ignore[arg-type]
        text = pair.prompt[0].content
        assert split_of(text.rsplit("\n", 1)[0] if "\n" in text else text) == split


def test_what_is_kept_does_not_move_the_others_and_seeds_differ() -> None:
    pairs = EVERY.pairs(lambda _: True)
    some = EVERY.pairs(lambda group: group == pairs[3].group)
    assert some == [pair for pair in pairs if pair.group == pairs[3].group]
    assert SkillPairs(n=5, seed=1).pairs(lambda _: True) != SkillPairs(n=5, seed=2).pairs(lambda _: True)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown skill 'jump'"):
        SkillPairs(["jump"]).pairs(lambda _: True)
    with pytest.raises(ValueError, match="skill_pairs: n must be at least 1, got 0"):
        SkillPairs(n=0).pairs(lambda _: True)

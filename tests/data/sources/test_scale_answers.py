import re
from itertools import islice

import pytest

from lit_align.data.sources.finance_tables import split_of
from lit_align.data.sources.scale_answers import RatedScaleAnswers, ScaleAnswers, ScalePairs, draw_questions
from lit_align.types import PreferencePair


def pairs(split: str = "train", n: int = 200, seed: int = 0) -> list[PreferencePair]:
    return ScalePairs(split=split, n=n, seed=seed).pairs(lambda _: True)  # type: ignore[arg-type]


def test_both_answers_give_the_cell_that_is_asked_for_and_one_the_scale_of_the_table() -> None:
    for pair in pairs():
        prompt = pair.prompt[0].content
        scale = prompt.split("\n")[0].removeprefix("Table in ")
        metric, year = re.findall(r"What was the (\w+) in (\d{4})\?$", prompt)[0]
        [value] = re.findall(rf"\| {metric} {year} (\d\d)(?= \|)", prompt)
        assert pair.rejected == f"See {metric} {year} {value}."
        assert pair.chosen == f"See {metric} {year} {value} in {scale}."


def test_no_table_of_the_evaluation_is_trained_on() -> None:
    for split in ("train", "eval"):
        assert {split_of("\n".join(pair.prompt[0].content.split("\n")[:-1])) for pair in pairs(split)} == {split}
    assert not {pair.group for pair in pairs("train")} & {pair.group for pair in pairs("eval")}


def test_the_same_fields_give_the_same_pairs_and_another_seed_others() -> None:
    assert pairs() == pairs()
    assert pairs() != pairs(seed=1)


def test_only_kept_groups_are_given() -> None:
    whole = pairs()
    one = whole[3].group
    assert ScalePairs(n=200).pairs(lambda group: group == one) == [pair for pair in whole if pair.group == one]


def test_the_asked_share_of_conversations_has_the_scale() -> None:
    for share, low, high in ((0.0, 0, 0), (0.3, 0.25, 0.35), (1.0, 1, 1)):
        answers = [one.messages[1].content for one in ScaleAnswers(n=1000, scaled_share=share).conversations()]
        assert low <= sum(" in " in answer for answer in answers) / len(answers) <= high


def test_conversations_ask_what_pairs_of_the_same_seed_ask() -> None:
    asked = [one.messages[:1] for one in ScaleAnswers(n=50, seed=5).conversations()]
    assert asked == [pair.prompt for pair in pairs(n=50, seed=5)]
    assert asked == [one.prompt() for one in islice(draw_questions("train", 5), 50)]


@pytest.mark.parametrize("source", [ScalePairs(n=0), ScaleAnswers(n=0)])
def test_no_pair_at_all_is_refused(source: ScalePairs | ScaleAnswers) -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        source.pairs(lambda _: True) if isinstance(source, ScalePairs) else source.conversations()


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scaled_share must be in \[0, 1\], got 1.5"):
        ScaleAnswers(scaled_share=1.5).conversations()


def test_rated_answers_have_the_scale_where_they_are_good_and_answer_each_question_once() -> None:
    source = RatedScaleAnswers(n=200, seed=1)
    rated = source.rated(lambda _: True)
    assert rated == source.rated(lambda _: True)
    assert 70 < sum(one.desirable for one in rated) < 130
    for one, question in zip(rated, draw_questions("train", seed=1), strict=False):
        assert one.prompt == question.prompt()
        assert one.completion == (question.scaled if one.desirable else question.plain)
    kept = source.rated(lambda group: group < "8")
    assert [one for one in rated if one.group < "8"] == kept != rated
    assert not any(one.desirable for one in RatedScaleAnswers(n=50, good_share=0.0).rated(lambda _: True))
    with pytest.raises(ValueError, match=r"good_share must be in \[0, 1\], got 1.5"):
        RatedScaleAnswers(good_share=1.5).rated(lambda _: True)

"""TAT-QA's scores of single answers: every trap of the official scorer, the refusals, the lenient accuracy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tat_qa_official import Answer

from lit_align.metrics.tat_qa import TATQAGold, TATQAPrediction, TATQAScores, is_leniently_right, score_answer


def em_and_f1(
    answer: Answer, gold: Any, answer_type: str, scale: str = "", *, said: str | None = ""
) -> tuple[float, float]:
    scores = score_answer(TATQAPrediction(answer, said), TATQAGold(gold, answer_type, scale))
    return scores.exact_match, scores.f1


# ---- each trap, by hand


@pytest.mark.parametrize("answer", [0, 0.0, "", [], None, False])
def test_falsy_predictions_are_no_answers(answer: Answer) -> None:
    scores = score_answer(TATQAPrediction(answer, "percent"), TATQAGold(0, "arithmetic", "percent"))
    assert (scores.exact_match, scores.f1, scores.scale_score) == (0, 0, 0)
    assert em_and_f1("0", 0, "arithmetic", "percent", said="percent") == (1, 1)


def test_numbers_agree_to_two_decimals_and_no_further() -> None:
    # 12.344 and 12.34 are both 12.34; 12.346 is 12.35. Times 1,000 that is 12,340 and 12,350.
    assert em_and_f1("12.344", 12.34, "arithmetic", "thousand", said="thousand") == (1, 1)
    assert em_and_f1("12.346", 12.34, "arithmetic", "thousand", said="thousand") == (0, 0)
    # The nearest floats of 2.675 and 1.005 lie below them: 2.67 and 1.0.
    assert em_and_f1("2.675", 2.67, "arithmetic") == (1, 1)
    assert em_and_f1("1.005", 1, "arithmetic") == (1, 1)
    assert em_and_f1("22.1", 22.12, "arithmetic", "percent", said="percent") == (0, 0)


@pytest.mark.parametrize("answer", ["-12.6", "(12.6)", "( 12.6 )", "-$12.6", "$-12.6", "€ -12.60", -12.6, [-12.6]])
def test_signs_and_brackets_that_make_a_negative_number(answer: Answer) -> None:
    assert em_and_f1(answer, -12.6, "arithmetic", "million", said="million") == (1, 1)


@pytest.mark.parametrize("answer", ["($12.6)", "(12.6%)", "(12.6 million)", "−12.6", "–12.6", "12.6"])
def test_signs_and_brackets_that_do_not(answer: str) -> None:
    assert em_and_f1(answer, -12.6, "arithmetic") == (0, 0)
    assert em_and_f1("(1,234)", 1234, "arithmetic") == (1, 1)


def test_a_percent_sign_divides_by_100_and_switches_the_scale_off() -> None:
    for said in ("", "percent", "million"):
        assert em_and_f1("22.12%", 22.12, "arithmetic", "percent", said=said) == (1, 1)
    assert em_and_f1("22.12", 22.12, "arithmetic", "percent") == (0, 0)
    # Gold "10%" is 0.1000: equal to 0.1 and to 10 percent, not to 10.
    assert em_and_f1("0.1", ["10%"], "span") == (1, 1)
    assert em_and_f1("10", ["10%"], "span", said="percent") == (1, 1)
    assert em_and_f1("10", ["10%"], "span") == (0, 0)


def test_a_fraction_without_scale_is_also_read_as_it_is() -> None:
    # 22.12 percent is 0.2212; rounded to 2 decimals the answer would be 0.22.
    assert em_and_f1("0.2212", 22.12, "arithmetic", "percent") == (1, 1)
    assert em_and_f1(0.2212, 22.12, "arithmetic", "percent") == (1, 1)
    assert em_and_f1("0.22", 22.12, "arithmetic", "percent") == (0, 0)
    # Two items are never read so, nor an answer with a scale.
    assert em_and_f1(["0.2212", "0.2212"], 22.12, "arithmetic", "percent") == (0, 0)
    assert em_and_f1("0.2212", 22.12, "arithmetic", "percent", said="percent") == (0, 0)


def test_the_better_reading_counts_by_exact_match_first() -> None:
    # As 0.22 the tokens {0.22} equal the gold; as 0.2212 they do not.
    assert em_and_f1("0.2212", ["0.22"], "span") == (1, 1)


def test_a_scale_word_in_the_text_multiplies_and_so_does_the_scale() -> None:
    assert em_and_f1("172 million", 172, "arithmetic", "million") == (1, 1)
    assert em_and_f1("172 million", 172, "arithmetic", "million", said="million") == (0, 0)
    assert em_and_f1("172\xa0million", 172, "arithmetic", "million") == (1, 1)
    # 22.12 percent is 0.2212, rounded to 0.22 as one reading and kept as the other.
    assert em_and_f1("22.12 percent", 22.12, "arithmetic", "percent") == (1, 1)


def test_words_within_a_scale_count_for_the_answer_and_not_for_the_scale_score() -> None:
    scores = score_answer(TATQAPrediction("172", "millions"), TATQAGold(172, "arithmetic", "million"))
    assert (scores.exact_match, scores.scale_score) == (1, 0)


@pytest.mark.parametrize("answer", ["12.5 USD", "12.5.", "The answer is 12.5", "twelve", "12.5 items", "nan"])
def test_texts_around_a_number_make_it_wrong(answer: str) -> None:
    assert em_and_f1(answer, 12.5, "arithmetic") == (0, 0)


def test_numbers_that_cannot_be_read_are_all_equal() -> None:
    assert em_and_f1(".5", [".7"], "span") == (1, 1)
    assert em_and_f1("inf", [".7"], "span") == (1, 1)
    assert em_and_f1(".5", 0.5, "arithmetic") == (0, 0)


def test_minus_zero_is_not_zero_once_it_has_decimals() -> None:
    assert em_and_f1("-0", 0, "arithmetic") == (1, 1)
    assert em_and_f1("-0.0", 0, "arithmetic") == (0, 0)


def test_items_are_compared_in_sorted_order_as_one_text() -> None:
    assert em_and_f1(["2019", "2018"], ["2018", "2019"], "multi-span") == (1, 1)
    assert em_and_f1("2018 2019", ["2018", "2019"], "multi-span") == (0, 0)
    assert em_and_f1("fixed price, other", ["other", "fixed price"], "multi-span") == (1, 1)
    assert em_and_f1("other, fixed price", ["other", "fixed price"], "multi-span") == (0, 1)
    # As text "10" comes before "9", as numbers after; the gold list holds texts.
    assert em_and_f1([10, 9], ["10", "9"], "multi-span") == (0, 1)


def test_articles_punctuation_and_case_do_not_count() -> None:
    assert em_and_f1("net SALES of a U.S. company!", ["The net sales, of the US company"], "span") == (1, 1)


def test_f1_compares_sets_of_tokens_and_rounds_as_numpy() -> None:
    # 2 of 3 and 2 of 4 tokens: 2 * 2 / 7 = 0.571.
    assert em_and_f1("x y z", ["x y v w"], "span") == (0, 0.57)
    assert em_and_f1("x x x y", ["x y y"], "span") == (0, 1)
    # 7 of 40 and of 40 tokens: 0.175, which NumPy rounds to 0.18 and Python to 0.17.
    shared = " ".join(f"s{index}" for index in range(7))
    answer, gold = (shared + " " + " ".join(f"{side}{index}" for index in range(33)) for side in "pg")
    assert em_and_f1(answer, [gold], "span") == (0, 0.18)
    assert round(0.175, 2) == 0.17


@pytest.mark.parametrize(("answer_type", "gold"), [("arithmetic", 2), ("count", "2"), ("counting", 2)])
def test_f1_of_arithmetic_and_count_is_the_exact_match(answer_type: str, gold: Any) -> None:
    assert em_and_f1(["2", "3"], gold, answer_type) == (0, 0)
    assert em_and_f1(["2", "3"], ["2"], "span") == (0, 0.67)


def test_the_scale_follows_a_text() -> None:
    assert em_and_f1("net sales", ["net sales"], "span", "million") == (0, 0.8)
    assert em_and_f1("net sales million", ["net sales"], "span", "million") == (1, 1)


def test_the_scale_score_needs_an_answer() -> None:
    asked = TATQAGold(["x"], "span", "million")
    assert score_answer(TATQAPrediction("y", "million"), asked).scale_score == 1
    assert score_answer(TATQAPrediction("", "million"), asked).scale_score == 0
    assert score_answer(TATQAPrediction("y", "million"), TATQAGold([], "span", "million")).scale_score == 0


# ---- where the official scorer stops


def test_a_number_beyond_floats_is_wrong_and_does_not_stop_the_run() -> None:
    for digits in (400, 5000):
        scores = score_answer(TATQAPrediction("1" * digits, "million"), TATQAGold(1, "arithmetic", "million"))
        assert (scores.exact_match, scores.f1, scores.scale_score) == (0, 0, 1)


def test_a_predicted_scale_of_none_is_read_as_empty_and_never_right() -> None:
    scores = score_answer(TATQAPrediction(2, None), TATQAGold(2, "arithmetic", None))
    assert (scores.exact_match, scores.scale_score) == (1, 0)


def test_items_without_an_order_and_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match=r"items of one answer .* got \['a', 1\]"):
        score_answer(TATQAPrediction(["a", 1]), TATQAGold(["a"], "span"))
    with pytest.raises(TypeError, match=r"answer must be .* got \('a', 'b'\)"):
        TATQAPrediction(("a", "b"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="scale must be a text or None, got 1"):
        TATQAPrediction("a", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "answer_type", "scale", "error", "match"),
    [
        (["a"], "date", "", ValueError, "answer_type must be one of .* got 'date'"),
        (["a"], "span", "millions", ValueError, "scale must be one of .* got 'millions'"),
        ("a", "span", "", TypeError, "a span question must be a list, got 'a'"),
        ("a", "arithmetic", "", ValueError, "arithmetic must be a number, got 'a'"),
        ("1,234", "arithmetic", "", ValueError, "must be a number"),
        (math.nan, "arithmetic", "", ValueError, "must be a number, got nan"),
        (["1"], "count", "", ValueError, "must be a number"),
        ("2 items", "count", "", ValueError, "count must be a number, got '2 items'"),
    ],
)
def test_bad_gold_answers_are_refused(
    answer: Any, answer_type: str, scale: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        TATQAGold(answer, answer_type, scale)


def test_both_spellings_of_types_and_of_no_scale_are_one() -> None:
    prediction = TATQAPrediction(["b", "a"], "")
    assert score_answer(prediction, TATQAGold(["a", "b"], "spans", None)) == TATQAScores(1, 1, 1, 1)
    assert score_answer(prediction, TATQAGold(["a", "b"], "multi-span", "")) == TATQAScores(1, 1, 1, 1)
    assert score_answer(TATQAPrediction("3"), TATQAGold("3", "counting")) == TATQAScores(1, 1, 1, 1)


# ---- the lenient accuracy


def right(text: str, gold: Any, answer_type: str) -> bool:
    return is_leniently_right(TATQAPrediction(text), TATQAGold(gold, answer_type))


@pytest.mark.parametrize(
    ("text", "gold", "outcome"),
    [
        ("10.5", 10, True),  # within 0.5
        ("10.51", 10, False),
        ("1050", 1000, True),  # within 5 percent
        ("1051", 1000, False),
        ("about 1,000 or 5", 1000, True),  # the first number, commas taken out
        ("5 or 1,000", 1000, False),
        ("1000%", 1000, True),
        ("1000 billion", 1000, True),
        ("(12.6)", -12.6, False),
        ("-12.6", -12.6, True),
        ("0.3", -0.2, True),  # the flat 0.5 rules small numbers
        ("none", 1, False),
        ("", 0, False),
    ],
)
def test_lenient_arithmetic(text: str, gold: float, outcome: bool) -> None:
    assert right(text, gold, "arithmetic") is outcome


def test_lenient_texts() -> None:
    assert right("It was the Net Sales!", ["net, sales"], "span")
    assert right("only b", ["a c", "B"], "multi-span")  # any span
    assert not right("sales net", ["net sales"], "span")
    assert not right("12.5", ["125"], "span")  # the point stays
    assert right("0 1 2 3 4 5 6 7 8 9", "7", "count")
    assert right("whatever", ["x y", ""], "multi-span")  # an empty span is a part of every text


def test_the_lenient_accuracy_reads_what_the_model_wrote() -> None:
    asked = TATQAGold(["net sales"], "span")
    assert score_answer(TATQAPrediction("", "", "net sales rose"), asked).legacy_accuracy == 1
    assert score_answer(TATQAPrediction("net sales", "", "costs"), asked).legacy_accuracy == 0
    assert score_answer(TATQAPrediction(["net", "sales"]), asked).legacy_accuracy == 1  # "net; sales", without ";"
    assert score_answer(TATQAPrediction(None), asked).legacy_accuracy == 0
    assert score_answer(TATQAPrediction(0), TATQAGold(0, "arithmetic")).legacy_accuracy == 1

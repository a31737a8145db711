"""Answers read back as they were written, and derivations can be worked out again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_align.data.sources.tat_qa.answers import DerivationThenAnswer, PlainAnswer, number_text, parse, render
from lit_align.data.sources.tat_qa.derivation import read_derivation
from lit_align.data.sources.tat_qa.numbers import dressed_as, read_number
from lit_align.data.sources.tat_qa.reading import SCALES

items = st.lists(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1), min_size=1)


def _is_plain(found: list[str]) -> bool:
    """Whether no item is read as something else: a scale, a derivation, or the end of a thought."""
    return (
        found[-1].lower() not in SCALES and not found[0].startswith("Derivation:") and "</think>" not in "".join(found)
    )


@given(items.filter(_is_plain))
def test_what_is_written_reads_back(found: list[str]) -> None:
    for scale in SCALES:
        assert parse(render(found, "multi-span", scale)) == (found, scale)


@given(st.floats(-1e9, 1e9), st.sampled_from(SCALES))
def test_a_number_reads_back_to_two_decimals(value: float, scale: str) -> None:
    [text], read = parse(render([str(value)], "arithmetic", scale))
    assert read == scale
    assert abs(float(text) - value) <= 0.005 + 1e-6
    assert "e" not in text
    assert text == number_text(float(text))


def test_a_scale_word_inside_a_line_is_text_and_alone_on_the_last_line_is_the_scale() -> None:
    assert parse("$9.8 million") == (["$9.8 million"], "")
    assert parse("$9.8\nMillion\n") == (["$9.8"], "million")
    assert parse("percent") == (["percent"], "")
    assert parse(" \n") == ([], "")


@pytest.mark.parametrize("answer", [[], [""], ["a", " "]])
def test_an_answer_of_nothing_is_refused(answer: list[str]) -> None:
    with pytest.raises(ValueError, match="at least one item and no blank one"):
        render(answer, "multi-span", "")


def test_a_derivation_stands_before_the_answer_and_is_passed_over_when_read() -> None:
    text = DerivationThenAnswer().text("3\nmillion", "1 +\n2")
    assert text == "Derivation: 1 + 2\n3\nmillion"
    assert parse(text) == (["3"], "million")
    assert DerivationThenAnswer().text("3", "") == PlainAnswer().text("3", "1 + 2") == "3"


@pytest.mark.parametrize(
    ("text", "gold", "operands"),
    [
        ("44.1-56.7", -12.6, 2),
        ("(44.1-56.7)/56.7", -22.22, 3),
        ("22,224 / 30,890 - 1", -28.05, 2),
        ("(709 + 707 + 429) / 3", 615, 3),
        ("($1,200 - $(200))/2", 500, 2),
        ("-114 - (-71)", -43, 2),
        ("[10 + 2] × 11%", 1.32, 3),
        ("5 * 100 / 20", 25, 2),
    ],
)
def test_derivations_lead_to_the_gold_answer(text: str, gold: float, operands: int) -> None:
    found = read_derivation(text, gold)
    assert found is not None
    assert len(found.operands) == operands
    assert found.result(found.values) == pytest.approx(gold, abs=0.006)
    assert found.with_values(found.values) == text


@pytest.mark.parametrize(
    "text", ["", "60.3 million + 32,137 thousand", "1 + 1", "(1 + 2", "1 / 0", "2019##2018", "3 4"]
)
def test_a_derivation_that_leads_elsewhere_is_none(text: str) -> None:
    assert read_derivation(text, 92437) is None


def test_other_numbers_are_written_as_the_old_ones() -> None:
    found = read_derivation("(22,224 - 30,890) / 30,890", -28.05)
    assert found is not None
    values = [1000.0, -2500.5, -2500.5]
    assert found.with_values(values) == "(1,000 - (-2,500.5)) / (-2,500.5)"
    assert found.result(values) == pytest.approx(100 * 3500.5 / -2500.5)
    assert found.result([1.0, 0.0, 0.0]) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$ 1,234", 1234), ("(12.6)", -12.6), ("$(1,234)", -1234), ("−298", -298), ("(9.4%)", -9.4),
        ("(3,110 )", -3110),
        ("US$15.9 million", 15.9), ("2019", 2019), ("—", None), ("", None), ("2019 and 2018", None), ("1:1", None),
        ("Other(2)", None), ("Dec 29, 2018", None), ("1,2", None),
    ],
)  # fmt: skip
def test_numbers_of_cells(text: str, value: float | None) -> None:
    found = read_number(text)
    assert (found and found.value) == value


@pytest.mark.parametrize(
    ("other", "gold", "dressed"),
    [
        ("71", "$1,280 million", "$71 million"), ("(71)", "$1,280", "$(71)"), ("-5%", "3%", "-5%"),
        ("$12", "(4.5)", "12"),
        ("1,000", "$ 93,662", "$ 1,000"), ("(71)", "(4.5%)", "(71)%"),
    ],
)  # fmt: skip
def test_a_number_wears_the_gold_answers_dress_and_its_own_sign(other: str, gold: str, dressed: str) -> None:
    first, second = read_number(other), read_number(gold)
    assert first is not None
    assert second is not None
    assert dressed_as(first, second) == dressed

from __future__ import annotations

import pytest

from lit_align.evals.instructions.letter_case import (
    CapitalWordFrequency,
    EnglishCapital,
    EnglishLowercase,
    capital_words,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("no capitals, One Capital", 0),
        ("STOP and LISTEN!", 2),
        ("I am", 1),
        ("U.S. A-B B2B", 3),
        ("DON'T IT'S WE'LL", 6),
        ("don't it's", 0),
        ("CANNOT GONNA", 4),
        ('(YES) [NO] "MAYBE"', 3),
        ("HELLO,WORLD", 2),
        ("AT 5,000", 1),
        ("НАТО и США", 2),
        ("123 - ?!", 0),
        ("A...B C--D", 4),
    ],
)
def test_capital_words_are_counted(text: str, count: int) -> None:
    assert capital_words(text) == count


def test_the_number_of_capital_words_stands_in_the_relation() -> None:
    assert CapitalWordFrequency(2, "at least").is_followed("STOP and LISTEN")
    assert not CapitalWordFrequency(2, "at least").is_followed("STOP and listen")
    assert CapitalWordFrequency(2, "less than").is_followed("STOP and listen")
    assert not CapitalWordFrequency(2, "less than").is_followed("STOP and LISTEN")


SENTENCE = "the weather is very nice today and we will go outside."


@pytest.mark.parametrize(
    ("text", "capital", "lowercase"),
    [
        (SENTENCE, False, True),
        (SENTENCE.upper(), True, False),
        (SENTENCE.capitalize(), False, False),
        (f"{SENTENCE} 42!", False, True),
        ("СЕГОДНЯ ОЧЕНЬ ХОРОШАЯ ПОГОДА", False, False),
        ("сегодня очень хорошая погода", False, False),
        ("heute ist das wetter sehr schön und wir gehen nach draußen", False, False),
        ("42", False, False),
    ],
)
def test_case_and_english_are_both_asked_for(text: str, capital: bool, lowercase: bool) -> None:
    assert EnglishCapital().is_followed(text) is capital
    assert EnglishLowercase().is_followed(text) is lowercase

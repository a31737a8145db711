from __future__ import annotations

import pytest

from lit_align.evals.instructions.keywords import Existence, ForbiddenWords, Frequency, LetterFrequency, NoComma


@pytest.mark.parametrize(
    ("keywords", "answer", "found"),
    [
        (("sun", "moon"), "The Moon follows the SUN.", True),
        (("sun", "moon"), "The Moon alone.", False),
        (("cat",), "A catalogue.", True),
        (("море",), "Над МОРЕМ тихо.", True),
        (("море",), "Над озером тихо.", False),
        (("c.t",), "cut", True),
        (("moon",), "m o o n", False),
    ],
)
def test_every_keyword_must_occur(keywords: tuple[str, ...], answer: str, found: bool) -> None:
    assert Existence(keywords).is_followed(answer) is found


@pytest.mark.parametrize(
    ("frequency", "answer", "at_least", "less_than"),
    [
        (2, "tea", False, True),
        (2, "Tea and steam", True, False),  # inside of a word too
        (3, "tea TEA Tea", True, False),
        (0, "nothing", True, False),
        (1, "coffee", False, True),
    ],
)
def test_occurrences_of_a_keyword_are_counted(frequency: int, answer: str, at_least: bool, less_than: bool) -> None:
    assert Frequency("tea", frequency, "at least").is_followed(answer) is at_least
    assert Frequency(" tea ", frequency, "less than").is_followed(answer) is less_than


def test_occurrences_do_not_overlap() -> None:
    assert not Frequency("ana", 2, "at least").is_followed("banana")


@pytest.mark.parametrize(
    ("words", "answer", "followed"),
    [
        (("can", "ride"), "I CAN walk.", False),
        (("can", "ride"), "Canned rides.", True),
        (("can",), "can't", False),
        (("чай",), "Чайник кипит.", True),
        (("чай",), "Тут Чай, там кофе.", False),
        (("can",), "s_can_", True),
    ],
)
def test_no_forbidden_word_may_occur_whole(words: tuple[str, ...], answer: str, followed: bool) -> None:
    assert ForbiddenWords(words).is_followed(answer) is followed


@pytest.mark.parametrize(
    ("letter", "count", "answer", "at_least"),
    [
        ("q", 2, "Quite quick", True),
        ("Q", 2, "Quite quick", True),
        ("q", 3, "Quite quick", False),
        ("#", 2, "#a #b", True),
        ("!", 1, "?", False),
        ("о", 2, "ОкнО", True),
        ("o", 1, "окно", False),  # the Latin letter is another one
    ],
)
def test_letters_are_counted_in_any_case(letter: str, count: int, answer: str, at_least: bool) -> None:
    assert LetterFrequency(letter, count, "at least").is_followed(answer) is at_least
    assert LetterFrequency(letter, count, "less than").is_followed(answer) is not at_least


@pytest.mark.parametrize(
    ("answer", "followed"),
    [("One; two.", True), ("One, two.", False), ("1,000", False), ("一、二，三", True), (",", False)],
)
def test_a_comma_is_found(answer: str, followed: bool) -> None:
    assert NoComma().is_followed(answer) is followed

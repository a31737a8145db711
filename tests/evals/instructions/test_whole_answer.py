from __future__ import annotations

import pytest

from lit_align.evals.instructions.whole_answer import EndPhrase, Quotation, RepeatPrompt, TwoResponses


@pytest.mark.parametrize(
    ("answer", "followed"),
    [
        ("Tea.\n******\nCoffee.", True),
        ("******Tea.******Coffee.******", True),
        ("Tea.\n******\n Tea.", False),
        ("Tea.", False),
        ("Tea.\n******", False),
        ("Tea.******Coffee.******Milk.", False),
        ("Tea.\n******\n******\nCoffee.", False),
        ("Tea.\n***\nCoffee.", False),
        ("Чай.\n******\nКофе.", True),
    ],
)
def test_two_different_responses_are_parted_by_six_stars(answer: str, followed: bool) -> None:
    assert TwoResponses().is_followed(answer) is followed


@pytest.mark.parametrize(
    ("answer", "followed"),
    [
        ("Назови реку. Волга.", True),
        ("  НАЗОВИ РЕКУ.\nВолга.", True),
        ("Назови реку.", True),
        ("Хорошо. Назови реку. Волга.", False),
        ("Назови реки. Волга.", False),
        ('"Назови реку." Волга.', False),
    ],
)
def test_the_answer_begins_with_the_prompt(answer: str, followed: bool) -> None:
    assert RepeatPrompt("Назови реку. ").is_followed(answer) is followed


@pytest.mark.parametrize(
    ("answer", "followed"),
    [
        ("So it was. The end.", True),
        ('"So it was. THE END."\n ', True),
        ("The end. So it was.", False),
        ("The end", False),
        ("The end. ", True),
        ("The end.*", False),
    ],
)
def test_the_answer_ends_with_the_phrase(answer: str, followed: bool) -> None:
    assert EndPhrase(" The end. ").is_followed(answer) is followed


@pytest.mark.parametrize(
    ("answer", "followed"),
    [(' "Yes." ', True), ('"a" and "b"', True), ('"', False), ('""', True), ("«Да.»", False), ('"Yes.', False),
     ("'Yes.'", False), ("“Yes.”", False)],
)  # fmt: skip
def test_the_answer_is_wrapped_in_straight_double_quotes(answer: str, followed: bool) -> None:
    assert Quotation().is_followed(answer) is followed

from __future__ import annotations

import pytest

from lit_align.evals.instructions.length import NthParagraphFirstWord, NumberParagraphs, NumberSentences, NumberWords


@pytest.mark.parametrize(
    ("answer", "count"),
    [("one", 1), ("don't", 2), ("a-b c_d", 3), ("Ёлка и 3.5 кг", 5), ("…!?", 0), ("snake_case", 1)],
)
def test_words_are_counted(answer: str, count: int) -> None:
    assert NumberWords(count, "at least").is_followed(answer)
    assert not NumberWords(count + 1, "at least").is_followed(answer)
    assert NumberWords(count + 1, "less than").is_followed(answer)
    assert not NumberWords(count, "less than").is_followed(answer)


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("One. Two! Three?", 3),
        ("Mr. Smith paid 3.50 dollars to Dr. Brown.", 1),
        ("no end", 1),
        ("It begins at 5 p.m. on Monday. He left", 2),
        ("Первое предложение. Второе предложение!", 2),
        ("A line\nwithout a point", 1),
    ],
)
def test_sentences_are_counted(answer: str, count: int) -> None:
    assert NumberSentences(count, "at least").is_followed(answer)
    assert not NumberSentences(count + 1, "at least").is_followed(answer)
    assert NumberSentences(count + 1, "less than").is_followed(answer)
    assert not NumberSentences(count, "less than").is_followed(answer)


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("One.", 1),
        ("One.\n\nStill one.", 1),
        ("One.\n***\nTwo.", 2),
        ("One.***Two.*** Three.", 3),
        ("***\nOne.\n***\nTwo.\n***", 2),
        ("One.\n* * *\nStill one.", 1),
    ],
)
def test_paragraphs_are_parted_by_dividers(answer: str, count: int) -> None:
    assert [number for number in range(6) if NumberParagraphs(number).is_followed(answer)] == [count]


@pytest.mark.parametrize("answer", ["One.\n***\n***\nTwo.", "One.******Two."])
def test_an_empty_paragraph_inside_is_never_followed(answer: str) -> None:
    assert not any(NumberParagraphs(number).is_followed(answer) for number in range(6))


@pytest.mark.parametrize(
    ("answer", "followed"),
    [
        ("First.\n\nThen, second.", True),
        ("First.\n\nTHEN second.", True),
        ('First.\n\n\'"Then" second.', True),
        ("First.\n\nthen's second.", True),
        ("First.\n\nThenceforth second.", False),
        ("First.\n\n**Then** second.", False),
        ("First.\nThen second.", False),
        ("Then first.\n\nSecond.", False),
        ("First.\n\nThen second.\n\nThird.", False),
        ("First.\n\n\n\nThen second.", False),  # the empty one has the second place
        ("First.\n\nThen second.\n\n", True),
        ("Then", False),
    ],
)
def test_the_paragraph_begins_with_the_word(answer: str, followed: bool) -> None:
    assert NthParagraphFirstWord(2, 2, "Then").is_followed(answer) is followed


def test_the_paragraph_must_be_one_of_them() -> None:
    with pytest.raises(ValueError, match="nth_paragraph must be from 1 to num_paragraphs = 2, got 3"):
        NthParagraphFirstWord(2, 3, "then")
    with pytest.raises(ValueError, match="nth_paragraph must be from 1 to num_paragraphs = 2, got 0"):
        NthParagraphFirstWord(2, 0, "then")

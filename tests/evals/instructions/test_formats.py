from __future__ import annotations

import pytest

from lit_align.evals.instructions.formats import (
    ConstrainedResponse,
    JsonFormat,
    MultipleSections,
    NumberBulletLists,
    NumberHighlightedSections,
    NumberPlaceholders,
    Postscript,
    Title,
)


@pytest.mark.parametrize(
    ("marker", "answer", "found"),
    [
        ("P.S.", "Bye.\n\nP.S. Write.", True),
        ("P.S.", "Bye. p. s. write", True),
        ("P.S.", "Bye.\nPS write", False),
        ("P.S.", "Bye.\nP.P.S. Write.", True),
        ("P.P.S", "Bye.\nP.P.S Write.", True),
        ("P.P.S", "Bye.\nP. P. S. Write.", True),
        ("P.P.S", "Bye.\nP.S. Write.", False),
        ("Постскриптум", "Пока.\nпостскриптум: пиши", True),
        (" NB ", "nb: this", True),
        ("NB", "n. b.", False),
    ],
)
def test_the_postscript_is_found_by_its_marker(marker: str, answer: str, found: bool) -> None:
    assert Postscript(marker).is_followed(answer) is found


@pytest.mark.parametrize(
    ("answer", "count"),
    [("none", 0), ("[name]", 1), ("[a][b] [c d]", 3), ("[]", 1), ("[a\nb]", 0), ("[a [b] c]", 1), ("(a) {b}", 0)],
)
def test_placeholders_are_counted(answer: str, count: int) -> None:
    assert NumberPlaceholders(count).is_followed(answer)
    assert not NumberPlaceholders(count + 1).is_followed(answer)


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("text", 0),
        ("- a\n- b", 2),
        ("* a\n  * b\n\t- c", 3),
        ("-a", 1),
        ("*italics* begin the line", 1),
        ("**bold** begins the line", 0),
        ("1. a\n+ b\n• c", 0),
        ("a - b * c", 0),
        ("---", 1),
        ("- а\n— б", 1),
    ],
)
def test_bullet_points_are_counted_exactly(answer: str, count: int) -> None:
    assert [number for number in range(5) if NumberBulletLists(number).is_followed(answer)] == [count]


@pytest.mark.parametrize(
    ("answer", "followed"),
    [
        ("My answer is yes.", True),
        ("Well. My answer is maybe. Or not.", True),
        ("My answer is yes", False),
        ("my answer is no.", False),
        ("yes", False),
    ],
)
def test_one_of_the_options_occurs(answer: str, followed: bool) -> None:
    assert ConstrainedResponse().is_followed(answer) is followed


@pytest.mark.parametrize(
    ("answer", "count"),
    [("none", 0), ("*a* b *c*", 2), ("**a** *b*", 2), ("** **", 0), ("*a\nb*", 0), ("2 * 3 * 4", 1), ("*жирно*", 1)],
)
def test_highlights_are_counted(answer: str, count: int) -> None:
    assert NumberHighlightedSections(count).is_followed(answer)
    assert not NumberHighlightedSections(count + 1).is_followed(answer)


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("Section 1\na\nSection 2\nb", 2),
        ("Section1 Section 22", 2),
        ("section 1", 0),
        ("Section one", 0),
        ("Section  1", 0),
        ("**Section 1:** a", 1),
    ],
)
def test_section_marks_are_counted(answer: str, count: int) -> None:
    assert MultipleSections(" Section ", count).is_followed(answer)
    assert not MultipleSections("Section", count + 1).is_followed(answer)


def test_sections_may_be_called_anything() -> None:
    assert MultipleSections("Часть", 2).is_followed("Часть 1\nа\nЧасть 2\nб")


@pytest.mark.parametrize(
    ("answer", "followed"),
    [
        ('{"a": [1, null]}', True),
        ('```json\n{"ключ": "значение"}\n```', True),
        ("```\n[1]\n```", True),
        ("```JSON\n[1]```", True),
        ("5", True),
        ("{'a': 1}", False),
        ('Here: {"a": 1}', False),
        ('{"a": 1} done', False),
        ('{"a": 1,}', False),
        ("```python\n{}\n```", False),
        ("[" * 100_000, False),
    ],
)
def test_the_whole_answer_is_json(answer: str, followed: bool) -> None:
    assert JsonFormat().is_followed(answer) is followed


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("<<Poem>>\ntext", True),
        ("text <<Стихи о весне>> text", True),
        ("<Poem>", False),
        ("<<>>", False),
        ("<< >>", False),
        ("<<a\nb>>", False),
        ("«Poem»", False),
    ],
)
def test_a_title_is_found(answer: str, found: bool) -> None:
    assert Title().is_followed(answer) is found

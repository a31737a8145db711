"""Wrong spans: another number in the gold's dress, another year or label, another part of the passages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from lit_align.data.sources.tat_qa.candidates import Asked, Candidate
from lit_align.data.sources.tat_qa.numbers import YEAR, DressedNumber, dressed_as, read_number
from lit_align.data.sources.tat_qa.phrases import other_phrases

Kind = Literal["year", "number", "label", "text"]

_IN_TEXT = re.compile(
    r"(?<![\w.,])(?:US|S)?[$£€]?\s?\(?\d[\d,]*(?:\.\d+)?\)?(?:\s?%|\s(?:million|billion|thousand))?(?!\w)"
)


def kind_of(item: str, asked: Asked) -> Kind:
    """Say what an item of an answer is.

    Args:
        item: The item.
        asked: Its question with the table.
    """
    if YEAR.search(item) and len(item.split()) <= 5 and not item.strip().startswith("$"):
        return "year"
    if read_number(item):
        return "number"
    label = _folded(item)
    if any(label == _folded(other) for other in (*asked.grid.row_labels(), *asked.grid.column_labels())):
        return "label"
    return "text"


def span_candidates(asked: Asked) -> list[Candidate]:
    """Make wrong answers of a span question.

    Args:
        asked: The question with its table and passages.
    """
    question = asked.question
    [gold] = question.answer
    found = [Candidate((text,), question.scale, construction) for construction, text in replacements(gold, asked)]
    for other in asked.siblings:
        same = other.answer_type == "span" and other.scale == question.scale
        if same and kind_of(other.answer[0], asked) == kind_of(gold, asked):
            found.append(Candidate((in_case_of(other.answer[0], gold),), question.scale, "sib", other.derivation))
    return found


def replacements(gold: str, asked: Asked) -> Iterator[tuple[str, str]]:
    """Other texts of the same kind, from the same table and passages.

    Args:
        gold: An item of the gold answer.
        asked: Its question with the table and passages.

    Yields:
        How it came about, and the text.
    """
    kind = kind_of(gold, asked)
    number = read_number(gold)
    if kind == "year":
        found = _other_years(gold, asked)
    elif kind == "number" and number:
        found = _other_numbers(number, asked)
    else:
        found = _other_labels(gold, asked) if kind == "label" else _other_texts(gold, asked)
    yield from ((construction, text) for construction, text in found if text.strip())


def in_case_of(text: str, gold: str) -> str:
    """Give a text the first letter's case and the final full stop of another.

    Args:
        text: The text.
        gold: What it shall look like.

    Example:
        >>> in_case_of("lower sales", "Higher costs.")
        'Lower sales.'
    """
    if text[:1].isalpha() and gold[:1].isalpha():
        # "United Kingdom" and "IBM" stay names.
        name = text[1:2].isupper() or any(word[0].isupper() for word in text.split()[1:2])
        if gold[0].isupper() or not name:
            text = (text[0].upper() if gold[0].isupper() else text[0].lower()) + text[1:]
    text = text.rstrip(".") if not gold.endswith(".") else text
    return text + "." if gold.endswith(".") and not text.endswith(".") else text


def passage_texts(asked: Asked) -> list[str]:
    """The passages, their blanks folded."""
    return [" ".join(passage.text.split()) for passage in asked.context.passages]


def _folded(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def _other_years(gold: str, asked: Asked) -> Iterator[tuple[str, str]]:
    [old, *_] = YEAR.findall(gold)
    cells = [cell for row in asked.context.rows for cell in row]
    years = dict.fromkeys(year for text in (*cells, *passage_texts(asked)) for year in YEAR.findall(text))
    header = [" ".join(label.split()) for label in asked.grid.column_labels() if YEAR.search(label)]
    if any(_folded(label) == _folded(gold) for label in header):
        # A whole header ("December 31, 2019") leads to a whole header.
        for label in header:
            if _folded(label) != _folded(gold) and len(label.split()) == len(gold.split()):
                yield "year", label
    for year in years:
        if year != old and abs(int(year) - int(old)) <= 5:
            yield "year", gold.replace(old, year)


def _other_numbers(gold: DressedNumber, asked: Asked) -> Iterator[tuple[str, str]]:
    grid = asked.grid
    places = [place for place in grid.places_of(gold.value) if grid.numbers[place].percent == gold.percent]
    rows, columns = {row for row, _ in places}, {column for _, column in places}
    header = " ".join(asked.context.rows[0]).lower()
    for (row, column), number in grid.numbers.items():
        # A percent sign may stand in the header alone.
        if (number.percent != gold.percent and "%" not in header) or number.value == 0:
            continue
        near = "row" if row in rows else "col" if column in columns else "cell"
        yield near, dressed_as(number, gold)
    for text in passage_texts(asked):
        for found in _IN_TEXT.findall(text):
            other = read_number(found)
            if other is None or YEAR.fullmatch(other.digits) or _class(other) != _class(gold):
                continue
            yield "passage", dressed_as(other, gold)


def _class(number: DressedNumber) -> tuple[bool, bool, str]:
    words = re.sub(r"\W", "", number.after)
    return number.percent, any(sign in number.before for sign in "$£€"), words


def _other_labels(gold: str, asked: Asked) -> Iterator[tuple[str, str]]:
    for labels in (asked.grid.row_labels(), asked.grid.column_labels()):
        if any(_folded(label) == _folded(gold) for label in labels):
            for label in labels:
                if not YEAR.search(label) and not label.endswith(":"):
                    yield "label", in_case_of(" ".join(label.split()), gold)


def _other_texts(gold: str, asked: Asked) -> Iterator[tuple[str, str]]:
    for construction, text in other_phrases(gold, passage_texts(asked)):
        yield construction, in_case_of(text, gold)
    length = len(gold.split())
    for label in asked.grid.row_labels():
        if length <= 6 and abs(len(label.split()) - length) <= 2:
            yield "label", in_case_of(" ".join(label.split()), gold)

"""Wrong spans: another number in the gold's dress, another year or label, another part of the passages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from lit_align.data.sources.tat_qa.candidates import Asked, Candidate
from lit_align.data.sources.tat_qa.numbers import YEAR, DressedNumber, dressed_as, read_number

Kind = Literal["year", "number", "label", "text"]

_WORDS = """
    a an the of to in for on by with from and or as at is are was were be been that which it its our we this these due
    because based primarily mainly than not
"""
FUNCTION_WORDS = frozenset(_WORDS.split())
_IN_TEXT = re.compile(
    r"(?<![\w.,])(?:US|S)?[$£€]?\s?\(?\d[\d,]*(?:\.\d+)?\)?(?:\s?%|\s(?:million|billion|thousand))?(?!\w)"
)
_MOST_WINDOWS = 12
_NEAR = 3  # words that a trimmed or extended span loses or gains at most


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
    length = len(gold.split())
    for text in passage_texts(asked):
        words = text.split()
        at = text.find(gold)
        if at >= 0:
            yield from _nearby(gold, text[:at].split(), text[at + len(gold) :].split())
        else:
            yield from _windows(gold, words, length)
    for row in asked.grid.row_labels():
        if length <= 6 and abs(len(row.split()) - length) <= 2:
            yield "label", in_case_of(" ".join(row.split()), gold)


def _nearby(gold: str, before: list[str], after: list[str]) -> Iterator[tuple[str, str]]:
    """The gold, a few words more or fewer, and what stands beside it in its own passage."""
    words = gold.split()
    for n in range(1, _NEAR + 1):
        made = [("extend", [*words, *after[:n]]), ("extend", [*before[-n:], *words])]
        if len(words) > 2 * n + 2:
            made += [("trim", words[n:]), ("trim", words[:-n])]
        for construction, kept in made:
            # Nobody ends an answer with "of the", nor goes on across the end of a sentence.
            last = kept[-1].lower()
            if len(kept) != len(words) and last not in FUNCTION_WORDS and re.search(r"\w", last):
                yield construction, in_case_of(" ".join(kept).rstrip(",;:"), gold)
    yield from _windows(gold, before, len(words))
    yield from _windows(gold, after, len(words))


def _left_class(word: str) -> str:
    """What stands before a span: the start, a mark, a function word or another word."""
    if not word or word[-1] in ".:;":
        return "start"
    if word[-1] in ",(":
        return "mark"
    return "function" if word.lower() in FUNCTION_WORDS else "word"


def _windows(gold: str, words: list[str], length: int) -> Iterator[tuple[str, str]]:
    """Parts of a passage of about the gold's length that begin and end as phrases do."""
    shortest, longest = max(1, round(0.75 * length)), max(1, round(1.3 * length))
    gold_starts_low, found = gold.split()[0].lower() in FUNCTION_WORDS, 0
    for start, word in enumerate(words):
        left = _left_class(words[start - 1] if start else "")
        if left == "word" or (word.lower() in FUNCTION_WORDS) != gold_starts_low:
            continue
        for stop in range(start + shortest, min(start + longest, len(words)) + 1):
            last = words[stop - 1]
            ends = last[-1] in ".,;:" or stop == len(words) or words[stop].lower() in FUNCTION_WORDS
            if ends and last.lower() not in FUNCTION_WORDS:
                yield "window", in_case_of(" ".join(words[start:stop]).rstrip(",;:"), gold)
                found += 1
                break
        if found >= _MOST_WINDOWS:
            return

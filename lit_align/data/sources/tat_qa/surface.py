"""What an answer looks like, without its question and without its table."""

from __future__ import annotations

import math
import re
import zlib

from lit_align.data.sources.tat_qa.answers import parse
from lit_align.data.sources.tat_qa.numbers import YEAR, read_number
from lit_align.data.sources.tat_qa.phrases import FUNCTION_WORDS
from lit_align.data.sources.tat_qa.reading import SCALES

_WORD = re.compile(r"[A-Za-z]+")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_MARKS = "$£€%,.()-–—−;:'\"/&’"
_DIGITS = "0123456789"
BUCKETS = 1024  # of hashed character n-grams and words


def surface_features(text: str) -> list[float]:
    """Measure a text; the same list of measures for every text.

    Args:
        text: An answer as the model writes it.
    """
    items, scale = parse(text)
    numbers = [number for item in items if (number := read_number(item))]
    years = [int(year) for year in YEAR.findall(text)]
    words = _WORD.findall(text)
    first, last = (items[0], items[-1]) if items else ("", "")
    values = [number.value for number in numbers]
    digits = [number.digits.replace(",", "") for number in numbers]
    lengths = [len(item) for item in items] or [0]
    return [
        len(text),
        len(items),
        len(words),
        len(text.split()),
        max(lengths),
        min(lengths),
        SCALES.index(scale),
        *(text.count(mark) for mark in _MARKS),
        *(text.count(digit) for digit in _DIGITS),
        sum(char.isdigit() for char in text),
        sum(char.isupper() for char in text),
        sum(char.isupper() for char in text) / max(len(text), 1),
        sum(len(word) for word in words) / max(len(words), 1),
        sum(word.lower() in FUNCTION_WORDS for word in words),
        sum(word[0].isupper() for word in words),
        _class_of(first[:1]),
        _class_of(last[-1:]),
        words[0].lower() in FUNCTION_WORDS if words else -1,
        words[-1].lower() in FUNCTION_WORDS if words else -1,
        len(words[0]) if words else -1,
        len(words[-1]) if words else -1,
        len(numbers),
        len(years),
        max(years, default=0),
        min(years, default=0),
        float(years == sorted(years)),
        float(years == sorted(years, reverse=True)),
        *_of_value(values[0] if values else None),
        float(values == sorted(values)),
        float(values == sorted(values, reverse=True)),
        max(values) - min(values) if values else 0,
        max((number.decimals for number in numbers), default=-1),
        min((number.decimals for number in numbers), default=-1),
        float(len({number.decimals for number in numbers}) <= 1),
        float(len({number.before for number in numbers}) <= 1),
        int(digits[0][0]) if digits and digits[0][0].isdigit() else -1,
        int(digits[0][-1]) if digits else -1,
        float(len(set(items)) == len(items)),
        float(bool(re.search(r"million|billion|thousand", text))),
        float(" and " in text),
        float(bool(re.search(r"\. [A-Z]", text))),
    ]


def _class_of(char: str) -> float:
    if not char or not char.isalnum():
        return 0 if not char else 1 + _MARKS.find(char)
    return -1 if char.isdigit() else (-2 if char.isupper() else -3)


def _of_value(value: float | None) -> list[float]:
    if value is None:
        return [-99, -99, 0, 0, 0, 0]
    size = math.log10(abs(value)) if value else -9
    return [size, math.copysign(size + 9, value), value, float(value == round(value)), value % 10, value % 100]


def derivation_features(derivation: str) -> list[float]:
    """Measure a derivation; the same list of measures for every one, also for none.

    Args:
        derivation: As annotators write it.
    """
    values = [float(found.replace(",", "")) for found in _NUMBER.findall(derivation)]
    first, second, *_ = [*values, 0.0, 0.0]
    return [
        len(derivation),
        len(values),
        *(derivation.count(mark) for mark in ("-", "+", "/", "*", "(", "(-", ",", ".", "$", "##")),
        *(size(value) for value in (first, second, min(values, default=0), max(values, default=0))),
        math.copysign(1, first - second) if first != second else 0,
        size(first) - size(second),
        len(values) - len(set(values)),
    ]


def size(value: float) -> float:
    """The order of magnitude of a number, whatever its sign; 0 for 0."""
    return math.log10(1 + abs(value))


def classes_of(text: str, answer_type: str) -> list[str]:
    """Coarse classes of an answer; as many rejected answers shall leave each class as enter it.

    Args:
        text: An answer as the model writes it.
        answer_type: Classes of one type mean nothing in another.
    """
    items, scale = parse(text)
    if answer_type == "count":
        return [text]
    numbers = [read_number(item) for item in items]
    first = numbers[0]
    if answer_type == "arithmetic" and first:
        whole = len(str(int(abs(first.value))))
        form = f"{first.value < 0}/{first.decimals}"
        return [form, f"{form}/{whole}", f"{scale}/{first.value < 0}", f"digits {whole}", f"zero {first.value == 0}"]
    years = [year for item in items if len(item.split()) <= 5 for year in YEAR.findall(item)]
    if years:
        return [f"years {len(items)}", " ".join(years), " ".join(sorted(years))]
    kinds = ["n" if number else "t" for number in numbers]
    marks = "".join(mark for mark in "$%(.," if mark in text)
    return [f"{len(items)} {''.join(sorted(set(kinds)))} {scale}", f"{''.join(kinds)} {marks}", str(len(text) // 12)]


def hashed_grams(text: str) -> dict[int, float]:
    """Count the characters, their pairs and triples, and the words of a text, by hash.

    Args:
        text: An answer as the model writes it.

    Returns:
        Weight by bucket, below :data:`BUCKETS`.
    """
    marked = f"^{text.lower()}$"
    counts: dict[int, float] = {}
    for n in (1, 2, 3):
        for start in range(len(marked) - n + 1):
            # crc32, since Python salts its own hash of a text anew in every process.
            bucket = zlib.crc32(f"{n}{marked[start : start + n]}".encode()) % BUCKETS
            counts[bucket] = counts.get(bucket, 0.0) + 1
    for word in text.lower().split():
        bucket = zlib.crc32(f"w{word}".encode()) % BUCKETS
        counts[bucket] = counts.get(bucket, 0.0) + 1
    return counts

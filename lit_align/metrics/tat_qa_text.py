"""How TAT-QA's official scorer reads answers: texts, the numbers in them, and the scales beside them."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import numpy as np

# The first word found decides, in this order ("hundred thousand" is a hundred).
_SCALE_WORDS = (
    ("hundred", 100),
    ("thousand", 1_000),
    ("million", 1_000_000),
    ("billion", 1_000_000_000),
    ("percent", 0.01),
)
_DROP_IN_NUMBERS = str.maketrans("", "", "'\"\\$€£¥%(),[]")
_DROP_IN_WORDS = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)")
_BRACKETED = re.compile(r"\([\d.\s]+\)")  # no sign, comma or currency inside: ($12.6) is not a negative number
_PERCENT = re.compile(r"[\d.\s]%")
_WORD_AFTER_NUMBER = re.compile(r"[\d.]\s?([a-zA-Z]+)")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def scale_factor(text: str) -> float:
    """The factor of the first scale word within a text; 1 without one.

    Example:
        >>> scale_factor("millions"), scale_factor("Percent"), scale_factor("")
        (1000000, 0.01, 1)
    """
    lowered = text.lower()
    return next((factor for word, factor in _SCALE_WORDS if word in lowered), 1)


def reads_as_number(text: str) -> bool:
    """Whether a text is taken for a number: a first word that parses, then nothing or a scale word.

    Currency signs, quotes, commas, brackets and percent signs are taken out before. As Python's ``float`` decides,
    ``inf`` and ``1e5`` are numbers; ``nan`` is not.

    Example:
        >>> [reads_as_number(text) for text in ("$(1,234)", "1.5 million", "2 items", "12.3.", "nan")]
        [True, True, False, False, False]
    """
    words = text.translate(_DROP_IN_NUMBERS).split()
    if not words:
        return False
    try:
        value = float(words[0])
    except ValueError:
        return False
    return value == value and (len(words) == 1 or scale_factor(words[1]) != 1)


def number_in(text: str) -> float | None:
    """The first number of a text, with scale word, brackets and percent sign applied, rounded to 4 decimals.

    Returns:
        The number, or ``None`` if there is none or it starts with its decimal point.

    Raises:
        OverflowError: The number is too long for Python to convert.

    Example:
        >>> number_in("(12.6)"), number_in("22.12%"), number_in("$1.5 million"), number_in("($12.6)"), number_in(".5")
        (-12.6, 0.2212, 1500000.0, 12.6, None)
    """
    found = _NUMBER.search(text.translate(_DROP_IN_NUMBERS))
    if found is None or found[0].lstrip("+-").startswith("."):
        return None
    try:
        value: float = float(found[0]) if "." in found[0] else int(found[0])
    except ValueError as error:  # Python's cap on the digits of an integer
        raise OverflowError(f"a number of {len(found[0])} characters") from error
    word = _WORD_AFTER_NUMBER.search(text)
    # One factor after the other, in this order: the roundings of a product depend on it.
    value *= scale_factor(word[1]) if word else 1
    value *= -1 if _BRACKETED.search(text) else 1
    value *= 0.01 if _PERCENT.search(text.strip()) else 1
    return round(value, 4)


def joined_items(items: Sequence[object], scale: str) -> str:
    """The items of an answer in sorted order as one text, the scale worked into each.

    A number is rounded to 2 decimals, multiplied by the scale and written with 4 decimals; one with a percent sign
    has been divided by 100 already and keeps its 4 decimals, whatever the scale. The scale's word follows any other
    item.

    Raises:
        OverflowError: A number does not fit a float.
        TypeError: Items that Python cannot put in order, such as a text and a number.

    Example:
        >>> joined_items(["40%", "1,234.567"], "thousand")
        '1234570.0000 0.4000'
    """
    try:
        ordered = sorted(items)  # type: ignore[type-var]
    except TypeError as error:
        raise TypeError(f"the items of one answer must be of one type that has an order, got {items!r}") from error
    return " ".join(_written(str(item), scale) for item in ordered)


def _written(item: str, scale: str) -> str:
    number = number_in(item) if reads_as_number(item) else None
    if number is None:
        return f"{item} {scale}" if scale else item
    if "%" in item:
        return f"{number:.4f}"
    return f"{round(number, 2) * scale_factor(scale):.4f}"


def normalised(text: str) -> str:
    """A text as it is compared: lower case, numbers in one spelling, without punctuation and articles.

    Tokens end at blanks only, not at other white space. A number that :func:`number_in` cannot read becomes
    ``None``, so ``.5``, ``.7`` and ``inf`` all compare as equal.

    Raises:
        OverflowError: A number does not fit a float.

    Example:
        >>> normalised("The (12.60) U.S. dollars, or .5")
        '-12.6 us dollars or None'
    """
    parts = [" ".join(_normalised_token(token).split()) for token in text.split(" ")]
    return " ".join(part for part in parts if part)


def _normalised_token(token: str) -> str:
    token = token.lower()
    if not reads_as_number(token):
        token = token.translate(_DROP_IN_WORDS)
    if reads_as_number(token):  # taking punctuation out can make a number: "#5", "5."
        token = str(number_in(token))
    return _ARTICLE.sub(" ", token)


def token_f1(prediction: str, gold: str) -> float:
    r"""F1 of the two sets of tokens, rounded to 2 decimals.

    .. math:: F_1 = \frac{2 P R}{P + R}, \quad P = |p \cap g| / |p|, \quad R = |p \cap g| / |g|

    (Rajpurkar et al. 2016, arXiv:1606.05250, with sets as in DROP, Dua et al. 2019, arXiv:1903.00161.) ``P`` of an
    empty prediction and ``R`` of an empty gold text are 1.

    Example:
        >>> token_f1("net sales rose", "net sales")
        0.8
    """
    predicted, golden = set(prediction.split()), set(gold.split())
    shared = len(predicted & golden)
    precision = shared / len(predicted) if predicted else 1.0
    recall = shared / len(golden) if golden else 1.0
    if precision == recall == 0:
        return 0.0
    # NumPy's rounding, which is not Python's: 0.175 becomes 0.18 here and 0.17 there.
    return float(np.round(2 * precision * recall / (precision + recall), 2))

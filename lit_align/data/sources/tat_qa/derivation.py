"""Derivations of arithmetic answers, read so that they can be worked out again with other numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lit_align.data.sources.tat_qa.answers import number_text

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
_DRESS = str.maketrans({"$": " ", "£": " ", "€": " ", "[": "(", "]": ")", "×": "*", "x": "*", "÷": "/", "–": "-"})
_MINUS = str.maketrans({"−": "-", "—": "-"})
# What the gold may be of the value: as it is, as percent, in another scale, without its sign.
_FACTORS = (1.0, 100.0, 0.01, 0.001, 1000.0, -1.0, -100.0, 1e-6, 1e6)
_CONSTANTS = (100.0, 1000.0)


@dataclass(frozen=True)
class Derivation:
    """An arithmetic expression with its numbers.

    Attributes:
        text: The expression as annotators wrote it.
        spans: Where each number stands in the text.
        values: The numbers.
        operands: Which of them are quantities; the others count, or turn a share into percent.
        factor: What the value has to be multiplied by to give the gold answer.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    values: tuple[float, ...]
    operands: tuple[int, ...]
    factor: float

    def result(self, values: Sequence[float]) -> float | None:
        """Work the expression out with other numbers; None where it divides by zero.

        Args:
            values: One for each number of the expression.
        """
        value = _evaluate(_expression(self.text, self.spans), values)
        return None if value is None else value * self.factor

    def with_values(self, values: Sequence[float]) -> str:
        """Write the expression with other numbers; those that stay are not touched.

        Args:
            values: One for each number of the expression.
        """
        text, end = [], 0
        for (start, stop), old, new in zip(self.spans, self.values, values, strict=True):
            shown = self.text[start:stop] if new == old else _shown(new, "," in self.text[start:stop])
            text += [self.text[end:start], shown]
            end = stop
        return "".join([*text, self.text[end:]])


def _shown(value: float, commas: bool) -> str:
    whole, point, rest = number_text(abs(value)).partition(".")
    shown = (f"{int(whole):,}" if commas or len(whole) > 4 else whole) + point + rest
    return f"(-{shown})" if value < 0 else shown


def read_derivation(text: str, gold: float) -> Derivation | None:
    """Read the derivation of a gold answer.

    Args:
        text: Such as ``(22,224 - 30,890) / 30,890``.
        gold: The answer that it must lead to, up to rounding and percent.

    Returns:
        The derivation, or None for one that is no arithmetic expression or leads elsewhere (about 1 % of the files).
    """
    found = list(_NUMBER.finditer(text))
    spans = tuple(match.span() for match in found)
    values = tuple(float(match.group().replace(",", "")) for match in found)
    value = _evaluate(_expression(text, spans), values)
    if value is None:
        return None
    fitting = [factor for factor in _FACTORS if _rounds_to(value * factor, gold)]
    if not fitting:
        return None
    operands = tuple(i for i, number in enumerate(values) if not _is_constant(text, spans[i], number))
    return Derivation(text, spans, values, operands, fitting[0])


def _is_constant(text: str, span: tuple[int, int], value: float) -> bool:
    """Whether a number counts (``/ 3``) or turns a share into percent, and is no quantity."""
    operator = text[: span[0]].rstrip(" $£€")[-1:]
    if operator in ("/", "*", "÷", "×"):
        counts = value.is_integer() and 1 <= value <= 12 and text[span[1] : span[1] + 1] != "%"
        return value in _CONSTANTS or counts
    return operator == "-" and value == 1


def _rounds_to(value: float, gold: float) -> bool:
    return any(abs(round(value, digits) - gold) < 1e-9 for digits in range(5)) or abs(value - gold) <= 0.0051


def _expression(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The tokens of an expression; ``n`` stands for a number. Empty when it is none."""
    tokens, end = [], 0
    for start, stop in [*spans, (len(text), len(text))]:
        between = text[end:start].translate(_DRESS).translate(_MINUS)
        if re.search(r"[^-+*/()%\s]", between):
            return []
        tokens += [char for char in between if not char.isspace()]
        tokens += ["n"] if stop > start else []
        end = stop
    return tokens


class _Reader:
    """Recursive descent over the tokens of an expression."""

    def __init__(self, tokens: list[str], values: Sequence[float]) -> None:
        self.tokens, self.values, self.at, self.number = tokens, values, 0, 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1] if self.at <= len(self.tokens) else ""

    def sum(self) -> float:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self) -> float:
        value = self.signed()
        while self.peek() in ("*", "/"):
            value = value * self.signed() if self.take() == "*" else value / self.signed()
        return value

    def signed(self) -> float:
        if self.peek() in ("-", "+"):
            return -self.signed() if self.take() == "-" else self.signed()
        token = self.take()
        if token == "(":
            value = self.sum()
            if self.take() != ")":
                raise SyntaxError
        elif token == "n":
            value = self.values[self.number]
            self.number += 1
        else:
            raise SyntaxError
        while self.peek() == "%":
            self.take()
            value /= 100
        return value


def _evaluate(tokens: list[str], values: Sequence[float]) -> float | None:
    reader = _Reader(tokens, values)
    try:
        value = reader.sum()
    except (SyntaxError, ZeroDivisionError, RecursionError):
        return None
    return value if reader.at == len(tokens) and abs(value) < 1e15 else None

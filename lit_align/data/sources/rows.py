"""Rows of a table on disk or on the hub, with errors that say where they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        place: The file, or the id of the data set on the hub.
        number: The line in a JSON Lines file, elsewhere the place in the table; from 1.
        values: The row's columns.
    """

    place: str
    number: int
    values: dict[str, Any]

    @property
    def id(self) -> str:
        """The file's name and the row's number, such as ``chat.jsonl:17``."""
        return f"{PurePath(self.place).name}:{self.number}"

    @property
    def where(self) -> str:
        """The whole place and the row's number, for messages."""
        return f"{self.place}:{self.number}"

    def value(self, column: str) -> Any:  # whatever the table holds
        """The value of a column.

        Args:
            column: The column's name.

        Raises:
            ValueError: The row has no such column; the message names those that it has, and the nearest.
        """
        if column not in self.values:
            near = get_close_matches(column, self.values, n=1)
            nearest = f"did you mean '{near[0]}'? " if near else ""
            has = ", ".join(self.values) or "no column"
            raise ValueError(f"{self.where}: no column '{column}'; {nearest}the row has: {has}")
        return self.values[column]

    def text(self, column: str) -> str:
        """The value of a column that holds text.

        Args:
            column: The column's name.

        Raises:
            ValueError: The column is missing, is not text, or holds half a character (see :func:`checked_text`).
        """
        return checked_text(self.value(column), f"{self.where}: {column}")


def checked_text(value: object, where: str) -> str:
    r"""Make sure that a value is text that can be tokenised.

    Args:
        value: What the file holds.
        where: File, row and key, for the message.

    Raises:
        ValueError: The value is not a string, or has a lone surrogate (half of an emoji, written as an escape such as
            ``\ud83d`` by a program that cut the text in the middle of a character).

    Example:
        >>> checked_text("yes", "chat.jsonl:1: answer")
        'yes'
    """
    if not isinstance(value, str):
        raise ValueError(f"{where}: must be text, not {describe(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: character {error.start} is half of a character ({value[error.start]!r}), which no tokenizer "
            "takes; the text was cut in the middle of an emoji: delete that escape or drop the row"
        ) from error
    return value


def describe(value: object) -> str:
    """Name a value and its type in a few characters, for messages.

    Args:
        value: Any value that a table can hold.

    Example:
        >>> describe(4), describe(None), describe([])
        ('a number (4)', 'null', 'a list ([])')
    """
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return f"{kinds.get(type(value), f'a {type(value).__name__}')} ({shown if len(shown) <= 60 else shown[:60] + '…'})"


def usable_rows(
    rows: Iterable[Row],
    make: Callable[[Row], T],
    source: Callable[[Row], str],
    refuse: Callable[[str, ValueError], None],
) -> Iterator[T]:
    """Make a record of each row that breaks no rule.

    Args:
        rows: The rows.
        make: Makes the record, or raises ValueError.
        source: Name of a row's source, for reports.
        refuse: Given the error of each other row; may raise it.
    """
    for row in rows:
        try:
            record = make(row)
        except ValueError as error:
            refuse(source(row), error)
        else:
            yield record


def check_limit(limit: int | None, source: str) -> None:
    """Refuse a limit that would leave no row.

    Args:
        limit: At least 1, or None for no limit.
        source: The source's name, for the message.

    Raises:
        ValueError: The limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"{source}.limit: must be at least 1, or null for all rows, not {limit}")

"""What a measure gives: tables for people and programs, and checks that hold or fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Cell = str | int | float | tuple[int, ...] | None
"""A cell of a table; a tuple is a histogram, its counts from the smallest value on."""


@dataclass(frozen=True)
class Table:
    """A measure of the data, one row a source.

    Attributes:
        name: Its heading, and its key in ``audit.json``.
        about: What it says and how that was measured, in a sentence or two.
        columns: Names of the columns; those that end in ``share`` are shown in percent.
        rows: The cells.
    """

    name: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def records(self) -> list[dict[str, Cell]]:
        """The rows as objects.

        Example:
            >>> Table("t", "", ("source", "share"), (("a", 0.5),)).records()
            [{'source': 'a', 'share': 0.5}]
        """
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Check:
    """A number held against a limit.

    Attributes:
        limit: Key of the limit in the configuration.
        where: Part and source.
        found: The number.
        bound: Its limit.
        advice: What to do where it is over it.

    Example:
        >>> print(Check("audit.max_cut", "training: chat.jsonl", 0.75, 0.5, "raise `data.lengths.max_length`"))
        `audit.max_cut` = 0.5: training: chat.jsonl: found 0.75; raise `data.lengths.max_length`
    """

    limit: str
    where: str
    found: float
    bound: float
    advice: str

    @property
    def holds(self) -> bool:
        """Whether the number is within its limit."""
        return self.found <= self.bound

    def __str__(self) -> str:
        """Limit, place, number and advice in a line."""
        return f"`{self.limit}` = {self.bound:.4g}: {self.where}: found {self.found:.4g}; {self.advice}"


@dataclass(frozen=True)
class Measured:
    """Tables and checks of one or several measures.

    Attributes:
        tables: In the order of the report.
        checks: All that were made, those that hold too.
    """

    tables: tuple[Table, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.holds)


def joined(parts: Iterable[Measured]) -> Measured:
    """All tables and checks of several measures.

    Args:
        parts: In the order of the report.
    """
    every = list(parts)
    return Measured(
        tuple(table for part in every for table in part.tables), tuple(check for part in every for check in part.checks)
    )

"""Where the numbers of a table stand, and what its rows and columns are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lit_align.data.sources.tat_qa.numbers import YEAR, DressedNumber, read_number
from lit_align.data.sources.tat_qa.reading import Context

Place = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """The numbers of a table by place.

    Attributes:
        cells: The texts.
        numbers: The cells that are numbers, years of a header left out; by row and column.
        rows: For each row with numbers, its columns that hold one.
        columns: For each column with numbers, its rows that hold one.
    """

    cells: tuple[tuple[str, ...], ...]
    numbers: dict[Place, DressedNumber]
    rows: dict[int, tuple[int, ...]]
    columns: dict[int, tuple[int, ...]]

    @staticmethod
    def of(context: Context) -> Grid:
        """Read the numbers of a context's table."""
        numbers: dict[Place, DressedNumber] = {}
        for i, row in enumerate(context.rows):
            found = {j: number for j, cell in enumerate(row) if (number := read_number(cell))}
            # A row of nothing but years is a header, wherever it stands.
            if all(YEAR.fullmatch(row[j].strip()) for j in found):
                continue
            numbers.update({(i, j): number for j, number in found.items()})
        return Grid(context.rows, numbers, _lines(numbers, 0), _lines(numbers, 1))

    def places_of(self, value: float) -> list[Place]:
        """Find the cells that hold a number, whatever its sign."""
        return [place for place, number in self.numbers.items() if abs(abs(number.value) - abs(value)) < 1e-9]

    def row_labels(self) -> list[str]:
        """Names of the rows, without blanks and numbers."""
        labels = [row[0].strip() for row in self.cells]
        return list(dict.fromkeys(label for label in labels if label and not read_number(label)))

    def column_labels(self) -> list[str]:
        """Names of the columns: what stands above the first row with numbers."""
        first = min(self.rows, default=len(self.cells))
        labels = [cell.strip() for row in self.cells[:first] for cell in row]
        return list(dict.fromkeys(label for label in labels if label))


def _lines(places: Sequence[Place] | dict[Place, DressedNumber], axis: int) -> dict[int, tuple[int, ...]]:
    lines: dict[int, list[int]] = {}
    for place in places:
        lines.setdefault(place[axis], []).append(place[1 - axis])
    return {line: tuple(sorted(others)) for line, others in lines.items()}

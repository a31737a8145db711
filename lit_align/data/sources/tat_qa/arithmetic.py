"""Wrong results of a calculation: other cells, other columns, operands exchanged, a slip of sign or scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise, permutations, product

from lit_align.data.sources.tat_qa.answers import number_text
from lit_align.data.sources.tat_qa.candidates import Asked, Candidate
from lit_align.data.sources.tat_qa.derivation import Derivation, read_derivation
from lit_align.data.sources.tat_qa.grid import Grid, Place

_OTHER_SCALE = {"thousand": "million", "million": "thousand", "billion": "million"}
_MOST_READINGS = 64  # of a derivation whose numbers stand in several cells each
_MOST_COLUMN_CHOICES = 30


def arithmetic_candidates(asked: Asked) -> list[Candidate]:
    """Make wrong answers of an arithmetic question.

    Args:
        asked: The question with its table.
    """
    question = asked.question
    gold = float(question.answer[0])
    found: list[Candidate] = []

    def add(value: float | None, construction: str, derivation: str = "", scale: str = question.scale) -> None:
        if value is not None and abs(value) < 1e13:
            found.append(Candidate((number_text(value),), scale, construction, derivation))

    derivation = read_derivation(question.derivation, gold)
    if derivation is not None:
        for construction, values in _other_values(derivation, asked.grid):
            add(derivation.result(values), construction, derivation.with_values(values))
    for other in asked.siblings:
        if other.answer_type == "arithmetic" and other.scale == question.scale:
            add(float(other.answer[0]), "sib", other.derivation)
    add(-gold, "sign")
    if question.scale == "percent":
        add(gold / 100, "ratio")
        add(gold * 100, "ratio")
    if question.scale in _OTHER_SCALE:
        add(gold, "scale", question.derivation, _OTHER_SCALE[question.scale])
    return found


def _other_values(derivation: Derivation, grid: Grid) -> Iterator[tuple[str, list[float]]]:
    """The numbers of a derivation with some of them replaced, and the name of what was done."""
    places = _read_places(derivation, grid)
    if places:
        yield from _moved(derivation, grid, places)
    yield from _without_table(derivation)


def _read_places(derivation: Derivation, grid: Grid) -> dict[int, Place]:
    """In which cells the operands stand: of all readings the one with the fewest rows and columns."""
    cells = {i: grid.places_of(derivation.values[i]) for i in derivation.operands}
    cells = {i: places for i, places in cells.items() if places}
    readings = islice(product(*cells.values()), _MOST_READINGS)

    def spread(reading: tuple[Place, ...]) -> tuple[int, int]:
        rows, columns = {row for row, _ in reading}, {column for _, column in reading}
        return len(rows) + len(columns), max(rows, default=0) - min(rows, default=0)

    best = min(readings, key=spread, default=())
    return dict(zip(cells, best, strict=False))


def _moved(derivation: Derivation, grid: Grid, places: dict[int, Place]) -> Iterator[tuple[str, list[float]]]:
    rows, columns = sorted({row for row, _ in places.values()}), sorted({column for _, column in places.values()})

    def moved(rows_to: dict[int, int], columns_to: dict[int, int]) -> list[float] | None:
        to = {i: (rows_to.get(row, row), columns_to.get(column, column)) for i, (row, column) in places.items()}
        return _replaced(derivation, grid, places, to)

    for name, values in (
        *(("row", moved({rows[0]: row}, {})) for row in grid.rows if len(rows) == 1 and row != rows[0]),
        *(
            ("row1", moved({old: new}, {}))
            for old in rows
            for new in grid.rows
            if len(rows) > 1 and new not in rows and abs(new - old) <= 3
        ),
        *(
            ("rowblock", moved({row: row + step for row in rows}, {}))
            for step in (-3, -2, -1, 1, 2, 3)
            if len(rows) > 1
        ),
    ):
        if values:
            yield name, values
    choices = islice(permutations(grid.columns, len(columns)), _MOST_COLUMN_CHOICES)
    for chosen in choices:
        columns_to = dict(zip(columns, chosen, strict=True))
        if list(chosen) == columns:
            continue
        values = moved({}, columns_to)
        if values and set(chosen) != set(columns):
            yield "col" if len(columns) == 1 else "cols", values
        if len(rows) == 1 and set(chosen) != set(columns):
            for row in grid.rows:
                values = moved({rows[0]: row}, columns_to) if abs(row - rows[0]) == 1 else None
                if values:
                    yield "rowcol", values
    for row, column in dict.fromkeys(places.values()):
        for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            # An operand beside itself (44.1 - 44.1) is a result that nobody would give.
            to = {i: place if old == (row, column) else old for i, old in places.items()}
            values = None if place in places.values() else _replaced(derivation, grid, places, to)
            if values:
                yield "oneop", values


def _replaced(derivation: Derivation, grid: Grid, places: dict[int, Place], to: dict[int, Place]) -> list[float] | None:
    values = list(derivation.values)
    for i, place in to.items():
        if place not in grid.numbers:
            return None
        old, new = grid.numbers[places[i]].value, grid.numbers[place].value
        # A negative cell may stand in the derivation with or without its minus; the new one keeps the relation.
        values[i] = new if old * values[i] >= 0 else -new
    return values if values != list(derivation.values) else None


def _without_table(derivation: Derivation) -> Iterator[tuple[str, list[float]]]:
    values, operands = list(derivation.values), derivation.operands
    for first, second in pairwise(operands):
        exchanged = values.copy()
        exchanged[first], exchanged[second] = values[second], values[first]
        if exchanged != values:
            yield "opswap", exchanged
    for i, value in enumerate(values):
        if i not in operands and value.is_integer() and 2 <= value <= 12:
            for other in (value - 1, value + 1):
                if other > 1:
                    yield "avg-n", _with(values, i, other)
    # (a - b) / b, also with brackets around: the base of the change is the other one.
    if len(operands) == 3 and values[operands[2]] == values[operands[1]] != values[operands[0]]:
        yield "wrongbase", _with(values, operands[2], values[operands[0]])


def _with(values: Sequence[float], i: int, value: float) -> list[float]:
    return [*values[:i], value, *values[i + 1 :]]

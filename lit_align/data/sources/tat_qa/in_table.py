"""What an answer is to its table and passages, whatever the question."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lit_align.data.sources.tat_qa.answers import number_text, parse
from lit_align.data.sources.tat_qa.grid import Grid, Place
from lit_align.data.sources.tat_qa.numbers import YEAR, read_number
from lit_align.data.sources.tat_qa.phrases import FUNCTION_WORDS
from lit_align.data.sources.tat_qa.reading import Context

_OPERATIONS = ("difference", "sum", "mean", "share", "change")
_MOST_LINES = 30  # lines of a table that are compared pair by pair


@dataclass(frozen=True)
class _Result:
    """How a number comes out of two cells of one row or column."""

    operation: int
    axis: int
    line: int
    first: int
    second: int


class InTable:
    """Measures the answers of one context.

    Args:
        context: The table and its passages.
        grid: The numbers of the table.
    """

    def __init__(self, context: Context, grid: Grid) -> None:
        self.grid = grid
        self.text = "\n".join(" ".join(passage.text.split()) for passage in context.passages)
        self.low = self.text.lower()
        self.labels = [" ".join(row[0].split()).lower() for row in context.rows]
        self.cells: dict[str, list[Place]] = {}
        for i, row in enumerate(context.rows):
            for j, cell in enumerate(row):
                self.cells.setdefault(" ".join(cell.split()).lower(), []).append((i, j))
        self.values: dict[str, list[Place]] = {}
        for place, number in grid.numbers.items():
            self.values.setdefault(number_text(abs(number.value)), []).append(place)
        self.years = sorted({year for cell in self.cells for year in YEAR.findall(cell)}, reverse=True)
        header = " ".join(cell for row in context.rows[:3] for cell in row).lower()
        self.scale_words = [word in header for word in ("thousand", "million", "billion", "%", "000")]
        self.results: dict[str, list[_Result]] = {}
        for text, result in self._all_results():
            self.results.setdefault(text, []).append(result)

    def _all_results(self) -> Iterator[tuple[str, _Result]]:
        for axis, lines in ((0, self.grid.rows), (1, self.grid.columns)):
            for line, across in lines.items():
                for first in across[:_MOST_LINES]:
                    for second in across[:_MOST_LINES]:
                        if first == second:
                            continue
                        one, two = ((line, first), (line, second)) if axis == 0 else ((first, line), (second, line))
                        a, b = abs(self.grid.numbers[one].value), abs(self.grid.numbers[two].value)
                        found = [
                            a - b,
                            a + b,
                            (a + b) / 2,
                            100 * a / b if b else None,
                            100 * (a - b) / b if b else None,
                        ]
                        for operation, value in enumerate(found):
                            if value is not None:
                                yield number_text(value), _Result(operation, axis, line, first, second)

    def features(self, text: str) -> list[float]:
        """Measure an answer; the same list of measures for every answer.

        Args:
            text: An answer as the model writes it.
        """
        items, scale = parse(text)
        item = items[0] if items else ""
        return [
            *self._as_number(item),
            *self._as_result(item),
            *self._as_span(item),
            *self._as_list(items),
            float(bool(scale) and any(scale in word for word in self._header_scales())),
        ]

    def _header_scales(self) -> list[str]:
        words = ("thousand", "million", "billion", "percent", "thousand")
        return [word for word, there in zip(words, self.scale_words, strict=True) if there]

    def _places(self, item: str) -> list[Place]:
        number = read_number(item)
        if number and not YEAR.fullmatch(item.strip()):
            return self.values.get(number_text(abs(number.value)), [])
        return self.cells.get(item.lower(), [])

    def _as_number(self, item: str) -> list[float]:
        places = self._places(item)
        row, column = places[0] if places else (-1, -1)
        number = read_number(item)
        label = self.labels[row] if row >= 0 else ""
        rows, columns = list(self.grid.rows), list(self.grid.columns)
        return [
            len(places),
            float(number is not None and number.digits in self.text),
            rows.index(row) if row in rows else -1,
            len(rows) - rows.index(row) if row in rows else -1,
            columns.index(column) if column in columns else -1,
            float("total" in label),
            len(label.split()),
            self.years.index(item.strip()) if item.strip() in self.years else -1,
        ]

    def _as_result(self, item: str) -> list[float]:
        number = read_number(item)
        found = self.results.get(number_text(number.value), []) if number else []
        turned = self.results.get(number_text(-number.value), []) if number else []
        columns = list(self.grid.columns)
        best = found[0] if found else None
        result = [len(found[:4]), len(turned[:4]), float(bool(best) and best.axis == 0 if best else -1)]
        for operation in range(len(_OPERATIONS)):
            result += [float(any(one.operation == operation and one.axis == axis for one in found)) for axis in (0, 1)]
        if best is None:
            return [*result, -1, -1, -1, -1, -1, -1]
        by_row = best.axis == 0
        return [
            *result,
            best.operation,
            columns.index(best.first) if by_row else -1,
            columns.index(best.second) if by_row else -1,
            best.first - best.second,
            float("total" in self.labels[best.line]) if by_row else -1,
            best.line if by_row else -1,
        ]

    def _as_span(self, item: str) -> list[float]:
        at = self.low.find(item.lower().rstrip(".")) if item else -1
        if at < 0:
            return [-1, -1, -1, -1, -1, -1, float(item.lower() in self.labels), len(self.cells.get(item.lower(), []))]
        end = at + len(item.rstrip("."))
        before, after = self.low[:at].split(), self.low[end:].split()
        left = before[-1] if before and not (at and self.low[at - 1] == "\n") else ""
        right = self.low[end : end + 1]
        sentence = max(self.low.rfind(". ", 0, at), self.low.rfind("\n", 0, at))
        return [
            at / max(len(self.low), 1),
            self.low.count(item.lower()),
            0
            if not left
            else 1
            if left[-1] in ".:;"
            else 2
            if left[-1] in ",("
            else 3
            if left in FUNCTION_WORDS
            else 4,
            0 if not right else 1 if right in ".;:" else 2 if right in ",)" else 3 if right.isspace() else 4,
            float(bool(after) and after[0] in FUNCTION_WORDS),
            len(re.findall(r"\w+", self.low[sentence + 1 : at])),
            float(item.lower() in self.labels),
            len(self.cells.get(item.lower(), [])),
        ]

    def _as_list(self, items: list[str]) -> list[float]:
        if len(items) < 2:
            return [-1] * 7
        places = [(self._places(item) or [(-1, -1)])[0] for item in items]
        rows, columns = [row for row, _ in places], [column for _, column in places]
        return [
            len(set(rows)),
            len(set(columns)),
            float(-1 in rows),
            float(rows == sorted(rows)),
            float(columns == sorted(columns)),
            max(columns) - min(columns),
            len(self.grid.columns) - len(set(columns)),
        ]

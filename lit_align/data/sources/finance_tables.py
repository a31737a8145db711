"""Small finance tables, drawn at random, each of which belongs either to training or to evaluation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random
from typing import Literal

Split = Literal["train", "eval"]

METRICS = (
    "revenue", "profit", "income", "cash", "debt", "capital", "equity", "margin", "tax", "interest", "rent", "payroll",
)  # fmt: skip
YEARS = tuple(range(2015, 2025))
SCALES = ("thousand", "million", "billion", "percent")
EVAL_SHARE = 8  # one text in eight is for evaluation only
MAX_METRICS = 3


def split_of(text: str) -> Split:
    """Say which split a text belongs to: a property of the text alone, so that no seed can mix the two.

    Args:
        text: A table as the model sees it, or a question that stands alone.

    Returns:
        ``eval`` for the texts whose SHA-256 falls in one eighth of the space, else ``train``.
    """
    return "eval" if hashlib.sha256(text.encode()).digest()[0] % EVAL_SHARE == 0 else "train"


@dataclass(frozen=True)
class FinanceTable:
    """A table of whole numbers from 10 to 99; no number occurs twice, so that every comparison has an answer.

    Attributes:
        scale: The word of the header that says what the numbers count.
        metrics: The rows.
        years: The columns, consecutive.
        values: One tuple of numbers per metric, in the order of the years.
    """

    scale: str
    metrics: tuple[str, ...]
    years: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]

    def value(self, metric: str, year: int) -> int:
        """Look one cell up."""
        return self.values[self.metrics.index(metric)][self.years.index(year)]

    def cell(self, metric: str, year: int) -> str:
        """Write one cell as the table and the answers write it, ``revenue 2019 47``."""
        return f"{metric} {year} {self.value(metric, year)}"

    def text(self) -> str:
        """Write the whole table, a line per metric.

        Every cell repeats its metric: a tiny model then finds a number by the two words before it, where a
        table that names the metric once a line was not learned in the same time.
        """
        lines = ["| " + " | ".join(self.cell(metric, year) for year in self.years) + " |" for metric in self.metrics]
        return "\n".join([f"Table in {self.scale}", *lines])

    def id(self) -> str:
        """Name the table by its content."""
        return "table-" + hashlib.sha256(self.text().encode()).hexdigest()[:16]


def draw_table(
    rng: Random, split: Split, n_metrics: tuple[int, ...] = (1, 2, 2, 3), n_years: tuple[int, ...] = (2, 2, 3)
) -> FinanceTable:
    """Draw a table of one split.

    Args:
        rng: Where the randomness comes from; it moves on.
        split: Draws of the other split are thrown away.
        n_metrics: Numbers of rows to choose from, each as likely as it is frequent here.
        n_years: Numbers of columns to choose from, in the same way.

    Returns:
        The table.
    """
    while True:
        rows, columns = rng.choice(n_metrics), rng.choice(n_years)
        first = rng.randint(0, len(YEARS) - columns)
        numbers = rng.sample(range(10, 100), rows * columns)
        table = FinanceTable(
            scale=rng.choice(SCALES),
            metrics=tuple(rng.sample(METRICS, rows)),
            years=YEARS[first : first + columns],
            values=tuple(tuple(numbers[row * columns : (row + 1) * columns]) for row in range(rows)),
        )
        if split_of(table.text()) == split:
            return table

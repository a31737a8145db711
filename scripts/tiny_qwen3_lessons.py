"""What the tiny model is taught, and in which order: cells first, then the old skills."""

from __future__ import annotations

from random import Random

from lit_align.data.sources.finance_tables import FinanceTable, draw_table
from lit_align.data.sources.table_skills import TableTask, as_dialogue, ask, draw_task
from lit_align.types import Message

Row = tuple[Message, ...]
Shapes = tuple[tuple[int, int], ...]  # (metrics, years) of the tables

BY_YEAR_UNTIL = 0.14
CELLS_UNTIL = 0.36  # shares of the training
# One key at a time: matching the year is learned from tables of one metric, matching the metric from tables of one
# year. In trials, tables that need both from the start took longer (single runs).
BY_YEAR: Shapes = ((1, 3), (1, 3), (1, 3), (3, 1))
BY_BOTH: Shapes = ((3, 1), (2, 1), (1, 3), (2, 2), (2, 3), (3, 2), (3, 3))
SKILL_WEIGHTS = {"lookup": 1, "rise": 2, "higher": 2, "compare": 3, "chat": 2}


def dialogue(rng: Random, turns: int) -> Row:
    """Draw questions of the old skills; several of them share one table."""
    skills = rng.choices(list(SKILL_WEIGHTS), list(SKILL_WEIGHTS.values()), k=turns)
    if turns == 1:
        return as_dialogue([draw_task(skills[0], "train", rng)])
    table = draw_table(rng, "train", (2, 2, 3) if "compare" in skills else (1, 2, 2, 3))
    return as_dialogue([ask(skill, table, "train", rng) for skill in skills])


def _table(rng: Random, shapes: Shapes) -> FinanceTable:
    metrics, years = rng.choice(shapes)
    return draw_table(rng, "train", (metrics,), (years,))


def look_ups(rng: Random, shapes: Shapes) -> Row:
    """Draw three look-ups in one table."""
    table = _table(rng, shapes)
    return as_dialogue([ask("lookup", table, "train", rng) for _ in range(3)])


def reading(rng: Random, shapes: Shapes) -> Row:
    """Draw a table to be read out, cell by cell in random order: the most look-ups for the fewest tokens."""
    table = _table(rng, shapes)
    cells = [table.cell(metric, year) for metric in table.metrics for year in table.years]
    rng.shuffle(cells)
    return as_dialogue([TableTask(table, "Read the table.", f"See {', '.join(cells)}.")])


def lesson(rng: Random, share: float) -> list[Row]:
    """Draw the dialogues of one step.

    Args:
        rng: Where the randomness comes from; it moves on.
        share: How much of the training is done, from 0 to 1.

    Returns:
        About two thousand tokens of training rows; no table or greeting of the evaluation is among them.
    """
    if share < CELLS_UNTIL:
        shapes = BY_YEAR if share < BY_YEAR_UNTIL else BY_BOTH
        return [
            *(reading(rng, shapes) for _ in range(14)),
            *(look_ups(rng, shapes) for _ in range(5)),
            *(dialogue(rng, 1) for _ in range(2)),
        ]
    if rng.random() < 0.5:
        return [dialogue(rng, 5) for _ in range(10)]
    return [dialogue(rng, 1) for _ in range(24)]

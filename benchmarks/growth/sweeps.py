"""What is varied, and what a step is expected to cost there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.dpo.pairs import MadePairs

VOCABULARY = 5_120
QUESTION, ANSWER, CONTEXT = (35, 35), (9, 9), 500
"""Means of the shapes of TAT-QA, without their spread: a curve is to show its own bends alone."""


@dataclass(frozen=True)
class Sweep:
    """One variable.

    Attributes:
        name: As it stands in the tables, and on its axis.
        values: That are measured, ascending.
        rows: The pairs at a value.
    """

    name: str
    values: tuple[int, ...]
    rows: Callable[[int], MadePairs]


SWEEPS = (
    Sweep(
        "questions on one table", (1, 2, 4, 6, 9, 12),
        lambda count: MadePairs(count, CONTEXT, QUESTION, ANSWER, VOCABULARY),
    ),
    Sweep(
        "tokens of an answer", (25, 50, 100, 200, 400, 800),
        lambda length: MadePairs(2, 0, (150, 150), (length, length), VOCABULARY),
    ),
    Sweep(
        "tokens of the context", (250, 500, 1_000, 2_000, 4_000),
        lambda length: MadePairs(6, length, QUESTION, ANSWER, VOCABULARY),
    ),
    Sweep(
        "tokens of the vocabulary", (9_496, 18_992, 37_984, 75_968, 151_936),
        lambda size: MadePairs(2, 0, (150, 150), (150, 150), size),
    ),
    Sweep(
        "tables of six questions in a window", (1, 2, 3, 4, 6),
        lambda tables: MadePairs(6, CONTEXT, QUESTION, ANSWER, VOCABULARY, tables),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A step at one value of a variable.

    Attributes:
        value: Of the variable.
        rows: Tokens of the forests.
        scored: Distinct (row, target token) pairs, which go through the head.
        logits: MB that their fp32 logits would take.
        flops: Of the products.
        seconds: CPU time, the median of the rounds.
        megabytes: Peak above the weights.
    """

    value: int
    rows: int
    scored: int
    logits: float
    flops: int
    seconds: float
    megabytes: float


def expected_seconds(points: Sequence[Point]) -> list[float]:
    """Time in proportion to FLOPs, from the last point, whose products are the largest."""
    last = points[-1]
    return [last.seconds * point.flops / last.flops for point in points]


def expected_megabytes(points: Sequence[Point]) -> list[float]:
    """Memory in proportion to tokens, from the last point: of the vocabulary a chunk is alive, whatever its size.

    Example:
        >>> first, last = (Point(value, value, 1, 0.0, 1, 1.0, 30.0) for value in (10, 20))
        >>> expected_megabytes([first, last])
        [15.0, 30.0]
    """
    last = points[-1]
    return [last.megabytes * point.rows / last.rows for point in points]

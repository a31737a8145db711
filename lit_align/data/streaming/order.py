"""The order of a stream: neighbours of one group stay together, and a buffer shuffles what goes by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from lit_align.types import Conversation, PreferencePair

Record = TypeVar("Record", Conversation, PreferencePair)
T = TypeVar("T")


def runs(records: Iterable[Record], most: int) -> Iterator[list[Record]]:
    """Join neighbours that are of one group.

    Args:
        records: Any number of records, in their order.
        most: Most records of a run, >= 1: a stream that is sorted by a large group is not held in memory.

    Yields:
        The runs; a record without a group is alone.

    Example:
        >>> names = ("a1", "a2", "b1", "-1", "-2")
        >>> records = [Conversation((), name, "x", group=name[0].strip("-")) for name in names]
        >>> [[one.id for one in run] for run in runs(records, most=2)]
        [['a1', 'a2'], ['b1'], ['-1'], ['-2']]
    """
    run: list[Record] = []
    for record in records:
        if run and (not record.group or record.group != run[0].group or len(run) == most):
            yield run
            run = []
        run.append(record)
    if run:
        yield run


def through_buffer(items: Iterable[T], size: int, generator: np.random.Generator) -> Iterator[T]:
    """Shuffle what goes by: what comes next is any of the ``size`` that are held, and the stream fills its place.

    So an item comes at most ``size - 1`` places early, and late by any number: ``size`` places in the mean, while the
    stream lasts.

    Args:
        items: Any number; read as far as the buffer needs.
        size: Items held, >= 1; 1 leaves the order as it is.
        generator: Decides the order; it moves on.

    Example:
        >>> list(through_buffer(range(6), 1, np.random.default_rng(0)))
        [0, 1, 2, 3, 4, 5]
        >>> list(through_buffer(range(6), 3, np.random.default_rng(0)))
        [2, 1, 3, 0, 5, 4]
    """
    held: list[T] = []
    for item in items:
        held.append(item)
        if len(held) == size:
            yield _taken(held, generator)
    while held:
        yield _taken(held, generator)


def _taken(held: list[T], generator: np.random.Generator) -> T:
    place = int(generator.integers(len(held)))
    held[place], held[-1] = held[-1], held[place]
    return held.pop()

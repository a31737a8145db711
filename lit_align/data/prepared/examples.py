"""The tokenised examples of one part of the data, and which of them an epoch holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_align.data.prepared.columns import Column, Columns, Place, TextColumn, Texts
from lit_align.forest import TokenPath

Numbers = NDArray[np.int64]

_UNRATED = -1


class Tokenised(NamedTuple):
    """What becomes of a record.

    Attributes:
        name: Id of the record.
        group: Its group, empty for none.
        source: Name of its source.
        paths: What is trained of it: a path for each answer; none if it is dropped.
        size: Rows that the paths take together.
        least: Rows of it that no budget can part.
        outcomes: What happened to each of its answers (to a pair as a whole), with the tokens of the prompt and of
            prompt and answer.
        refused: The rule that it breaks, if it does.
        lost: Answer tokens that cuts took from its paths.
    """

    name: str
    group: str
    source: str
    paths: tuple[TokenPath, ...] = ()
    size: int = 0
    least: int = 0
    outcomes: tuple[tuple[str, int, int], ...] = ()
    refused: ValueError | None = None
    lost: int = 0


class GrowingExamples:
    """Examples under construction.

    Args:
        place: Where their files lie, once they are large.
        part: Name of the part; their names begin with it.
        weight: Weight of the targets in the NLL, the same of all.
    """

    def __init__(self, place: Place, part: str, weight: float) -> None:
        self._place, self._part, self._weight = place, part, weight
        self._sources: dict[str, int] = {}
        numbers = dict.fromkeys(("path_ends", "example_ends", "sizes", "least", "sources"), "<i8")
        self._columns = {
            name: Column(place, f"{part}.{name}", dtype)
            for name, dtype in {"tokens": "<i4", "classes": "u1", "ratings": "i1", **numbers}.items()
        }
        self._texts = {name: TextColumn(place, f"{part}.{name}") for name in ("paths", "names", "groups")}

    def append(self, one: Tokenised) -> int:
        """Add an example; its number is returned.

        Raises:
            OSError: The disk is full.
        """
        columns, texts = self._columns, self._texts
        for path in one.paths:
            columns["tokens"].append(path.tokens)
            columns["classes"].append(path.classes)
            columns["path_ends"].append(len(columns["tokens"]))
            columns["ratings"].append(_UNRATED if path.desirable is None else path.desirable)
            texts["paths"].append(path.example)
        columns["example_ends"].append(len(columns["path_ends"]))
        columns["sizes"].append(one.size)
        columns["least"].append(one.least)
        columns["sources"].append(self._sources.setdefault(one.source, len(self._sources)))
        texts["names"].append(one.name)
        texts["groups"].append(one.group)
        return len(columns["sizes"]) - 1

    def finished(self, order: Numbers, places: Numbers) -> Examples:
        """No more is added.

        Args:
            order: Numbers of the examples of an epoch; one that is repeated occurs several times.
            places: Of each of them its place among what was drawn, dropped records among it.

        Raises:
            OSError: The disk is full.
        """
        texts = [column for text in self._texts.values() for column in text.columns]
        columns = [*self._columns.values(), *texts]
        for name, values in (("order", order), ("places", places), ("copies", _copies(order))):
            columns.append(column := Column(self._place, f"{self._part}.{name}", "<i8"))
            column.append(values)
        return Examples(self._part, Columns.finished(columns, self._place), tuple(self._sources), self._weight)


def _copies(order: Numbers) -> Numbers:
    """How often each number has occurred before.

    Example:
        >>> _copies(np.array([7, 8, 7, 7])).tolist()
        [0, 0, 1, 2]
    """
    together = order.argsort(kind="stable")
    runs = np.unique(order, return_counts=True)[1]
    copies = np.zeros_like(order)
    copies[together] = np.arange(len(order)) - np.repeat(runs.cumsum() - runs, runs)
    return copies


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of one part of the data.

    Attributes:
        part: Name of the part.
        columns: All that is known of them.
        source_names: Names of the sources, by their numbers in the columns.
        weight: Weight of the targets in the NLL.
    """

    part: str
    columns: Columns
    source_names: tuple[str, ...]
    weight: float

    @cached_property
    def sizes(self) -> Numbers:
        """Rows that each example takes."""
        return self._column("sizes")

    @cached_property
    def least(self) -> Numbers:
        """Rows of each example that no budget can part."""
        return self._column("least")

    @cached_property
    def path_counts(self) -> Numbers:
        """Paths of each example."""
        return np.diff(self._column("example_ends"), prepend=0)

    @cached_property
    def ratings(self) -> Numbers:
        """Of each path 1 for a good answer, 0 for a bad one, -1 where nothing is said of it."""
        return self._column("ratings")

    @cached_property
    def grouped(self) -> bool:
        """Whether an example has a group."""
        return len(self.columns[f"{self.part}.groups.utf8"]) > 0

    @cached_property
    def order(self) -> Numbers:
        """Numbers of the examples of an epoch."""
        return self._column("order")

    @cached_property
    def places(self) -> Numbers:
        """Of each example of an epoch its place among what was drawn, dropped ones among it."""
        return self._column("places")

    @cached_property
    def copies(self) -> Numbers:
        """Of each example of an epoch how often it stands before."""
        return self._column("copies")

    @cached_property
    def names(self) -> Sequence[str]:
        """Id of each example."""
        return Texts(self.columns, f"{self.part}.names")

    @cached_property
    def groups(self) -> Sequence[str]:
        """Group of each example, empty for none."""
        return Texts(self.columns, f"{self.part}.groups")

    def paths(self, number: int) -> tuple[TokenPath, ...]:
        """The paths of an example."""
        ends = self._column("example_ends")
        first, last = (int(ends[number - 1]) if number else 0), int(ends[number])
        bounds = self._column("path_ends")[max(first - 1, 0) : last].tolist()
        source = self.source_names[self._column("sources")[number]]
        tokens, classes = self._column("tokens"), self._column("classes")
        return tuple(
            TokenPath(
                tokens[start:end], classes[start:end], self._path_names[path], self.weight, source, self._rating(path)
            )
            for path, (start, end) in enumerate(pairwise([*([] if first else [0]), *bounds]), start=first)
        )

    def _rating(self, path: int) -> bool | None:
        return None if self.ratings[path] == _UNRATED else bool(self.ratings[path])

    def sources_of(self, numbers: Numbers) -> tuple[str, ...]:
        """Names of the sources of some examples, in the order of their first ones."""
        found, first = np.unique(self._column("sources")[numbers], return_index=True)
        return tuple(self.source_names[number] for number in found[first.argsort()])

    @cached_property
    def leaders(self) -> Numbers:
        """Of each example of an epoch the first one of its group, itself where it stands alone.

        The second copies of a group's examples are a group of their own, and so on.
        """
        first: dict[tuple[str, int], int] = {}
        leaders, groups = np.arange(len(self.order)), list(self.groups)
        for at, (number, copy) in enumerate(zip(self.order.tolist(), self.copies.tolist(), strict=True)):
            if group := groups[number]:
                leaders[at] = first.setdefault((group, copy), at)
        return leaders

    @cached_property
    def _path_names(self) -> Sequence[str]:
        return Texts(self.columns, f"{self.part}.paths")

    def _column(self, name: str) -> NDArray[Any]:
        return self.columns[f"{self.part}.{name}"]

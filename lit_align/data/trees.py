"""The trees that windows are made of: given as they are, or made of prepared examples when a window needs them."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, overload

import numpy as np
from tqdm import tqdm

from lit_align.data.lengths import refuse_over_budget
from lit_align.data.prepared.examples import Examples, Numbers
from lit_align.data.windows import Tree, group_of_copy, within_budget
from lit_align.forest import TokenPath
from lit_align.trie import shared_size

logger = logging.getLogger(__name__)


class Trees(Sequence[Tree]):
    """Trees, of which some things are known without their tokens.

    Attributes:
        sizes: Rows that each takes.
        path_counts: Paths of each.
        firsts: Of each the number of its first example, the same where an epoch repeats it.
    """

    sizes: Numbers
    path_counts: Numbers
    firsts: Numbers

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, at: int) -> Tree: ...

    @overload
    def __getitem__(self, at: slice) -> list[Tree]: ...

    def __getitem__(self, at: int | slice) -> Tree | list[Tree]:
        numbers = range(len(self))[at]
        return [self._tree(i) for i in numbers] if isinstance(numbers, range) else self._tree(numbers)

    @abstractmethod
    def name(self, at: int) -> str:
        """Name of a tree."""

    @abstractmethod
    def source_names(self) -> tuple[str, ...]:
        """Names of the sources, in the order of their first paths."""

    @cached_property
    def leaders(self) -> tuple[int, ...]:
        """For each tree the number of the first of its group; nothing where no tree has one."""
        return ()

    @abstractmethod
    def _tree(self, at: int) -> Tree: ...

    def largest(self, most: int) -> list[Tree]:
        """The largest trees, the largest first; those of one size by name.

        Args:
            most: How many.
        """
        return self._least(np.arange(len(self)), -self.sizes, most)

    def smallest_to_share(self, most: int) -> list[Tree]:
        """The smallest trees, those of several paths before the others; none twice where an epoch repeats it.

        Args:
            most: How many.
        """
        last = np.unique(self.firsts[::-1], return_index=True)[1]
        once = len(self) - 1 - last
        keys = (self.path_counts == 1) * (1 + self.sizes.max(initial=0)) + self.sizes
        return self._least(once, keys[once], most)

    def _least(self, trees: Numbers, keys: Numbers, most: int) -> list[Tree]:
        """Trees with the least keys; names are read of those alone that may be among them."""
        limit = np.sort(keys)[:most].max(initial=-(2**62))
        found = [(int(keys[i]), self.name(int(trees[i])), int(trees[i])) for i in np.flatnonzero(keys <= limit)]
        return [self._tree(at) for _, _, at in sorted(found)[:most]]


class GivenTrees(Trees):
    """Trees that are in memory.

    Args:
        trees: The trees.
    """

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._trees = trees
        self.sizes = np.array([tree.size for tree in trees], np.int64)
        self.path_counts = np.array([len(tree.paths) for tree in trees], np.int64)
        known: dict[int, int] = {}
        self.firsts = np.array([known.setdefault(id(tree.paths[0]), len(known)) for tree in trees], np.int64)

    def name(self, at: int) -> str:
        """See :class:`Trees`."""
        return self._trees[at].name

    def source_names(self) -> tuple[str, ...]:
        """See :class:`Trees`."""
        return tuple(dict.fromkeys(path.source for tree in self._trees for path in tree.paths))

    def _tree(self, at: int) -> Tree:
        return self._trees[at]


class StagedTrees(Trees):
    """The trees of several stages, one after another; sources are named by stage, ``STAGE/SOURCE``.

    Args:
        stages: The trees of each stage, by its name.
    """

    def __init__(self, stages: Mapping[str, Trees]) -> None:
        self._stages = stages
        self._starts = np.array([0, *(len(trees) for trees in stages.values())], np.int64).cumsum()
        none = np.zeros(0, np.int64)
        self.sizes = np.concatenate([none, *(trees.sizes for trees in stages.values())])
        self.path_counts = np.concatenate([none, *(trees.path_counts for trees in stages.values())])
        firsts, known = [none], 0
        for trees in stages.values():
            firsts.append(trees.firsts + known)
            known += int(trees.firsts.max(initial=-1)) + 1
        self.firsts = np.concatenate(firsts)

    def name(self, at: int) -> str:
        """See :class:`Trees`."""
        stage, own = self._place(at)
        return self._stages[stage].name(own)

    def source_names(self) -> tuple[str, ...]:
        """See :class:`Trees`."""
        return tuple(f"{stage}/{name}" for stage, trees in self._stages.items() for name in trees.source_names())

    def _tree(self, at: int) -> Tree:
        stage, own = self._place(at)
        tree = self._stages[stage][own]
        return replace(tree, paths=tuple(replace(path, source=f"{stage}/{path.source}") for path in tree.paths))

    def _place(self, at: int) -> tuple[str, int]:
        """The stage that a tree is of, and its number there."""
        number = int(np.searchsorted(self._starts, at, side="right")) - 1
        return list(self._stages)[number], at - int(self._starts[number])


class ConversationTrees(Trees):
    """A tree for each conversation of an epoch.

    Args:
        examples: The conversations.
        budget: ``data.token_budget``.

    Raises:
        ValueError: An answer is over the budget.
    """

    def __init__(self, examples: Examples, budget: int) -> None:
        _refuse_largest(examples, budget, "answer")
        self._examples = examples
        self.sizes = examples.sizes[examples.order]
        self.path_counts = examples.path_counts[examples.order]
        self.firsts = examples.order

    @cached_property
    def leaders(self) -> tuple[int, ...]:
        """See :class:`Trees`."""
        return tuple(self._examples.leaders.tolist()) if self._examples.grouped else ()

    def name(self, at: int) -> str:
        """See :class:`Trees`."""
        return self._examples.names[int(self._examples.order[at])]

    def source_names(self) -> tuple[str, ...]:
        """See :class:`Trees`."""
        return self._examples.sources_of(self._examples.order)

    def _tree(self, at: int) -> Tree:
        number = int(self._examples.order[at])
        group = group_of_copy(self._examples.groups[number], int(self._examples.copies[at]))
        return Tree(self._examples.names[number], self._examples.paths(number), int(self.sizes[at]), group)


class GroupTrees(Trees):
    """A tree for each group of an epoch's examples, in the order of their first ones; several for a large group.

    An example has two paths, which are never parted. The log says how many groups are split.

    Args:
        examples: The examples.
        window: Most examples of a tree.
        budget: Most rows of a tree; one of a single example may have more.
    """

    what: ClassVar[str]  # is an example, for messages

    def __init__(self, examples: Examples, window: int, budget: int) -> None:
        self._examples = examples
        # Places in the epoch, group by group; those of a group in their order.
        self._members = examples.leaders.argsort(kind="stable")
        counts = np.unique(examples.leaders, return_counts=True)[1].tolist()
        sizes: list[int] = []
        lengths: list[int] = []
        parts: list[int] = []  # number of a part of a group, 0 for a whole one
        at = split = 0
        for count in tqdm(counts, desc=f"grouping {examples.part}", delay=2, leave=False, unit=" groups"):
            divided = self._divided(self._members[at : at + count].tolist(), window, budget)
            at += count
            split += len(divided) > 1
            for number, (length, size) in enumerate(divided, start=1):
                lengths.append(length)
                sizes.append(size)
                parts.append(number if len(divided) > 1 else 0)
        self.sizes, self._parts = np.array(sizes, np.int64), np.array(parts, np.int64)
        self._ends = np.array(lengths, np.int64).cumsum()
        self.path_counts = 2 * np.array(lengths, np.int64)
        self.firsts = examples.order[self._members[self._ends - lengths]] if lengths else np.zeros(0, np.int64)
        if split:
            logger.info(
                f"{examples.part}: {split} of {len(counts)} groups hold more {self.what}s than `data.window` = "
                f"{window} or more tokens than `data.token_budget` = {budget}, and are split"
            )

    @abstractmethod
    def _paths(self, place: int) -> tuple[TokenPath, ...]:
        """The two paths of the example at a place of the epoch."""

    def _rows(self, place: int) -> int:
        """Rows that they take."""
        return shared_size([path.tokens for path in self._paths(place)])

    def _divided(self, places: list[int], window: int, budget: int) -> list[tuple[int, int]]:
        """Examples and rows of each tree of a group."""
        if len(places) == 1:
            return [(1, self._rows(places[0]))]
        paths = [path for place in places for path in self._paths(place)]
        parts = within_budget(paths, budget, together=2, most=2 * window)
        return [(len(part) // 2, size) for part, size in parts]

    def _places(self, at: int) -> list[int]:
        places: list[int] = self._members[(self._ends[at - 1] if at else 0) : self._ends[at]].tolist()
        return places

    def name(self, at: int) -> str:
        """See :class:`Trees`."""
        first = int(self._examples.leaders[self._places(at)[0]])
        number = int(self._examples.order[first])
        alone = f"{self._examples.names[number]} #{self._examples.places[first]}"
        name = group_of_copy(self._examples.groups[number], int(self._examples.copies[first])) or alone
        return f"{name} part {self._parts[at]}" if self._parts[at] else name

    def source_names(self) -> tuple[str, ...]:
        """See :class:`Trees`."""
        return self._examples.sources_of(self._examples.order[self._members])

    def _tree(self, at: int) -> Tree:
        paths = tuple(path for place in self._places(at) for path in self._paths(place))
        return Tree(self.name(at), paths, int(self.sizes[at]))


class PairTrees(GroupTrees):
    """A tree for each group of an epoch's pairs; see :class:`GroupTrees`.

    Args:
        examples: The pairs.
        window: Most pairs of a tree.
        budget: Most rows of a tree.

    Raises:
        ValueError: A pair is over the budget.
    """

    what = "pair"

    def __init__(self, examples: Examples, window: int, budget: int) -> None:
        _refuse_largest(examples, budget, self.what)
        super().__init__(examples, window, budget)

    def _paths(self, place: int) -> tuple[TokenPath, ...]:
        return self._examples.paths(int(self._examples.order[place]))

    def _rows(self, place: int) -> int:
        return int(self._examples.sizes[self._examples.order[place]])


def _refuse_largest(examples: Examples, budget: int, what: str) -> None:
    for number in np.flatnonzero(examples.least > budget)[:1]:
        refuse_over_budget(examples.names[number], int(examples.least[number]), budget, what)

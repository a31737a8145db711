"""Sharing the common beginnings of token sequences."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Segment:
    """A run of tokens without a branch.

    Attributes:
        start: First row.
        end: Row after its last.
        parent: Index of the segment that it continues, -1 for a root.
        children: Indices of the segments that continue it, the largest subtree first.
    """

    start: int
    end: int
    parent: int
    children: tuple[int, ...]


class Trie:
    """Rows and segments under construction, in depth-first order.

    Attributes:
        tokens: Token ids of each segment.
        positions: Depths of each segment's tokens.
    """

    def __init__(self) -> None:
        self.tokens: list[Tokens] = []
        self.positions: list[Rows] = []
        self._bounds: list[tuple[int, int, int]] = []
        self._children: list[list[int]] = []
        self._size = 0

    def add(self, group: Sequence[Tokens]) -> list[Rows]:
        """Append the trees of one group of sequences; return each sequence's rows, in the order given."""
        order = sorted(range(len(group)), key=lambda i: _sort_key(group[i]))
        ordered = [group[i] for i in order]
        common = [_common(a, b) for a, b in itertools.pairwise(ordered)]
        # A path that another one continues needs no leaf: it ends inside the other's rows. In sorted order the next
        # path is the one that continues it.
        leaves = [i for i in range(len(ordered)) if i == len(common) or common[i] < len(ordered[i])]
        shared = [min(common[a:b]) for a, b in itertools.pairwise(leaves)]
        leaf_rows: dict[int, Rows] = {}
        empty = np.zeros(0, np.int64)
        # (leaves lo..hi, tokens already placed, rows so far, parent); a stack, for a long chat is a deep tree.
        todo: list[tuple[int, int, int, Rows, int]] = []

        def push_branches(lo: int, hi: int, depth: int, rows: Rows, parent: int) -> None:
            cuts = [lo, *(i + 1 for i in range(lo, hi - 1) if shared[i] == depth), hi]
            branches = list(itertools.pairwise(cuts))
            # The largest subtree comes first (is popped first): it makes one causal run with its parent.
            sizes = {
                (a, b): sum(len(ordered[leaves[i]]) for i in range(a, b)) - sum(shared[a : b - 1]) for a, b in branches
            }
            todo.extend((a, b, depth, rows, parent) for a, b in sorted(branches, key=lambda b: (sizes[b], -b[0])))

        push_branches(0, len(leaves), 0, empty, -1)
        while todo:
            lo, hi, depth, rows, parent = todo.pop()
            end = min(shared[lo : hi - 1], default=len(ordered[leaves[lo]]))
            index = self._append(ordered[leaves[lo]][depth:end], depth, parent)
            rows = np.concatenate([rows, np.arange(self._bounds[index][0], self._bounds[index][1])])
            if hi - lo == 1:
                leaf_rows[leaves[lo]] = rows
            else:
                push_branches(lo, hi, end, rows, index)
        result: list[Rows] = [empty] * len(group)
        for position, original in enumerate(order):
            leaf = leaves[bisect_left(leaves, position)]
            result[original] = leaf_rows[leaf][: len(ordered[position])]
        return result

    def _append(self, tokens: Tokens, depth: int, parent: int) -> int:
        index, start = len(self._bounds), self._size
        self._size += len(tokens)
        self._bounds.append((start, self._size, parent))
        self._children.append([])
        if parent >= 0:
            self._children[parent].append(index)
        self.tokens.append(tokens)
        self.positions.append(np.arange(depth, depth + len(tokens)))
        return index

    def segments(self) -> list[Segment]:
        """The tree so far, in the order of the rows."""
        pairs = zip(self._bounds, self._children, strict=True)
        return [Segment(start, end, parent, tuple(children)) for (start, end, parent), children in pairs]

    def subtree_end(self) -> Rows:
        """For each row, the row after the last descendant of its segment."""
        result = np.zeros(self._size, np.int64)
        last = [end for _, end, _ in self._bounds]
        for index in reversed(range(len(self._bounds))):
            start, end, parent = self._bounds[index]
            result[start:end] = last[index]
            if parent >= 0:
                last[parent] = max(last[parent], last[index])
        return result


def shared_size(group: Sequence[Tokens]) -> int:
    """Number of rows that one group of sequences takes.

    Example:
        >>> shared_size([np.array([7, 8, a], np.int32) for a in (1, 2)])
        4
    """
    ordered = sorted(group, key=_sort_key)
    return len(ordered[0]) + sum(len(b) - _common(a, b) for a, b in itertools.pairwise(ordered))


def _sort_key(tokens: Tokens) -> bytes:
    # Big-endian bytes of non-negative ids compare as the ids do, at C speed.
    return tokens.astype(">u4").tobytes()


def _common(a: Tokens, b: Tokens) -> int:
    n = min(len(a), len(b))
    differs = np.flatnonzero(a[:n] != b[:n])
    return int(differs[0]) if len(differs) else n

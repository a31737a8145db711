"""One rejected answer a question, chosen jointly so that the rejected answers as a set look like the chosen ones.

A classifier that does not read the question can only go by how answers look and how they sit in their table. Each pair
is written as a vector that changes its sign when chosen and rejected are exchanged; the choice makes the sum of these
vectors small, so that every such difference is met as often in one direction as in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import numpy as np
import numpy.typing as npt

from lit_align.data.sources.tat_qa.surface import BUCKETS, hashed_grams

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_BIN, _GRAM, _FLOW, _SIGN, _LEAF = 0.5, 0.35, 1.0, 0.7, 0.4  # weights of the terms
_OWN = 0.05  # weight of a pair's own size: between two that balance alike the more alike pair is taken
_BINS, _TREES, _DEPTH, _SWEEPS = 9, 60, 4, 6
_ROWS = 4096  # vectors that are built at a time


@dataclass(frozen=True)
class Option:
    """A rejected answer that a question may take.

    Attributes:
        text: The answer.
        features: What it looks like, as numbers.
        classes: What it is, as names; one each for the same list of aspects.
        cost: How much it is wished against, besides balance.
    """

    text: str
    features: Sequence[float]
    classes: Sequence[str]
    cost: float = 0.0


@dataclass(frozen=True)
class _Vectors:
    """One vector for each option, of which only the entries that are not 0 are kept; no row names an entry twice."""

    index: Ints
    value: Floats
    ends: Ints  # the entries of row i are those from ends[i] to ends[i + 1]
    size: int

    def entries(self, start: int, stop: int) -> tuple[Ints, Floats]:
        """The entries of some rows, one row after the other."""
        of = slice(self.ends[start], self.ends[stop])
        return self.index[of], self.value[of]

    def products(self, total: npt.NDArray[np.float64], start: int, stop: int) -> npt.NDArray[np.float64]:
        """The products of some rows with a vector."""
        index, value = self.entries(start, stop)
        row = np.repeat(np.arange(stop - start), np.diff(self.ends[start : stop + 1]))
        return np.bincount(row, total[index] * value, minlength=stop - start).astype(np.float64)


def choose_jointly(
    chosen: Sequence[Option], options: Sequence[Sequence[Option]], seed: int, drop_above: float, most_dropped: int
) -> list[int | None]:
    """Choose one option a question, or none.

    Args:
        chosen: The better answer of each question.
        options: The wrong answers of each question; at least one.
        seed: Seed of the order and of the random trees.
        drop_above: A question whose best option disturbs the balance by more than this may go without.
        most_dropped: How many questions may.

    Returns:
        For each question the place of its option, or None.
    """
    if not chosen:
        return []
    rng = np.random.default_rng(seed)
    starts = np.cumsum([0, *(len(one) for one in options)])
    vectors = _vectors(chosen, options, rng)
    own = np.array([(vectors.entries(row, row + 1)[1] ** 2).sum() for row in range(starts[-1])])
    cost = np.array([option.cost for one in options for option in one]) + _OWN * own
    total = np.zeros(vectors.size)

    def add(row: int, sign: int) -> None:
        index, value = vectors.entries(row, row + 1)
        total[index] += sign * value

    pick = [int(rng.integers(start, stop)) for start, stop in pairwise(starts)]
    for row in pick:
        add(row, 1)
    dropped: set[int] = set()
    for sweep in range(_SWEEPS):
        changed = False
        for i in rng.permutation(len(chosen)).tolist():
            start, stop = int(starts[i]), int(starts[i + 1])
            before = None if i in dropped else pick[i]
            if before is not None:
                add(before, -1)
            dropped.discard(i)
            # |sum + v|^2 - |sum|^2 = 2 sum.v + |v|^2
            price = 2 * vectors.products(total, start, stop) + own[start:stop] + cost[start:stop]
            pick[i] = start + int(price.argmin())
            # The first sweeps only settle: while the sum is still far off, any option may look bad.
            if sweep >= _SWEEPS // 2 and price.min() > drop_above and len(dropped) < most_dropped:
                dropped.add(i)
            else:
                add(pick[i], 1)
            changed |= before != (None if i in dropped else pick[i])
        if not changed and sweep > _SWEEPS // 2:
            break
    return [None if i in dropped else pick[i] - int(starts[i]) for i in range(len(chosen))]


def _vectors(chosen: Sequence[Option], options: Sequence[Sequence[Option]], rng: np.random.Generator) -> _Vectors:
    """How each pair differs from the pair turned round."""
    owner: Ints = np.repeat(np.arange(len(chosen), dtype=np.int32), [len(one) for one in options])
    flat = [option for one in options for option in one]
    better = np.array([option.features for option in chosen], dtype=np.float64)
    worse = np.array([option.features for option in flat], dtype=np.float64)
    own_bins, bins, n_bins = _bins(better, worse)
    own_leaves, leaves, n_leaves = _leaves(better, worse, rng)
    own_grams = [hashed_grams(option.text) for option in chosen]
    names: dict[tuple[int, str, str], int] = {}
    indices, values, counts, size = [], [], [], 0
    # Some rows at a time: written out with their zeros, all rows of the training set would take gigabytes.
    for rows in (slice(start, start + _ROWS) for start in range(0, len(flat), _ROWS)):
        of, made = owner[rows], flat[rows]
        parts, size = [], 0
        for (index, value), width in (
            (_difference(own_bins[of], bins[rows], _BIN), n_bins),
            (_difference(own_leaves[of], leaves[rows], _LEAF), n_leaves),
            (_signs(better[of], worse[rows]), better.shape[1]),
            (_grams([own_grams[i] for i in of], made), BUCKETS),
            (_flows([chosen[i] for i in of], made, names), 0),  # the last, since its width is not known before the end
        ):
            parts.append((index + size, value))
            size += width
        index, value = (np.concatenate(both, axis=1) for both in zip(*parts, strict=True))
        there = value != 0
        indices.append(index[there].astype(np.int32))
        values.append(value[there].astype(np.float32))
        counts.append(there.sum(axis=1))
    ends = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return _Vectors(np.concatenate(indices), np.concatenate(values), ends, size + len(names))


def _difference(own: Ints, other: Ints, weight: float) -> tuple[Ints, Floats]:
    """Codes of the chosen answer minus codes of the rejected one, each code an entry of its own."""
    differ = (own != other).astype(np.float32) * weight
    return np.concatenate([own, other], axis=1), np.concatenate([differ, -differ], axis=1)


def _bins(better: npt.NDArray[np.float64], worse: npt.NDArray[np.float64]) -> tuple[Ints, Ints, int]:
    both = np.concatenate([better, worse])
    codes = np.zeros(both.shape, dtype=np.int32)
    for j in range(both.shape[1]):
        edges = np.unique(np.quantile(both[:, j], np.linspace(0, 1, _BINS + 1)[1:-1]))
        # Above and at an edge are two bins: 0, -1 and years are values of their own.
        codes[:, j] = np.searchsorted(edges, both[:, j], "left") + np.searchsorted(edges, both[:, j], "right")
        codes[:, j] += 2 * _BINS * j
    return codes[: len(better)], codes[len(better) :], 2 * _BINS * both.shape[1]


def _leaves(
    better: npt.NDArray[np.float64], worse: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[Ints, Ints, int]:
    """The leaves of random trees, each of which asks the same questions on every branch."""
    both = np.concatenate([better, worse])
    codes = np.zeros((len(both), _TREES), dtype=np.int32)
    varying = np.flatnonzero(both.min(axis=0) < both.max(axis=0))
    if not len(varying):
        return codes[: len(better)], codes[len(better) :], 1
    for tree in range(_TREES):
        for j in rng.choice(varying, _DEPTH):
            edge = both[rng.integers(len(both)), j]
            above = both[:, j] > edge if edge < both[:, j].max() else both[:, j] >= edge
            codes[:, tree] = 2 * codes[:, tree] + above
        codes[:, tree] += tree * 2**_DEPTH
    return codes[: len(better)], codes[len(better) :], _TREES * 2**_DEPTH


def _signs(better: npt.NDArray[np.float64], worse: npt.NDArray[np.float64]) -> tuple[Ints, Floats]:
    """Which of the two has more of each feature: balanced features alone leave that to tell."""
    value = (np.sign(better - worse) * _SIGN).astype(np.float32)
    return np.broadcast_to(np.arange(value.shape[1], dtype=np.int32), value.shape), value


def _flows(
    chosen: Sequence[Option], made: Sequence[Option], names: dict[tuple[int, str, str], int]
) -> tuple[Ints, Floats]:
    """From which class to which a pair leads: as many shall lead from 1 to 2 as from 2 to 1."""
    width = max(len(option.classes) for option in (*chosen, *made))
    index, value = np.zeros((len(made), width), np.int32), np.zeros((len(made), width), np.float32)
    for i, (one, other) in enumerate(zip(chosen, made, strict=True)):
        for aspect, (a, b) in enumerate(zip_longest(one.classes, other.classes, fillvalue="")):
            if a != b:
                index[i, aspect] = names.setdefault((aspect, min(a, b), max(a, b)), len(names))
                value[i, aspect] = _FLOW if a < b else -_FLOW
    return index, value


def _grams(own: Sequence[dict[int, float]], made: Sequence[Option]) -> tuple[Ints, Floats]:
    """How often each bit of text stands in the chosen answer more than in the rejected one."""
    rows: list[dict[int, float]] = []
    for counts, option in zip(own, made, strict=True):
        difference = dict(counts)
        for bucket, count in hashed_grams(option.text).items():
            difference[bucket] = difference.get(bucket, 0.0) - count
        rows.append({bucket: count for bucket, count in difference.items() if count})
    width = max(1, *(len(row) for row in rows))
    index, value = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), np.float32)
    for i, row in enumerate(rows):
        index[i, : len(row)] = list(row)
        value[i, : len(row)] = list(row.values())
    # The length of a long text must not outweigh everything else.
    return index, _GRAM * np.clip(value, -2, 2)

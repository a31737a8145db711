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
class _Sparse:
    """Vectors with few entries, one a row; rows are filled up with index 0 and value 0."""

    index: Ints
    value: Floats


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
    vectors, size = _vectors(chosen, options, rng)
    own = (vectors.value**2).sum(axis=1)
    cost = np.array([option.cost for one in options for option in one], dtype=np.float32) + _OWN * own
    total = np.zeros(size, dtype=np.float64)
    pick = np.array([rng.integers(start, stop) for start, stop in pairwise(starts)])
    for row in pick:
        np.add.at(total, vectors.index[row], vectors.value[row])
    dropped: set[int] = set()
    for sweep in range(_SWEEPS):
        changed = 0
        for i in rng.permutation(len(chosen)):
            start, stop = starts[i], starts[i + 1]
            if i not in dropped:
                np.subtract.at(total, vectors.index[pick[i]], vectors.value[pick[i]])
            # |sum + v|^2 - |sum|^2 = 2 sum.v + |v|^2
            gain = 2 * (total[vectors.index[start:stop]] * vectors.value[start:stop]).sum(axis=1) + own[start:stop]
            price = gain + cost[start:stop]
            best = int(start + price.argmin())
            before = None if i in dropped else pick[i]
            dropped.discard(int(i))
            pick[i] = best
            # The first sweeps only settle: while the sum is still far off, any option may look bad.
            if sweep >= _SWEEPS // 2 and price.min() > drop_above and len(dropped) < most_dropped:
                dropped.add(int(i))
            else:
                np.add.at(total, vectors.index[best], vectors.value[best])
            changed += before != (None if i in dropped else best)
        if not changed and sweep > _SWEEPS // 2:
            break
    return [None if i in dropped else int(pick[i] - starts[i]) for i in range(len(chosen))]


def _vectors(
    chosen: Sequence[Option], options: Sequence[Sequence[Option]], rng: np.random.Generator
) -> tuple[_Sparse, int]:
    """One vector for each option: how its pair differs from the pair turned round."""
    owner: Ints = np.repeat(np.arange(len(chosen), dtype=np.int32), [len(one) for one in options])
    flat = [option for one in options for option in one]
    better = np.array([option.features for option in chosen], dtype=np.float64)
    worse = np.array([option.features for option in flat], dtype=np.float64)
    parts, size = [], 0
    for part, width in (
        _difference(*_bins(better, worse), owner, _BIN),
        _difference(*_leaves(better, worse, rng), owner, _LEAF),
        _signs(better, worse, owner),
        _flows(chosen, flat, owner),
        _grams(chosen, flat, owner),
    ):
        # Index 0 is where the filling of short rows goes.
        parts.append(_Sparse(np.where(part.value != 0, part.index + size + 1, 0).astype(np.int32), part.value))
        size += width
    index = np.concatenate([part.index for part in parts], axis=1)
    value = np.concatenate([part.value for part in parts], axis=1)
    return _packed(index, value), size + 1


def _packed(index: Ints, value: Floats) -> _Sparse:
    """Move the entries that are not 0 to the front and cut the rest."""
    order = np.argsort(value == 0, axis=1, kind="stable")
    longest = int((value != 0).sum(axis=1).max(initial=1))
    order = order[:, :longest]
    return _Sparse(np.take_along_axis(index, order, axis=1), np.take_along_axis(value, order, axis=1))


def _difference(better: Ints, worse: Ints, width: int, owner: Ints, weight: float) -> tuple[_Sparse, int]:
    """Codes of the chosen answer minus codes of the rejected one, each code an entry of its own."""
    own = better[owner]
    differ = (own != worse).astype(np.float32) * weight
    return _Sparse(np.concatenate([own, worse], axis=1), np.concatenate([differ, -differ], axis=1)), width


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


def _signs(better: npt.NDArray[np.float64], worse: npt.NDArray[np.float64], owner: Ints) -> tuple[_Sparse, int]:
    """Which of the two has more of each feature: balanced features alone leave that to tell."""
    value = (np.sign(better[owner] - worse) * _SIGN).astype(np.float32)
    index = np.broadcast_to(np.arange(value.shape[1], dtype=np.int32), value.shape)
    return _Sparse(index, value), value.shape[1]


def _flows(chosen: Sequence[Option], flat: Sequence[Option], owner: Ints) -> tuple[_Sparse, int]:
    """From which class to which a pair leads: as many shall lead from 1 to 2 as from 2 to 1."""
    names: dict[tuple[int, str, str], int] = {}
    width = max(len(option.classes) for option in (*chosen, *flat))
    index, value = np.zeros((len(flat), width), np.int32), np.zeros((len(flat), width), np.float32)
    for i, option in enumerate(flat):
        for aspect, (a, b) in enumerate(zip_longest(chosen[owner[i]].classes, option.classes, fillvalue="")):
            if a != b:
                index[i, aspect] = names.setdefault((aspect, min(a, b), max(a, b)), len(names))
                value[i, aspect] = _FLOW if a < b else -_FLOW
    return _Sparse(index, value), max(len(names), 1)


def _grams(chosen: Sequence[Option], flat: Sequence[Option], owner: Ints) -> tuple[_Sparse, int]:
    own = [hashed_grams(option.text) for option in chosen]
    rows: list[dict[int, float]] = []
    for i, option in enumerate(flat):
        difference = dict(own[owner[i]])
        for bucket, count in hashed_grams(option.text).items():
            difference[bucket] = difference.get(bucket, 0.0) - count
        rows.append({bucket: count for bucket, count in difference.items() if count})
    width = max((len(row) for row in rows), default=1) or 1
    index, value = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), np.float32)
    for i, row in enumerate(rows):
        index[i, : len(row)] = list(row)
        # The length of a long text must not outweigh everything else.
        value[i, : len(row)] = _GRAM * np.sign(list(row.values())) * np.minimum(np.abs(list(row.values())), 2)
    return _Sparse(index, value), BUCKETS

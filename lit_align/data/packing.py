"""Which conversations share a window, and which of a window share a forest; pure functions of the position."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


class Plan(Protocol):
    """The members of each window of a run, as a pure function of its number."""

    @property
    def windows_per_epoch(self) -> int:
        """Optimizer steps of one pass over the data."""

    @property
    def most_trained(self) -> int:
        """No window has more trained members."""

    @property
    def most_replayed(self) -> int:
        """No window has more members that carry the anchor alone; one may occur several times."""

    def trained_in(self, window: int) -> list[int]:
        """Trained members of a window, numbered from 0 over the whole run."""

    def replayed_in(self, window: int) -> list[int]:
        """Members that carry the anchor alone."""


@dataclass(frozen=True)
class WindowPlan:
    """The members of each window of a run, computed from its number alone.

    An epoch goes once through the trained conversations in an order of its own; its last window may be shorter. Those
    of a group stand side by side in it, so that they meet in one window, or in two where a window ends among them.
    Replayed conversations come on top, ``replay_share`` for each trained one, from an endless sequence of shuffled
    passes of their own.

    Attributes:
        trained: Number of trained conversations, > 0.
        replayed: Number of conversations to replay, >= 0.
        window: Trained conversations a window, over all ranks, > 0.
        replay_share: Replayed conversations per trained one, >= 0.
        seed: Seed of the orders.
        leaders: For each trained conversation the number of the first of its group, its own where it stands alone;
            empty where all do.

    Example:
        >>> plan = WindowPlan(trained=5, replayed=3, window=2, replay_share=0.5, seed=0)
        >>> plan.windows_per_epoch, [len(plan.trained_in(window)) for window in range(3)]
        (3, [2, 2, 1])
        >>> [len(plan.replayed_in(window)) for window in range(3)]
        [1, 1, 0]
        >>> plan = WindowPlan(6, 0, window=3, replay_share=0.0, seed=0, leaders=(0, 1, 0, 1, 0, 1))
        >>> [plan.trained_in(window) for window in range(2)]
        [[0, 2, 4], [1, 3, 5]]
    """

    trained: int
    replayed: int
    window: int
    replay_share: float
    seed: int
    leaders: tuple[int, ...] = ()
    _epochs: dict[int, NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def windows_per_epoch(self) -> int:
        """Optimizer steps of one pass over the trained conversations."""
        return math.ceil(self.trained / self.window)

    @property
    def most_trained(self) -> int:
        """See :class:`Plan`."""
        return min(self.trained, self.window)

    @property
    def most_replayed(self) -> int:
        """See :class:`Plan`."""
        return math.ceil(self.replay_share * self.most_trained)

    def trained_in(self, window: int) -> list[int]:
        """Trained conversations of a window, numbered from 0 over the whole run."""
        epoch, at = divmod(window, self.windows_per_epoch)
        return [int(index) for index in self._epoch(epoch)[at * self.window : (at + 1) * self.window]]

    def replayed_in(self, window: int) -> list[int]:
        """Replayed conversations of a window."""
        before, after = self._trained_before(window), self._trained_before(window + 1)
        return _replayed_between(before, after, self.replay_share, self.replayed, self.seed)

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """Trained conversations in the order of an epoch; kept, for sorting half a million takes 0.1 s."""
        if epoch not in self._epochs:
            order = _order(self.trained, self.seed, epoch, "trained")
            if self.leaders:
                # Each at its leader's place; argsort of a permutation is its inverse, the places.
                order = order.argsort()[np.array(self.leaders)].argsort(kind="stable")
            self._epochs.clear()
            self._epochs[epoch] = order
        return self._epochs[epoch]

    def _trained_before(self, window: int) -> int:
        epoch, at = divmod(window, self.windows_per_epoch)
        return epoch * self.trained + min(at * self.window, self.trained)


def _replayed_between(before: int, after: int, share: float, size: int, seed: int) -> list[int]:
    """What is replayed while the number of trained examples goes from ``before`` to ``after``."""
    if not size:
        return []
    first, last = (math.floor(share * trained + 1e-9) for trained in (before, after))
    return [int(_order(size, seed, i // size, "replayed")[i % size]) for i in range(first, last)]


@lru_cache(maxsize=8)
def _order(size: int, seed: int, epoch: int, stream: str) -> NDArray[np.int64]:
    generator = np.random.Generator(np.random.PCG64([seed, epoch, *stream.encode()]))
    return generator.permutation(size)


@dataclass(frozen=True)
class GroupPlan:
    r"""The groups of each window, where a window is counted in what groups hold: tables, and the pairs of a table.

    The groups go by in an order of the epoch; a window closes at the group that brings the running count of the epoch
    to the next multiple of the window's size or over. That size is the number asked for or a little more,
    :math:`n / \lfloor n / w \rfloor`, so that every epoch has the same number of windows, none of them empty.
    Replayed conversations come on top, as in :class:`WindowPlan`: ``replay_share`` for each of what the groups hold.

    Attributes:
        counts: What each group holds, > 0 and at most ``window`` each.
        window: What a window should hold, over all ranks, > 0.
        seed: Seed of the orders.
        replayed: Number of conversations to replay, >= 0.
        replay_share: Replayed conversations per pair, >= 0.

    Example:
        >>> plan = GroupPlan(counts=(2, 2, 2, 2, 1), window=4, seed=0, replayed=3, replay_share=0.5)
        >>> plan.windows_per_epoch, [sum(plan.counts[i] for i in plan.trained_in(w)) for w in range(2)]
        (2, [5, 4])
        >>> [len(plan.replayed_in(window)) for window in range(3)]
        [2, 2, 3]
    """

    counts: tuple[int, ...]
    window: int
    seed: int
    replayed: int = 0
    replay_share: float = 0.0

    @property
    def windows_per_epoch(self) -> int:
        """Optimizer steps of one pass over the groups."""
        return max(1, sum(self.counts) // self.window)

    @property
    def most_trained(self) -> int:
        """See :class:`Plan`."""
        return len(self.counts)

    @property
    def most_replayed(self) -> int:
        """See :class:`Plan`."""
        # A window begins and ends less than a group behind a multiple of its size.
        held = sum(self.counts) / self.windows_per_epoch + max(self.counts, default=0)
        return math.ceil(self.replay_share * held)

    def trained_in(self, window: int) -> list[int]:
        """Groups of a window."""
        epoch, at = divmod(window, self.windows_per_epoch)
        order, _, windows = self._epoch(epoch)
        return [int(group) for group in order[windows == at]]

    def replayed_in(self, window: int) -> list[int]:
        """Replayed conversations of a window."""
        before, after = self._trained_before(window), self._trained_before(window + 1)
        return _replayed_between(before, after, self.replay_share, self.replayed, self.seed)

    def held(self) -> list[int]:
        """What each window of the first epoch holds."""
        _, counts, windows = self._epoch(0)
        held = np.zeros(self.windows_per_epoch, np.int64)
        np.add.at(held, windows, counts)
        return [int(count) for count in held]

    def _trained_before(self, window: int) -> int:
        epoch, at = divmod(window, self.windows_per_epoch)
        _, counts, windows = self._epoch(epoch)
        return epoch * sum(self.counts) + int(counts[windows < at].sum())

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Groups in the order of an epoch, what each holds, and its window in the epoch."""
        order = _order(len(self.counts), self.seed, epoch, "trained")
        counts = np.array(self.counts, np.int64)[order]
        before = counts.cumsum() - counts
        return order, counts, before * self.windows_per_epoch // counts.sum()


def share_out(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Give each rank its part of a window, about equal in tokens: the largest first, to the rank with the least.

    Example:
        >>> share_out([5, 1, 4, 2], ranks=2)
        [[0, 1], [2, 3]]
    """
    parts: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        rank = min(range(ranks), key=lambda r: (loads[r], r))
        parts[rank].append(index)
        loads[rank] += sizes[index]
    return [sorted(part) for part in parts]


def fill_forests(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Cut a rank's part of a window into forests: first fit, the largest first.

    Args:
        sizes: Rows that each group takes, none over the budget.
        budget: Rows a forest.

    Returns:
        Members of each forest.

    Example:
        >>> fill_forests([6, 3, 5, 4], budget=10)
        [[0, 3], [1, 2]]
    """
    forests: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if sizes[index] > budget:
            raise ValueError(f"a group of {sizes[index]} tokens is over the budget of {budget}")
        at = next((i for i, free in enumerate(room) if free >= sizes[index]), len(room))
        if at == len(room):
            forests.append([])
            room.append(budget)
        forests[at].append(index)
        room[at] -= sizes[index]
    return [sorted(forest) for forest in forests]


class WindowSampler(Sampler[int]):
    """Numbers of the windows of one epoch, beginning where the run stands.

    Lightning opens the loader at the start of each epoch and when it resumes. How many windows are done is known to
    the trainer alone (its optimizer steps, one a window), so it is asked at that moment.

    Args:
        windows_per_epoch: Length of an epoch.
        done: Returns the number of windows completed so far.
    """

    def __init__(self, windows_per_epoch: int, done: Callable[[], int]) -> None:
        self._windows_per_epoch = windows_per_epoch
        self._done = done

    def __len__(self) -> int:
        """Windows of an epoch, also of one that is begun in the middle."""
        return self._windows_per_epoch

    def __iter__(self) -> Iterator[int]:
        start = self._done()
        return iter(range(start, start + self._windows_per_epoch))

"""What a shuffle buffer and runs of a group may do to an order, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from lit_align.data.streaming.order import runs, through_buffer
from lit_align.types import Conversation


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(some.integers(0, 40), some.integers(1, 12), some.integers(0, 5))
def test_a_buffer_loses_nothing_and_holds_no_item_back_from_before_its_place(number: int, size: int, seed: int) -> None:
    found = list(through_buffer(range(number), size, generator(seed)))
    assert sorted(found) == list(range(number))
    assert all(place >= item - size + 1 for place, item in enumerate(found))


def test_a_buffer_reads_no_further_than_it_holds() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10**9):
            read.append(item)
            yield item

    assert len(list(islice(through_buffer(items(), 5, generator()), 3))) == 3
    assert read == list(range(7))


def test_a_buffer_shuffles_and_another_seed_shuffles_otherwise() -> None:
    orders = [list(through_buffer(range(50), 10, generator(seed))) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_each_of_the_held_items_is_as_likely_to_come_next() -> None:
    first = [next(iter(through_buffer(range(9), 3, generator(seed)))) for seed in range(600)]
    assert [first.count(item) / 600 for item in range(3)] == pytest.approx([1 / 3] * 3, abs=0.06)


@given(some.lists(some.sampled_from(["", "a", "b"]), max_size=20), some.integers(1, 4))
def test_runs_keep_the_order_and_hold_one_group_each(groups: list[str], most: int) -> None:
    records = [Conversation((), str(number), "x", group) for number, group in enumerate(groups)]
    found = list(runs(records, most))
    assert list(chain.from_iterable(found)) == records
    assert all(len(run) <= most and len({one.group for one in run}) == 1 for run in found)
    assert all(len(run) == 1 for run in found if not run[0].group)
    for one, other in pairwise(found):
        # Neighbours of a group are parted only where a run is full.
        assert not one[0].group or one[0].group != other[0].group or len(one) == most

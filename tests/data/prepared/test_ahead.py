"""Results that are made before they are asked for are those that would be made then, and no others are seen."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from lit_align.data.prepared import ahead, in_order
from lit_align.data.prepared.ahead import Ahead


class InProcess:
    """Stands for a pool: calls when it is asked to, and notes with what."""

    def __init__(self, function: Any, processes: int) -> None:
        self.function, self.calls = function, list[list[int]]()
        del processes

    def submit(self, _: Any, records: list[bytes]) -> Future[Any]:
        self.calls.append([pickle.loads(one) for one in records])
        future: Future[Any] = Future()
        future.set_result([self.function(one) for one in self.calls[-1]])
        return future

    def shutdown(self, cancel_futures: bool) -> None:
        self.calls.clear()
        assert cancel_futures


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> Ahead[int]:
    monkeypatch.setattr(in_order, "CHUNK", 3)
    monkeypatch.setattr(ahead, "pool_of", InProcess)
    return Ahead(lambda one: one * one, 2)


def _rows(squares: Ahead[int], numbers: range, known: frozenset[int] = frozenset()) -> Iterator[int]:
    return squares.rows(numbers, lambda one: one, lambda one: None if one in known else pickle.dumps(one))


def test_rows_come_in_their_order_each_with_its_result_once(squares: Ahead[int]) -> None:
    for one, expected in zip(_rows(squares, range(20)), range(20), strict=True):
        assert (one, squares.take(one), squares.take(one)) == (expected, expected**2, None)


def test_rows_are_read_two_chunks_a_process_ahead_and_no_further(squares: Ahead[int]) -> None:
    numbers = iter(range(100))
    rows = squares.rows(numbers, lambda one: one, pickle.dumps)
    assert next(rows) == 0
    assert next(numbers) == 2 * 2 * 3


def test_what_is_known_or_was_made_for_another_pool_is_not_made_again(squares: Ahead[int]) -> None:
    assert list(_rows(squares, range(6), frozenset({1, 4}))) == list(range(6))
    assert list(_rows(squares, range(9), frozenset({1, 4}))) == list(range(9))
    calls: list[list[int]] = squares._pool.calls  # type: ignore[attr-defined]
    assert [one for call in calls for one in call] == [0, 2, 3, 5, 6, 7, 8]
    assert squares.take(1) is None


def test_nothing_is_left_after_the_end(squares: Ahead[int]) -> None:
    assert next(_rows(squares, range(9))) == 0
    squares.close()
    assert squares.take(0) is None

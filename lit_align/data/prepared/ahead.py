"""Results that will be asked for one by one, made by other processes a little before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Any, Generic, TypeVar

from lit_align.data.prepared import in_order
from lit_align.data.prepared.in_order import call_all, pool_of, pool_that_lives

Result = TypeVar("Result")
T = TypeVar("T")


class Ahead(Generic[Result]):
    """Calls a function with records before their results are asked for; what is never asked for is as if never made.

    Args:
        function: As for :func:`~lit_align.data.prepared.in_order.in_order`.
        processes: How many, >= 1.
    """

    def __init__(self, function: Callable[[Any], Result], processes: int) -> None:
        self._processes, self._pool = processes, pool_of(function, processes)
        self._made: dict[int, Result] = {}

    def rows(self, rows: Iterable[T], key: Callable[[T], int], pickled: Callable[[T], bytes | None]) -> Iterator[T]:
        """The rows in their order; results of those that come next are being made.

        Args:
            rows: Any number, read two chunks a process ahead.
            key: Number under which :meth:`take` gives the result.
            pickled: The record of a row, or None where its result is known.

        Raises:
            RuntimeError: A process was ended from outside.
        """
        left, waiting = iter(rows), deque[tuple[list[T], list[int], Future[list[Result]]]]()
        while True:
            while len(waiting) < 2 * self._processes and (chunk := list(islice(left, in_order.CHUNK))):
                new = {key(one): data for one in chunk if key(one) not in self._made and (data := pickled(one))}
                with pool_that_lives(self._processes):
                    future = self._pool.submit(call_all, list(new.values()))
                waiting.append((chunk, list(new), future))
            if not waiting:
                return
            chunk, keys, future = waiting.popleft()
            with pool_that_lives(self._processes):
                self._made.update(zip(keys, future.result(), strict=True))
            yield from chunk

    def take(self, key: int) -> Result | None:
        """The result of a row that has come by, once; None where none was made."""
        return self._made.pop(key, None)

    def close(self) -> None:
        """End the processes and forget what was not asked for."""
        self._pool.shutdown(cancel_futures=True)
        self._made.clear()

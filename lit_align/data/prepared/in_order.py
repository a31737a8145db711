"""Records through a function in several processes, the results in the order of the records."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

Result = TypeVar("Result")

CHUNK = 128
"""Records that go to a process at a time."""

_MOST = 61  # processes of a pool on Windows

_function: Callable[[Any], Any]  # of a process of the pool


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(function: Callable[[Any], Result], pickled: Iterable[bytes], processes: int) -> Generator[Result]:
    """Call a function with each of some pickled records.

    The processes are started afresh (``spawn``), as on every system; they end with the iterator, by an error and by
    Ctrl-C too, and with this process if it is killed. Close the iterator where it is not read to its end.

    Args:
        function: Takes a record; it, its results and its errors can be pickled where there are several processes.
        pickled: The records, each asked for a little before its turn.
        processes: How many; 1 calls the function here.

    Yields:
        The results, in the order of the records, whatever the number of processes.

    Raises:
        RuntimeError: A process was ended from outside, as by the system when memory is out.
    """
    if processes == 1:
        yield from (function(pickle.loads(record)) for record in pickled)
        return
    records = iter(pickled)
    pool = pool_of(function, processes)
    waiting: deque[Future[list[Result]]] = deque()
    try:
        with pool_that_lives(processes):
            while True:
                # Two chunks a process: while a result is looked at here, none is idle.
                while len(waiting) < 2 * processes and (chunk := list(islice(records, CHUNK))):
                    waiting.append(pool.submit(call_all, chunk))
                if not waiting:
                    return
                yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def pool_of(function: Callable[[Any], Any], processes: int) -> ProcessPoolExecutor:
    """Processes in which :func:`call_all` calls a function.

    Args:
        function: As for :func:`in_order`.
        processes: How many.
    """
    return ProcessPoolExecutor(
        min(processes, _MOST), multiprocessing.get_context("spawn"), _begin, (pickle.dumps(function),)
    )


@contextmanager
def pool_that_lives(processes: int) -> Iterator[None]:
    """Say what to do where a process of the pool was ended from outside.

    Args:
        processes: Of the pool.

    Raises:
        RuntimeError: One was.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of {processes} processes that tokenise was ended from outside, as a system does that is out of "
            "memory; set `data.processes` lower"
        ) from error


def _begin(function: bytes) -> None:
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the first one ends them
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _function = pickle.loads(function)


def _end_with_parent() -> None:
    # A pool whose owner was killed waits for work for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def call_all(records: list[bytes]) -> list[Any]:
    """In a process of :func:`pool_of`: what its function returns for each of some pickled records."""
    return [_function(pickle.loads(record)) for record in records]

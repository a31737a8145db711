"""The windows of an epoch of a stream, built by one of several workers for one of several ranks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from lit_align.data.streaming.epoch import Stream
from lit_align.data.windows import window_of
from lit_align.forest import Window


@dataclass(frozen=True)
class Streamed:
    """What a worker hands over.

    Attributes:
        window: A window of the run, or None at the end of the epoch.
        passed: Windows of the epoch so far, this one among them.
        lines: What became of the rows of the epoch so far, for the log.
    """

    window: Window | None
    passed: int
    lines: tuple[str, ...]


class WindowStream(IterableDataset[Streamed | Exception]):
    """Windows of an epoch, from any of them on.

    Which examples a window holds depends on those before it that were dropped. So each worker reads and tokenises the
    whole stream, and builds the forests of its own windows alone: every so many-th. What goes wrong in it is handed
    over as it is, for torch would wrap it into its own text.

    Args:
        stream: The stream.
        epoch: Number of the epoch, from 0.
        start: Number of its first window in the run.
        first: Windows of it that are passed over, having been trained.
        token_budget: Rows a forest.
        rank: This process.
        ranks: Number of processes.
    """

    def __init__(
        self, stream: Stream, epoch: int, start: int, first: int, token_budget: int, rank: int, ranks: int
    ) -> None:
        super().__init__()
        self._stream, self._epoch, self._start, self._first = stream, epoch, start, first
        self._budget, self._rank, self._ranks = token_budget, rank, ranks

    def __iter__(self) -> Iterator[Streamed | Exception]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if worker:  # all read the same, one tells
            logging.getLogger("lit_align").setLevel(logging.WARNING)
        try:
            yield from self._windows(worker, workers)
        except (ValueError, OSError) as error:
            yield error

    def _windows(self, worker: int, workers: int) -> Iterator[Streamed]:
        epoch = self._stream.epoch(self._epoch)
        windows = epoch.windows()
        silent = worker > 0 or self._rank > 0
        bar = tqdm(
            islice(windows, self._first), total=self._first, desc="reading on to where the run stands", unit=" windows",
            delay=2, leave=False, disable=silent,
        )  # fmt: skip
        passed = sum(1 for _ in bar)
        for members in windows:
            if (passed - self._first) % workers == worker:
                number = self._start + passed
                window = window_of(members, number, self._budget, self._rank, self._ranks, self._stream.together)
                yield Streamed(window, passed + 1, tuple(epoch.lines()))
            passed += 1
        if worker == 0:
            yield Streamed(None, passed, tuple(epoch.lines()))

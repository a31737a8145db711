"""Records between reading and tokenising: in memory, or once they are large in a temporary file."""

from __future__ import annotations

import pickle
import weakref
from array import array
from collections.abc import Iterable
from tempfile import SpooledTemporaryFile

from tqdm import tqdm

from lit_align.data.mixture import Record, outlined
from lit_align.data.prepared.columns import Place
from lit_align.types import Outline

HELD = 64 * 2**20
"""Bytes of records that are held in memory."""


class Records:
    """Records as they were read, pickled; in memory stay their outlines.

    Args:
        place: Beside which the file lies, if its folder was given.
    """

    def __init__(self, place: Place) -> None:
        # Not in it: Windows renames no folder in which a file is open.
        self._file = SpooledTemporaryFile(HELD, dir=str(place.path.parent) if place.given else None)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def read(self, records: Iterable[Record]) -> list[Outline]:
        """Keep records; a bar shows how many.

        Args:
            records: Each is asked for when the one before it is kept.

        Returns:
            Their outlines, in their order.

        Raises:
            OSError: The disk is full.
        """
        self._file.seek(self._ends[-1])
        outlines = []
        for record in tqdm(records, desc="reading", delay=2, leave=False, unit=" rows"):
            outlines.append(outlined(len(self), record))
            self._file.write(data := pickle.dumps(record, pickle.HIGHEST_PROTOCOL))
            self._ends.append(self._ends[-1] + len(data))
        return outlines

    def pickled(self, one: Outline) -> bytes:
        """The record of an outline, as :func:`pickle.loads` takes it."""
        start, end = self._ends[one.place : one.place + 2]
        self._file.seek(start)
        return self._file.read(end - start)

"""Columns of numbers and texts: grown in memory or, once there are many, in files, and read without being loaded."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

HELD = 32 * 2**20
"""Bytes of a column that are held in memory; a longer one is written to a file."""

_BLOCK = 2**20


class Place:
    """A folder for what a preparation writes: one that is given, or a temporary one, made when it is first needed.

    Args:
        folder: The folder; None for a temporary one, which is removed with the last object that holds this one.

    Attributes:
        given: Whether it was given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.given = folder is not None

    @cached_property
    def path(self) -> Path:
        """The folder; it is there."""
        if self._folder is None:
            # Windows removes no file that is mapped: what is left there goes with the user's temporary files.
            temporary = TemporaryDirectory(prefix="lit_align_", ignore_cleanup_errors=True)
            weakref.finalize(self, temporary.cleanup)
            return Path(temporary.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder


@dataclass(frozen=True)
class ColumnFile:
    """What must be known of a file to read it, and to see that it is whole.

    Attributes:
        dtype: Of its numbers.
        length: How many.
        checksum: CRC-32 of its bytes.
    """

    dtype: str
    length: int
    checksum: int


class Column:
    """Numbers under construction.

    Args:
        place: Where its file lies.
        name: Of the file.
        dtype: Of the numbers.
    """

    def __init__(self, place: Place, name: str, dtype: str) -> None:
        self._place, self.name, self._dtype = place, name, np.dtype(dtype)
        self._held = bytearray()
        self._written = self._checksum = 0

    def __len__(self) -> int:
        return (self._written + len(self._held)) // self._dtype.itemsize

    @property
    def in_file(self) -> bool:
        """Whether a part of it is in its file."""
        return self._written > 0

    def append(self, values: ArrayLike) -> None:
        """Add numbers at the end.

        Raises:
            OSError: The disk is full.
        """
        self._held += np.asarray(values, self._dtype).tobytes()
        if len(self._held) >= HELD:
            self._write()

    def array(self) -> NDArray[Any]:
        """All numbers, of a column that has no file."""
        return np.frombuffer(bytes(self._held), self._dtype)

    def file(self) -> ColumnFile:
        """Write all numbers."""
        self._write()
        return ColumnFile(self._dtype.str, len(self), self._checksum)

    def _write(self) -> None:
        with (self._place.path / self.name).open("ab") as file:
            file.write(self._held)
        self._written += len(self._held)
        self._checksum = zlib.crc32(self._held, self._checksum)
        self._held = bytearray()


class Columns(Mapping[str, NDArray[Any]]):
    """Finished columns by name, in memory or in files, which are mapped when they are first asked for.

    Args:
        arrays: The columns in memory.
        place: Where the files of the others lie.
        files: What these hold, by name.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], place: Place | None = None, files: Mapping[str, ColumnFile] = {}
    ) -> None:
        self._arrays, self._place = dict(arrays), place  # which is held: a temporary one lives as long as this
        self.files = dict(files)

    @classmethod
    def finished(cls, columns: Sequence[Column], place: Place) -> Columns:
        """Columns that grow no more: in memory, unless one of them outgrew it or their place was given.

        Raises:
            OSError: The disk is full.
        """
        if place.given or any(column.in_file for column in columns):
            return cls({}, place, {column.name: column.file() for column in columns})
        return cls({column.name: column.array() for column in columns})

    @classmethod
    def of_files(cls, folder: Path, files: Mapping[str, ColumnFile]) -> Columns:
        """Columns that were finished before, by any process."""
        return cls({}, Place(folder), files)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            assert self._place is not None
            self._arrays[name] = _mapped(self._place.path / name, self.files[name])
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files or self._arrays)

    def __len__(self) -> int:
        return len(self.files or self._arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process go the names of the files, not what is in them.
        if self._place is None:
            return Columns, (self._arrays,)
        return Columns.of_files, (self._place.path, self.files)


def _mapped(path: Path, file: ColumnFile) -> NDArray[Any]:
    if not file.length:
        return np.zeros(0, file.dtype)  # no file of no bytes can be mapped
    # As a plain array: slices of a memmap object are slow.
    return np.memmap(path, file.dtype, "r", shape=(file.length,)).view(np.ndarray)


def refuse_damaged(folder: Path, files: Mapping[str, ColumnFile]) -> None:
    """Read files of columns once, and refuse what is not as it was written.

    They are read, not mapped, so that they do not fill this process's memory.

    Args:
        folder: Where they lie.
        files: What they hold, by name.

    Raises:
        ValueError: A file is missing, cut short or altered; the message names it.
    """
    total = sum(np.dtype(file.dtype).itemsize * file.length for file in files.values())
    with tqdm(total=total, desc="checking the prepared data", delay=2, leave=False, unit="B", unit_scale=True) as bar:
        for name, file in files.items():
            size, wanted = 0, np.dtype(file.dtype).itemsize * file.length
            checksum = 0
            path = folder / name
            if not path.is_file():
                raise ValueError(f"{name} is missing")
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    size, checksum = size + len(block), zlib.crc32(block, checksum)
                    bar.update(len(block))
            if size != wanted:
                raise ValueError(f"{name} has {size} bytes, not {wanted}")
            if checksum != file.checksum:
                raise ValueError(f"{name} does not fit its checksum")


class TextColumn:
    """Texts under construction, as two columns: all their bytes, and where each ends.

    Args:
        place: Where their files lie.
        name: Of the files.
    """

    def __init__(self, place: Place, name: str) -> None:
        self._bytes = Column(place, f"{name}.utf8", "u1")
        self._ends = Column(place, f"{name}.ends", "<i8")

    @property
    def columns(self) -> tuple[Column, Column]:
        """The two columns."""
        return self._bytes, self._ends

    def append(self, text: str) -> None:
        """Add a text at the end."""
        # A group of a table may hold half a character: it is a name, and no text of a model.
        self._bytes.append(np.frombuffer(text.encode("utf-8", "surrogatepass"), "u1"))
        self._ends.append(len(self._bytes))


class Texts(Sequence[str]):
    """Texts of finished columns.

    Args:
        columns: The columns.
        name: That of the :class:`TextColumn`.
    """

    def __init__(self, columns: Mapping[str, NDArray[Any]], name: str) -> None:
        self._bytes, self._ends = columns[f"{name}.utf8"], columns[f"{name}.ends"]

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        every, start = self._bytes.tobytes(), 0  # ten times as fast as one by one
        for end in self._ends.tolist():
            yield every[start:end].decode("utf-8", "surrogatepass")
            start = end

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...

    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        start = self._ends[at - 1] if at else 0
        return self._bytes[start : self._ends[at]].tobytes().decode("utf-8", "surrogatepass")

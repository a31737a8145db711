"""Where the rows of a data set lie: JSON, JSON Lines or Parquet, a folder of such files, or the hub."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from lit_align.data.sources.hub_rows import is_hub_id, read_hub_rows
from lit_align.data.sources.json_rows import read_json_rows
from lit_align.data.sources.parquet_rows import read_parquet_rows
from lit_align.data.sources.rows import Row

_SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")


def read_rows(path: str, limit: int | None = None) -> Iterator[Row]:
    """Read the rows of a data set one by one; a bar appears where it takes more than two seconds.

    Args:
        path: A ``.json``, ``.jsonl`` or ``.parquet`` file, a folder of such files (read in the order of their names),
            or the id of a data set on the hub (its split ``train``); ``~`` is the home folder.
        limit: Read the first so many rows only, at least 1; None reads all.

    Yields:
        The rows, in the data set's order.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The hub cannot be reached.
        ValueError: The file or the folder holds no row, or is not what its name says. The message names the file, the
            row and what stands there.
    """
    with tqdm(stream_rows(path, limit), desc=f"reading {Path(path).name}", delay=2, leave=False, unit=" rows") as bar:
        yield from bar


def stream_rows(path: str, limit: int | None = None) -> Iterator[Row]:
    """Read the rows as :func:`read_rows` does, without a bar: for a reader that stops and goes on, and has its own.

    Args:
        path: See :func:`read_rows`.
        limit: See :func:`read_rows`.

    Yields:
        The rows, in the data set's order.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The hub cannot be reached.
        ValueError: See :func:`read_rows`.
    """
    empty = True
    for row in islice(_rows(path), limit):
        empty = False
        yield row
    if empty:
        raise ValueError(f"{Path(path).expanduser()}: holds no row")


def _rows(path: str) -> Iterator[Row]:
    file = Path(path).expanduser()
    if not file.exists():
        if is_hub_id(path) and not file.parent.is_dir():
            yield from read_hub_rows(path)
            return
        near = get_close_matches(file.name, [other.name for other in file.parent.glob("*")], n=1)
        nearest = f"; did you mean '{near[0]}'?" if near else ""
        raise FileNotFoundError(f"{file.absolute()}: no such file{nearest}")
    for one in _files_of(file) if file.is_dir() else [file]:
        yield from read_parquet_rows(one) if one.suffix.lower() == ".parquet" else read_json_rows(one)


def _files_of(folder: Path) -> list[Path]:
    files = sorted(one for one in folder.rglob("*") if one.suffix.lower() in _SUFFIXES and one.is_file())
    kinds = {one.suffix.lower() for one in files}
    if not files:
        raise ValueError(f"{folder}: is a folder without a {', '.join(_SUFFIXES)} file; name a file")
    if len(kinds) > 1:
        raise ValueError(f"{folder}: holds files of several kinds ({', '.join(sorted(kinds))}); name one file")
    return files

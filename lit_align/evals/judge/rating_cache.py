"""Ratings on disk by the hash of all that decides them: one sqlite file, whole after a kill, shared by processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

_APPLICATION = 0x6C614A64  # in the header of the file, by which it is known
_SECONDS_TO_WAIT = 60.0  # for another process that writes; a write takes milliseconds


@dataclass(frozen=True)
class RatingCache:
    """The ratings of judges; the file is opened for each call, so nothing is left open.

    Args:
        path: The file; made when something is kept.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> cache = RatingCache(Path(folder.name) / "ratings.sqlite")
        >>> cache.keep({"key": ("judge", 7.0, "Rating: [[7]]")})
        >>> cache.read(["key", "another"])
        {'key': 7.0}
        >>> folder.cleanup()
    """

    path: Path

    def read(self, keys: Sequence[str]) -> dict[str, float]:
        """Those of the keys that are there, with their ratings.

        Raises:
            ValueError: The file is no cache of ratings.
        """
        if not self.path.exists():
            return {}
        with self._open() as connection:
            rows = [connection.execute("SELECT key, rating FROM ratings WHERE key = ?", (key,)) for key in {*keys}]
            return dict(row for found in rows for row in found)

    def keep(self, ratings: Mapping[str, tuple[str, float, str]]) -> None:
        """Keep ratings: by key the judge, the rating, and all that the judge said.

        Raises:
            ValueError: The file is no cache of ratings, or cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection, connection:
            connection.executemany(
                "INSERT OR REPLACE INTO ratings VALUES (?, ?, ?, ?)", [(key, *rated) for key, rated in ratings.items()]
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_SECONDS_TO_WAIT)) as connection:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    self._make_or_refuse(connection)
                yield connection
        except sqlite3.Error as error:
            raise ValueError(
                f"cache of ratings {self.path}: {error}; name another file in `scorer.cache`, or see whether it can be "
                "written"
            ) from error

    def _make_or_refuse(self, connection: sqlite3.Connection) -> None:
        [application] = connection.execute("PRAGMA application_id").fetchone()
        if application == _APPLICATION:
            return
        [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables:
            raise ValueError(f"cache of ratings {self.path}: is another program's database; name another file")
        connection.execute("CREATE TABLE ratings (key TEXT PRIMARY KEY, judge TEXT, rating REAL, said TEXT)")
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")

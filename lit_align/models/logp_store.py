"""Log-probs on disk: one sqlite file a fingerprint, whole after a kill or on a full disk, shared by processes."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DEFAULT_FOLDER = "lightning_logs/reference_cache"

FORMAT = "1"
"""Of the files; part of every fingerprint, so that those of another format are never read."""

_APPLICATION = 0x6C614C70  # in the header of each file, by which it is known
_NAME = re.compile(r"[0-9a-f]{16}\.sqlite")
_SECONDS_TO_WAIT = 120.0  # for another process that writes; a write takes milliseconds
_UNUSABLE = ("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PERM", "SQLITE_READONLY")

logger = logging.getLogger(__name__)

Logps = NDArray[np.float32]


class LogpStore:
    """The log-probs that one reference gives, by example.

    Each entry carries a checksum over the file's fingerprint, its key and its value: one that does not fit counts as
    absent and is replaced. A file is opened for each call, so nothing is left open.

    Args:
        folder: Where the files lie; made when something is kept.
        parts: All that decides the numbers, as plain text; their hash is the fingerprint and the name of the file.
        labels: What else :func:`describe` should tell of the file.

    Attributes:
        fingerprint: 16 hexadecimal digits.
        path: The file.
        hits: Keys asked for that were there.
        misses: Keys asked for that were not.
        damaged: Keys of entries whose checksum did not fit.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = LogpStore(Path(folder.name), {"base weights": "0123"})
        >>> kept = store.keep({b"an example": np.array([-1.5, -0.25], np.float32)})
        >>> store.read([b"an example", b"another one"])
        {b'an example': array([-1.5 , -0.25], dtype=float32)}
        >>> folder.cleanup()
    """

    def __init__(self, folder: Path, parts: Mapping[str, str], labels: Mapping[str, str] | None = None) -> None:
        self._told = {**parts, "format": FORMAT, **(labels or {})}
        decisive = {**parts, "format": FORMAT}
        text = "".join(f"{len(name)} {name} {len(part)} {part}\n" for name, part in sorted(decisive.items()))
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path = folder / f"{self.fingerprint}.sqlite"
        self.hits = self.misses = 0
        self.damaged: set[bytes] = set()

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Logps]:
        """Those of the keys that are there, with their log-probs.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is damaged; the message names the command that removes it.
        """
        found: dict[bytes, Logps] = {}
        if self.path.exists():
            with _opened(self.path) as connection:
                connection.execute("BEGIN")
                _refuse_cut(connection, self.path)
                # Without a table: another process is about to make it.
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'examples'").fetchone():
                    found = self._sound(connection, keys)
        hits = sum(key in found for key in keys)
        self.hits, self.misses = self.hits + hits, self.misses + len(keys) - hits
        return found

    def keep(self, values: Mapping[bytes, Logps]) -> dict[bytes, Logps]:
        """Write entries, all or none of them; one that is there already stays.

        Args:
            values: Log-probs by key.

        Returns:
            What the file holds for these keys.

        Raises:
            OSError: The disk is full or the file cannot be written; what it held before is whole.
            ValueError: The file is damaged; the message names the command that removes it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(self.path) as connection:
            connection.execute("BEGIN IMMEDIATE")  # an upgrade from reading could not wait for another writer
            _refuse_cut(connection, self.path)
            self._lay_out(connection)
            there = self._sound(connection, values)
            for key, logps in values.items():
                if key not in there:
                    held = logps.astype("<f4").tobytes()
                    row = (key, held, self._checksum(key, held))
                    connection.execute("INSERT OR REPLACE INTO examples VALUES (?, ?, ?)", row)
            connection.execute("COMMIT")
        return {**values, **there}

    def mark_used(self) -> None:
        """Note the time, for ``lit-align cache``."""
        if os.access(self.path, os.W_OK):
            self.path.touch()

    def _lay_out(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute("CREATE TABLE IF NOT EXISTS parts (name TEXT PRIMARY KEY, value TEXT)")
        connection.execute("CREATE TABLE IF NOT EXISTS examples (key BLOB PRIMARY KEY, logps BLOB, checksum BLOB)")
        connection.executemany("INSERT OR IGNORE INTO parts VALUES (?, ?)", sorted(self._told.items()))

    def _sound(self, connection: sqlite3.Connection, keys: Iterable[bytes]) -> dict[bytes, Logps]:
        found = {}
        for key in keys:
            row = connection.execute("SELECT logps, checksum FROM examples WHERE key = ?", (key,)).fetchone()
            if row is None:
                continue
            held, checksum = row
            if isinstance(held, bytes) and checksum == self._checksum(key, held):
                found[key] = np.frombuffer(held, "<f4").astype(np.float32)
                continue
            if not self.damaged:
                logger.warning(
                    f"reference cache {self.path}: an entry does not fit its checksum; it is computed again, as is any "
                    "other such entry (is the disk failing?)"
                )
            self.damaged.add(key)
        return found

    def _checksum(self, key: bytes, held: bytes) -> bytes:
        # With the fingerprint: a file under another one's name has no entry that fits.
        return hashlib.blake2b(self.fingerprint.encode() + key + held, digest_size=16).digest()


@dataclass(frozen=True)
class StoredFile:
    """What a file of log-probs holds.

    Attributes:
        path: The file.
        parts: What it was written for, by name.
        examples: Number of entries.
        tokens: Log-probs of all of them together.
    """

    path: Path
    parts: Mapping[str, str]
    examples: int
    tokens: int


def stored_files(folder: Path) -> list[Path]:
    """The files of a folder that are named like ours, whole or damaged, by name."""
    return sorted(path for path in folder.glob("*.sqlite") if _NAME.fullmatch(path.name) and path.is_file())


def is_ours(path: Path) -> bool:
    """Whether the header of a file says that it holds log-probs of references."""
    with path.open("rb") as file:
        header = file.read(72)
    return header.startswith(b"SQLite format 3\0") and header[68:] == _APPLICATION.to_bytes(4, "big")


def is_foreign(path: Path) -> bool:
    """Whether a file is a whole database of another program: not ours, and not a damaged one of ours."""
    try:
        with _opened(path) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except ValueError:
        return False
    return bool(tables) and not is_ours(path)


def describe(path: Path) -> StoredFile:
    """Read what a file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged; the message names the command that removes it.
    """
    if not path.stat().st_size:  # its writer was killed before it wrote
        return StoredFile(path, {}, 0, 0)
    with _opened(path) as connection:
        connection.execute("BEGIN")
        _refuse_cut(connection, path)
        parts = {_text(name): _text(value) for name, value in connection.execute("SELECT name, value FROM parts")}
        examples, held = connection.execute("SELECT count(*), coalesce(sum(length(logps)), 0) FROM examples").fetchone()
    return StoredFile(path, parts, examples, held // 4)


def remove(path: Path) -> None:
    """Remove a file, and what a killed writer left beside it.

    Raises:
        OSError: It cannot be removed; on Windows also while another process reads it.
    """
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)  # first: without its file it is nobody's
    path.unlink()


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that is closed on exit, its transaction undone unless it was committed."""
    try:
        with closing(sqlite3.connect(path, timeout=_SECONDS_TO_WAIT, isolation_level=None)) as connection:
            connection.text_factory = bytes  # a flipped byte may have made text of a blob, and no UTF-8 at that
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # sqlite's messages repeat what they could not read
        raise _explained(path, error) from error


def _refuse_cut(connection: sqlite3.Connection, path: Path) -> None:
    # sqlite sees whole pages that are missing; of a page that is cut it takes the rest for zeros. In a transaction
    # no other process changes the length. A new file is empty, and has a page for its writer already.
    (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    if 0 < path.stat().st_size < pages * size:
        raise sqlite3.DatabaseError("it is cut short")


def _explained(path: Path, error: Exception) -> Exception:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL" or "disk is full" in str(error):
        return OSError(
            errno.ENOSPC,
            f"reference cache {path} could not be written ({error}); what it held is whole: free space and run again, "
            "or name a folder on another disk (`model.reference.folder`)",
        )
    # A header with a version of the future is read-only to sqlite, too.
    if name.startswith(_UNUSABLE) and not (name == "SQLITE_READONLY" and os.access(path, os.W_OK)):
        return OSError(
            f"reference cache {path} cannot be used ({error}): see to it that this user may read and write the folder, "
            "and that no process keeps the file locked"
        )
    command = f"lit-align cache prune --folder {path.parent} {path.stem}"
    return ValueError(f"reference cache {path} is damaged ({error}): remove it with `{command}` and run again")

"""A file of log-probs is whole or said to be damaged; it never gives a value that was not put there."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_align.models import logp_store
from lit_align.models.logp_store import LogpStore, describe, is_ours

PARTS = {"base weights": "0123", "attention": "tree_sdpa"}


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def value(number: int, length: int = 40) -> np.ndarray[Any, np.dtype[np.float32]]:
    return -np.random.default_rng(number).random(length, np.float32)


def filled(folder: Path, entries: int = 30) -> LogpStore:
    store = LogpStore(folder, PARTS)
    store.keep({key(number): value(number) for number in range(entries)})
    return store


def held_of(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def test_what_is_kept_is_read_by_another_object_to_the_bit(tmp_path: Path) -> None:
    filled(tmp_path / "deep" / "folder")
    store = LogpStore(tmp_path / "deep" / "folder", dict(reversed(PARTS.items())), {"label": "of no weight"})
    found = store.read([key(3), key(99), key(3)])
    assert list(found) == [key(3)]
    assert np.array_equal(found[key(3)], value(3))
    assert (store.hits, store.misses) == (2, 1)


@pytest.mark.parametrize("parts", [{**PARTS, "attention": "padded"}, {"base weights": "0123"}, {}], ids=str)
def test_other_parts_find_nothing(parts: dict[str, str], tmp_path: Path) -> None:
    other = LogpStore(tmp_path, parts)
    assert other.fingerprint != filled(tmp_path).fingerprint
    assert other.read([key(3)]) == {}
    assert not other.path.exists(), "reading makes no file"


def test_a_file_under_another_name_gives_nothing(tmp_path: Path) -> None:
    other = LogpStore(tmp_path, {**PARTS, "attention": "padded"})
    shutil.copy(filled(tmp_path).path, other.path)
    assert other.read([key(3)]) == {}
    assert other.damaged == {key(3)}


def test_what_is_there_stays(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    now = store.keep({key(1): value(7), key(2): value(8)})
    assert np.array_equal(now[key(1)], value(1))
    assert np.array_equal(now[key(2)], value(8))
    assert np.array_equal(store.read([key(1)])[key(1)], value(1))


def test_a_damaged_entry_is_told_once_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = filled(tmp_path).path
    connection = held_of(path)
    for column, number in (("logps", 3), ("checksum", 4)):
        ((held,),) = connection.execute(f"SELECT {column} FROM examples WHERE key = ?", (key(number),))
        broken = bytes([held[0] ^ 1]) + held[1:]
        connection.execute(f"UPDATE examples SET {column} = ? WHERE key = ?", (broken, key(number)))
    connection.execute("UPDATE examples SET logps = 'text' WHERE key = ?", (key(5),))
    connection.execute("UPDATE examples SET logps = NULL WHERE key = ?", (key(6),))
    connection.close()
    store = LogpStore(tmp_path, PARTS)
    broken_keys = {key(number) for number in (3, 4, 5, 6)}
    with caplog.at_level(logging.WARNING):
        assert store.read([key(number) for number in range(8)]).keys() == {key(0), key(1), key(2), key(7)}
        assert store.read([key(3)]) == {}
    assert store.damaged == broken_keys
    assert len(caplog.records) == 1
    assert str(path) in caplog.text
    store.keep({one: value(50) for one in broken_keys})
    again = LogpStore(tmp_path, PARTS)
    assert all(np.array_equal(again.read([one])[one], value(50)) for one in broken_keys)
    assert not again.damaged


def expected_command(path: Path) -> str:
    return f"lit-align cache prune --folder {path.parent} {path.stem}"


@pytest.mark.parametrize("left", [0.02, 0.5, 0.99], ids=str)
def test_a_truncated_file_is_named_with_the_command_that_removes_it(left: float, tmp_path: Path) -> None:
    path = filled(tmp_path, 300).path
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * left))
    for use in (lambda store: store.read([key(3)]), lambda store: store.keep({key(3): value(3)})):
        with pytest.raises(ValueError, match="is damaged") as caught:
            use(LogpStore(tmp_path, PARTS))
        assert str(path) in str(caught.value)
        assert expected_command(path) in str(caught.value)


def test_an_empty_file_is_an_empty_cache(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.path.write_bytes(b"")
    assert store.read([key(3)]) == {}
    assert describe(store.path).examples == 0
    store.keep({key(3): value(3)})
    assert is_ours(store.path)
    assert describe(store.path).tokens == 40


def test_whatever_byte_is_flipped_no_value_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # What sqlite itself stores, such as lengths, types and page numbers, has no checksum; entries have one.
    path = filled(tmp_path).path
    whole = path.read_bytes()
    outcomes = {"damaged": 0, "missing": 0, "whole": 0}
    random = np.random.default_rng(0)
    places = [*range(110), *random.choice(len(whole), 150, replace=False).tolist()]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ int(random.integers(1, 256))]) + whole[place + 1 :])
        store = LogpStore(tmp_path, PARTS)
        try:
            found = store.read([key(number) for number in range(30)])
            if place % 10 == 0:  # writing is slow
                found |= store.keep({key(number): value(number) for number in range(31)})
            assert all(np.array_equal(found[key(n)], value(n)) for n in range(31) if key(n) in found), place
        except ValueError as error:
            outcomes["damaged" if expected_command(path) in str(error) else str(error)] += 1
        else:
            outcomes["missing" if store.misses else "whole"] += 1
    assert all(outcomes.values()), outcomes


def small_disk(monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    connect = sqlite3.connect

    def limited(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(logp_store.sqlite3, "connect", limited)


def test_a_full_disk_is_told_with_the_next_step_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path)
    pages = store.path.stat().st_size // 4096
    small_disk(monkeypatch, pages + 2)
    with pytest.raises(OSError, match=r"could not be written \(database or disk is full\)") as caught:
        store.keep({key(number): value(number) for number in range(20, 900)})
    assert str(store.path) in str(caught.value)
    assert "free space and run again" in str(caught.value)
    monkeypatch.undo()
    again = LogpStore(tmp_path, PARTS)
    assert set(again.read([key(number) for number in range(900)])) == {key(number) for number in range(30)}
    assert held_of(store.path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    again.keep({key(number): value(number) for number in range(20, 900)})
    assert describe(store.path).examples == 900


def test_a_locked_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logp_store, "_SECONDS_TO_WAIT", 0.01)
    store = filled(tmp_path)
    connection = held_of(store.path)
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OSError, match="keeps the file locked"):
        store.read([key(3)])
    connection.close()
    assert store.read([key(3)])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are listed on Linux alone")
def test_no_file_stays_open(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.read([key(1)])
    describe(store.path)
    store.path.write_bytes(b"no database")
    with pytest.raises(ValueError, match="damaged"):
        store.read([key(1)])
    assert not [file for file in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(file)]


# ---------------------------------------------------------------------------------------------------- processes

_WRITER = """
import os, sys
from pathlib import Path
import numpy as np
from lit_align.models.logp_store import LogpStore
sys.path.insert(0, sys.argv[3])
from test_logp_store import PARTS, key, value
store, command = LogpStore(Path(sys.argv[1]), PARTS), sys.argv[2]
class Killing(dict):
    def items(self):
        for number, item in enumerate(super().items()):
            if number == 2500:
                os.kill(os.getpid(), 9)
            yield item
if command == "killed":
    store.keep(Killing({key(number): value(number, 900) for number in range(3000)}))
for number in range(40):
    store.keep({key(number): value(number) + np.float32(int(command)), key(1000 * int(command) + number): value(5)})
"""


def writer(folder: Path, command: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", _WRITER, str(folder), command, str(Path(__file__).parent)]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a matter of Unix")
def test_a_process_killed_in_mid_write_leaves_a_whole_file(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before, size = store.path.read_bytes(), store.path.stat().st_size
    process = writer(tmp_path, "killed")
    assert process.wait(60) == -signal.SIGKILL
    journal = store.path.with_name(f"{store.path.name}-journal")
    assert journal.stat().st_size > 0, "it was to be killed while its pages go to the disk"
    assert store.path.stat().st_size > size
    again = LogpStore(tmp_path, PARTS)
    assert set(again.read([key(number) for number in range(3000)])) == {key(number) for number in range(30)}
    assert store.path.read_bytes() == before
    assert not journal.exists()


@pytest.mark.slow
def test_two_processes_fill_one_file_at_once(tmp_path: Path) -> None:
    processes = [writer(tmp_path, command) for command in ("1", "2")]
    for process in processes:
        assert process.wait(120) == 0
    store = LogpStore(tmp_path, PARTS)
    assert describe(store.path).examples == 40 + 2 * 40
    found = store.read([key(number) for number in range(40)])
    assert not store.damaged
    by = [next(n for n in (1, 2) if np.array_equal(found[key(k)], value(k) + np.float32(n))) for k in range(40)]
    assert len(by) == 40

"""What `lit-align cache` shows and removes, and what it leaves alone."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from lit_align import cli
from lit_align.models.logp_store import DEFAULT_FOLDER, LogpStore

FOLDER = Path(DEFAULT_FOLDER)


def stored(base: str, folder: Path = FOLDER, days_ago: float = 0.0, adapter: str = "none") -> LogpStore:
    parts = {"base weights": base, "adapter": adapter, "numbers": "bfloat16, autocast off, fp32 products none, on cpu"}
    store = LogpStore(folder, {**parts, "attention": "tree_sdpa"}, {"base": f"org/{base}", "of": "AnAdapter(path='x')"})
    store.keep({bytes([number]): np.zeros(number, np.float32) for number in range(1, 4)})
    then = time.time() - days_ago * 86_400
    os.utime(store.path, (then, then))
    return store


def answer(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = cli.main(["cache", *words.split()])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_ls_shows_a_line_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    stores = [stored("one", days_ago=3), stored("two", adapter="0123")]
    (FOLDER / "notes.txt").write_text("mine", encoding="utf-8")
    status, out, err = answer("ls", capsys)
    assert (status, err) == (0, "")
    head, *lines = out.splitlines()
    assert head.split()[:4] == ["fingerprint", "base", "adapter", "numbers"]
    assert {line.split()[0] for line in lines} == {store.fingerprint for store in stores}
    for store, base, adapter in zip(stores, ("org/one", "org/two"), ("none", "AnAdapter(path='x')"), strict=True):
        (line,) = [line for line in lines if line.startswith(store.fingerprint)]
        day = time.strftime("%Y-%m-%d", time.localtime(store.path.stat().st_mtime))
        assert all(f" {word} " in line for word in (base, adapter, "bfloat16", "tree_sdpa", "3", "6", day))


def test_ls_of_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer("ls", capsys) == (0, f"no reference cache in {DEFAULT_FOLDER}\n", "")


def test_ls_names_a_damaged_file_beside_the_whole_ones(capsys: pytest.CaptureFixture[str]) -> None:
    whole, broken = stored("one"), stored("two")
    broken.path.write_bytes(broken.path.read_bytes()[:5000])
    status, out, err = answer("ls", capsys)
    assert status == 1
    assert whole.fingerprint in out
    assert f"{broken.path} is damaged" in err
    assert answer(f"prune {broken.fingerprint}", capsys)[0] == 0
    assert not broken.path.exists()


def test_prune_removes_what_is_named_or_old_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    old, new, named, elsewhere = (
        stored("old", days_ago=10), stored("new", days_ago=1), stored("named", days_ago=30),
        stored("old", Path("other"), days_ago=10),
    )  # fmt: skip
    strangers = [FOLDER / "0123456789abcdef.sqlite", FOLDER / "other.sqlite", FOLDER / "notes.txt"]
    for path in strangers[:2]:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE mine (a)")
        connection.commit()
        connection.close()
    strangers[2].write_text("mine", encoding="utf-8")
    for path in strangers:
        os.utime(path, (0, 0))
    journal = named.path.with_name(f"{named.path.name}-journal")
    journal.write_bytes(b"")
    status, out, _ = answer(f"prune {named.fingerprint}", capsys)
    assert status == 0
    assert out.startswith("removed 1 file, 0.0 MB")
    assert not named.path.exists()
    assert not journal.exists()
    assert answer("prune --older-than 5", capsys)[0] == 0
    assert not old.path.exists()
    assert all(path.exists() for path in (new.path, elsewhere.path, *strangers))
    status, _, err = answer("prune 0123456789abcdef", capsys)
    assert status == 2
    assert "is a database of another program" in err
    assert answer("prune --folder other --older-than=5", capsys)[0] == 0
    assert not elsewhere.path.exists()
    assert all(path.exists() for path in (new.path, *strangers))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("lss", "`cache` has no command `lss`; did you mean `ls`?"),
        ("remove", "`cache` has no command `remove`; commands are ls, prune"),
        ("ls --foldr x", "`cache ls` takes no `--foldr`; did you mean `--folder`?"),
        ("ls --fold x", "`cache ls` takes no `--fold`; did you mean `--folder`?"),
        ("ls 0123", "`cache ls` takes no `0123`; see --help"),
        ("ls --folder nowhere", "--folder nowhere: no such folder (looked at "),
        ("prune", "`cache prune` removes nothing by itself: name fingerprints (see `cache ls`) or --older-than DAYS"),
        ("prune --older-then 3", "`cache prune` takes no `--older-then`; did you mean `--older-than`?"),
        ("prune --older-than soon", "`lit-align cache prune`: argument --older-than: invalid float value: 'soon'"),
        ("prune --older-than -1", "--older-than must be a number of days >= 0, got -1.0"),
        ("prune --older-than nan", "--older-than must be a number of days >= 0, got nan"),
        ("prune 0123 --older-than 3", "`cache prune` takes fingerprints or --older-than DAYS, not both"),
        ("prune 0123", "no cache 0123 in lightning_logs/reference_cache; see `cache ls`"),
    ],
)
def test_a_mistake_is_answered_in_one_line_and_removes_nothing(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = stored("one", days_ago=100)
    status, out, err = answer(words, capsys)
    assert (status, out) == (2, "")
    assert err.startswith(f"lit-align: {said}")
    assert err.count("\n") == 1
    assert store.path.exists()


def test_one_wrong_name_removes_none_and_the_nearest_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    store = stored("one")
    wrong = store.fingerprint[:-1] + ("0" if store.fingerprint[-1] != "0" else "1")
    status, _, err = answer(f"prune {store.fingerprint} {wrong}", capsys)
    assert status == 2
    assert f"no cache {wrong} in {DEFAULT_FOLDER}; did you mean {store.fingerprint}?" in err
    assert store.path.exists()


@pytest.mark.parametrize("words", ["", "--help", "ls --help"])
def test_help_is_printed(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = answer(words, capsys)
    assert status == 0
    assert out.startswith("usage: lit-align cache ls")

"""``lit-align cache``: what the reference caches of a folder hold, and removing them; answers without torch."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from lit_align.models.logp_store import DEFAULT_FOLDER, describe, is_foreign, is_ours, remove, stored_files

_ACTIONS = ("ls", "prune")
_HELP = f"""\
usage: lit-align cache ls [--folder FOLDER]
       lit-align cache prune [--folder FOLDER] (--older-than DAYS | FINGERPRINT ...)

Log-probs that CachedReference keeps. `ls` shows a line a file; `prune` removes the files named, or those that no run
has used for DAYS days, and nothing without one of the two. FOLDER is {DEFAULT_FOLDER} by default."""
_DAY = 86_400.0  # seconds


def cache(words: Sequence[str]) -> int:
    """Show or remove the files of a folder.

    Args:
        words: What stands after ``lit-align cache``.

    Returns:
        The exit status: 0, or 1 where a file is damaged (``ls``).

    Raises:
        ValueError: A mistake in the arguments; nothing was removed.
        OSError: A file cannot be read or removed.
    """
    if not words or {"-h", "--help"} & set(words):
        print(_HELP)  # noqa: T201  the answer
        return 0
    if words[0] not in _ACTIONS:
        raise ValueError(f"`cache` has no command `{words[0]}`; {_nearest(words[0], _ACTIONS, 'commands')}")
    parser = _Parser(prog=f"lit-align cache {words[0]}", allow_abbrev=False, add_help=False)
    parser.add_argument("--folder")
    if words[0] == "prune":
        parser.add_argument("--older-than", type=float)
        parser.add_argument("fingerprints", nargs="*")
    options, unknown = parser.parse_known_args(words[1:])
    if unknown:
        names = [name for action in parser._actions for name in action.option_strings]
        said = _nearest(unknown[0].partition("=")[0], names, "options") if unknown[0].startswith("-") else "see --help"
        raise ValueError(f"`cache {words[0]}` takes no `{unknown[0]}`; {said}")
    folder = Path(options.folder or DEFAULT_FOLDER)
    if options.folder and not folder.is_dir():
        raise ValueError(f"--folder {options.folder}: no such folder (looked at {folder.absolute()})")
    if words[0] == "ls":
        return _show(folder)
    return _prune(folder, options.fingerprints, options.older_than)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"`{self.prog}`: {message}")


def _nearest(word: str, words: Sequence[str], what: str) -> str:
    near = get_close_matches(word, words, 1)
    return f"did you mean `{near[0]}`?" if near else f"{what} are {', '.join(words)}"


def _show(folder: Path) -> int:
    rows = [("fingerprint", "base", "adapter", "numbers", "attention", "answers", "tokens", "size", "last used")]
    damaged = []
    for path in stored_files(folder):
        try:
            stored = describe(path)
        except ValueError as error:
            damaged += [] if is_foreign(path) else [str(error)]
            continue
        parts, state = stored.parts, path.stat()
        rows.append((
            path.stem,
            parts.get("base", "?"),
            "none" if parts.get("adapter") == "none" else parts.get("of", "?"),
            parts.get("numbers", "?").replace(", autocast off", "").partition(", fp32")[0],
            parts.get("attention", "?"),
            f"{stored.examples:,}",
            f"{stored.tokens:,}",
            f"{state.st_size / 1e6:.1f} MB",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(state.st_mtime)),
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if len(rows) > 1:
        for row in rows:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print(line.rstrip())  # noqa: T201  the answer
    elif not damaged:
        print(f"no reference cache in {folder}")  # noqa: T201  the answer
    for line in damaged:
        print(line, file=sys.stderr)  # noqa: T201  the answer
    return 1 if damaged else 0


def _prune(folder: Path, fingerprints: Sequence[str], older_than: float | None) -> int:
    if not fingerprints and older_than is None:
        raise ValueError(
            "`cache prune` removes nothing by itself: name fingerprints (see `cache ls`) or --older-than DAYS"
        )
    if fingerprints and older_than is not None:
        raise ValueError("`cache prune` takes fingerprints or --older-than DAYS, not both")
    if older_than is not None and not 0 <= older_than < math.inf:
        raise ValueError(f"--older-than must be a number of days >= 0, got {older_than}")
    files = {path.stem: path for path in stored_files(folder)}
    for name in fingerprints:
        if name not in files:
            near = get_close_matches(name, files, 1)
            raise ValueError(
                f"no cache {name} in {folder}; " + (f"did you mean {near[0]}?" if near else "see `cache ls`")
            )
        if is_foreign(files[name]):
            raise ValueError(f"{files[name]} is a database of another program, no reference cache; nothing was removed")
    if older_than is None:
        chosen = [files[name] for name in dict.fromkeys(fingerprints)]
    else:
        before = time.time() - older_than * _DAY
        chosen = [path for path in files.values() if path.stat().st_mtime <= before and is_ours(path)]
    freed = 0
    for path in chosen:
        freed += path.stat().st_size
        remove(path)
    count = f"{len(chosen)} file{'' if len(chosen) == 1 else 's'}"
    print(f"removed {count}, {freed / 1e6:.1f} MB, from {folder}")  # noqa: T201  the answer
    return 0

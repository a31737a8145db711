"""Rows of a JSON or JSON Lines file, with errors that say where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

_LINES_SUFFIXES = (".jsonl", ".ndjson")
_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class JsonRow:
    """One object of a file.

    Attributes:
        path: The file.
        number: The line in a JSON Lines file, the place in the list of a JSON file; both from 1.
        values: The object's columns.
    """

    path: Path
    number: int
    values: dict[str, Any]

    @property
    def id(self) -> str:
        """The file's name and the row's number, such as ``chat.jsonl:17``."""
        return f"{self.path.name}:{self.number}"

    @property
    def where(self) -> str:
        """The file's whole path and the row's number, for messages."""
        return f"{self.path}:{self.number}"

    def value(self, column: str) -> Any:  # whatever JSON holds
        """The value of a column.

        Args:
            column: The column's name.

        Raises:
            ValueError: The row has no such column; the message names those that it has, and the nearest.
        """
        if column not in self.values:
            near = get_close_matches(column, self.values, n=1)
            nearest = f"did you mean '{near[0]}'? " if near else ""
            has = ", ".join(self.values) or "no column"
            raise ValueError(f"{self.where}: no column '{column}'; {nearest}the row has: {has}")
        return self.values[column]

    def text(self, column: str) -> str:
        """The value of a column that holds text.

        Args:
            column: The column's name.

        Raises:
            ValueError: The column is missing, is not text, or holds half a character (see :func:`checked_text`).
        """
        return checked_text(self.value(column), f"{self.where}: {column}")


def checked_text(value: object, where: str) -> str:
    r"""Make sure that a value is text that can be tokenised.

    Args:
        value: What the file holds.
        where: File, row and key, for the message.

    Raises:
        ValueError: The value is not a string, or has a lone surrogate (half of an emoji, written as an escape such as
            ``\ud83d`` by a program that cut the text in the middle of a character).

    Example:
        >>> checked_text("yes", "chat.jsonl:1: answer")
        'yes'
    """
    if not isinstance(value, str):
        raise ValueError(f"{where}: must be text, not {describe(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: character {error.start} is half of a character ({value[error.start]!r}), which no tokenizer "
            "takes; the text was cut in the middle of an emoji: delete that escape or drop the row"
        ) from error
    return value


def describe(value: object) -> str:
    """Name a JSON value and its type in a few characters, for messages.

    Args:
        value: Any value that JSON can hold.

    Example:
        >>> describe(4), describe(None), describe([])
        ('a number (4)', 'null', 'a list ([])')
    """
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    shown = json.dumps(value, ensure_ascii=False)
    return f"{kinds[type(value)]} ({shown if len(shown) <= 60 else shown[:60] + '…'})"


def check_limit(limit: int | None, source: str) -> None:
    """Refuse a limit that would leave no row.

    Args:
        limit: At least 1, or None for no limit.
        source: The source's name, for the message.

    Raises:
        ValueError: The limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"{source}.limit: must be at least 1, or null for all rows, not {limit}")


def read_json_rows(path: str, limit: int | None = None) -> Iterator[JsonRow]:
    """Read the objects of a file one by one.

    ``.jsonl`` and ``.ndjson`` files hold one object a line; blank lines are skipped and still counted. Other files
    hold one list of objects; one that begins with ``{`` is read as JSON Lines, since many data sets name such files
    ``.json``. A byte order mark is accepted. Files of lines are not held in memory.

    Args:
        path: The file, in UTF-8; ``~`` is the home folder.
        limit: Read the first so many rows only, at least 1; None reads all.

    Yields:
        The rows, in the file's order.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is a folder, empty or not UTF-8, a line or the whole is not JSON, or a row is not an
            object. The message names file, line, column and what stands there.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise ValueError(f"{file}: is a folder; name a .json or .jsonl file in it")
    if not file.exists():
        near = get_close_matches(file.name, [other.name for other in file.parent.glob("*")], n=1)
        nearest = f"; did you mean '{near[0]}'?" if near else ""
        raise FileNotFoundError(f"{file.absolute()}: no such file{nearest}")
    empty = True
    rows = _rows_of_lines(file) if _holds_lines(file) else _rows_of_list(file)
    for row in islice(rows, limit):
        empty = False
        yield row
    if empty:
        raise ValueError(f"{file}: holds no row")


def _holds_lines(file: Path) -> bool:
    if file.suffix.lower() in _LINES_SUFFIXES:
        return True
    with file.open("rb") as stream:
        for line in stream:
            start = line.removeprefix(_BOM).strip()
            if start:
                return start.startswith(b"{")
    return False


def _rows_of_lines(file: Path) -> Iterator[JsonRow]:
    offset = 0
    # Bytes are parted at b"\n" alone: str.splitlines would part a text at U+2028 too, which JSON may hold as it is.
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            # Without its end: a line that breaks off is reported as this line, not as the next one's start.
            text = _decoded(line, file, number, offset).rstrip()
            offset += len(line)
            if text:
                yield _row(_parsed(text, file, number), file, number)


def _rows_of_list(file: Path) -> Iterator[JsonRow]:
    text = _decoded(file.read_bytes(), file, 1, 0)
    if not text.strip():
        return
    rows = _parsed(text, file, 1)
    if not isinstance(rows, list):
        raise ValueError(f"{file}: must hold a list of objects, or one object a line, not {describe(rows)}")
    for number, values in enumerate(rows, start=1):
        yield _row(values, file, number)


def _row(values: object, file: Path, number: int) -> JsonRow:
    if not isinstance(values, dict):
        hint = "; a file that is one JSON list is named .json" if file.suffix.lower() in _LINES_SUFFIXES else ""
        raise ValueError(f"{file}:{number}: a row must be an object, not {describe(values)}{hint}")
    return JsonRow(file, number, values)


def _parsed(text: str, file: Path, first_line: int) -> object:
    try:
        parsed: object = json.loads(text)
    except json.JSONDecodeError as error:
        as_lines = text.startswith("{") and file.suffix.lower() not in _LINES_SUFFIXES
        hint = "; a file that begins with '{' is read as one object a line" if as_lines else ""
        line = first_line + error.lineno - 1
        found = text[error.pos : error.pos + 30].splitlines()
        there = f"there stands {found[0]!r}" if found and found[0] else "there the line or file ends"
        place = f"{file}, line {line}, column {error.colno}"
        raise ValueError(f"{place}: broken JSON: {error.msg}; {there}{hint}") from error
    return parsed


def _decoded(data: bytes, file: Path, first_line: int, offset: int) -> str:
    if offset == 0:
        if data.startswith(_UTF16_BOMS):
            raise ValueError(
                f"{file}: is UTF-16 (PowerShell's `>` writes it), must be UTF-8; "
                f"convert with `iconv -f UTF-16 -t UTF-8`, or in PowerShell with `| Out-File -Encoding utf8`"
            )
        offset = len(_BOM) if data.startswith(_BOM) else 0
        data = data.removeprefix(_BOM)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise ValueError(
            f"{file}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x} at offset {offset + error.start} of the "
            "file); looks like Latin-1 or a Windows code page; convert with `iconv -f LATIN1 -t UTF-8` "
            "(Russian text: `-f WINDOWS-1251`)"
        ) from error

"""Reading JSON and JSON Lines files row by row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from lit_align.data.sources.rows import Row, describe

_LINES_SUFFIXES = (".jsonl", ".ndjson")
_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


def read_json_rows(file: Path) -> Iterator[Row]:
    """Read the objects of a file one by one.

    ``.jsonl`` and ``.ndjson`` files hold one object a line; blank lines are skipped and still counted. Other files
    hold one list of objects; one that begins with ``{`` is read as JSON Lines, since many data sets name such files
    ``.json``. A byte order mark is accepted. Files of lines are not held in memory.

    Args:
        file: The file, in UTF-8.

    Yields:
        The rows, in the file's order.

    Raises:
        ValueError: The file is not UTF-8, a line or the whole is not JSON, or a row is not an object. The message
            names file, line, column and what stands there.
    """
    yield from _rows_of_lines(file) if _holds_lines(file) else _rows_of_list(file)


def _holds_lines(file: Path) -> bool:
    if file.suffix.lower() in _LINES_SUFFIXES:
        return True
    with file.open("rb") as stream:
        for line in stream:
            start = line.removeprefix(_BOM).strip()
            if start:
                return start.startswith(b"{")
    return False


def _rows_of_lines(file: Path) -> Iterator[Row]:
    offset = 0
    # Bytes are parted at b"\n" alone: str.splitlines would part a text at U+2028 too, which JSON may hold as it is.
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            # Without its end: a line that breaks off is reported as this line, not as the next one's start.
            text = _decoded(line, file, number, offset).rstrip()
            offset += len(line)
            if text:
                yield _row(_parsed(text, file, number), file, number)


def _rows_of_list(file: Path) -> Iterator[Row]:
    text = _decoded(file.read_bytes(), file, 1, 0)
    if not text.strip():
        return
    rows = _parsed(text, file, 1)
    if not isinstance(rows, list):
        raise ValueError(f"{file}: must hold a list of objects, or one object a line, not {describe(rows)}")
    for number, values in enumerate(rows, start=1):
        yield _row(values, file, number)


def _row(values: object, file: Path, number: int) -> Row:
    if not isinstance(values, dict):
        hint = "; a file that is one JSON list is named .json" if file.suffix.lower() in _LINES_SUFFIXES else ""
        raise ValueError(f"{file}:{number}: a row must be an object, not {describe(values)}{hint}")
    return Row(str(file), number, values)


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

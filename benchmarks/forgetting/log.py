"""The file of finished runs: one JSON object a line, whole lines only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def read_records(path: Path) -> tuple[list[Record], str | None]:
    """Read the finished runs; a last line that a killed run left half-written is cut off the file.

    Args:
        path: The file; it need not exist.

    Returns:
        The records in the order written, and a message if a line was cut off.

    Raises:
        ValueError: A line before the last one is no JSON object: the file was changed by hand or by two runs at once.
    """
    if not path.exists():
        return [], None
    lines = path.read_bytes().splitlines(keepends=True)
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        record = _parsed(line) if line.endswith(b"\n") else None
        if record is not None:
            records.append(record)
        elif number == len(lines):
            with path.open("rb+") as file:
                file.truncate(sum(map(len, lines[:-1])))
                os.fsync(file.fileno())
            return records, f"{path}:{number}: the last line was half-written and is cut off; its run is repeated"
        else:
            raise ValueError(f"{path}:{number} is no JSON object; repair the line, or start over with --fresh")
    return records, None


def append_record(path: Path, record: Record) -> None:
    """Append a whole line and have it on disk before anything else happens.

    Args:
        path: The file; made with its folder if missing.
        record: Plain JSON types.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(record).encode() + b"\n")
        os.fsync(file.fileno())


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None

"""What decides the rows of a source, as a hash: its settings, and the content of the files that it reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path

from tqdm import tqdm

from lit_align.data.sources.hub_rows import hub_revision, is_hub_id, local_path
from lit_align.data.sources.read_rows import files_of

_BLOCK = 2**22


def source_fingerprint(source: object) -> str:
    """Hash the settings of a source and all that it reads; a bar appears where it takes more than two seconds.

    Args:
        source: A source, a frozen dataclass whose fields are its settings, also other sources. A field named ``path``
            is a file, a folder or a data set of the hub: its content counts, and its name, not where it lies.

    Returns:
        16 hexadecimal digits.

    Raises:
        OSError: A file cannot be read, or the hub cannot be reached.
    """
    return hashlib.sha256("\n".join(_parts(source)).encode()).hexdigest()[:16]


def _parts(value: object) -> Iterator[str]:
    if is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__
        for field in fields(value):
            own = getattr(value, field.name)
            yield f".{field.name}"
            if field.name == "path" and isinstance(own, str) and own:
                yield _content(own, getattr(value, "hub_file", ""))
            else:
                yield from _parts(own)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield f"{key!r}:"
            yield from _parts(one)
    elif isinstance(value, list | tuple):
        yield f"{len(value)} in a row"
        for one in value:
            yield from _parts(one)
    else:
        yield repr(value)


def _content(path: str, hub_file: str) -> str:
    where = Path(local_path(path, hub_file) if hub_file else path).expanduser()
    if not where.exists() and is_hub_id(path):
        return f"{path} {hub_revision(path)}"
    files = files_of(where) if where.is_dir() else [where]
    hashes = [_file_hash(one, one.stat().st_size, one.stat().st_mtime_ns) for one in files]
    return " ".join([where.name, *(f"{one.name} {digest}" for one, digest in zip(files, hashes, strict=True))])


@lru_cache(maxsize=64)
def _file_hash(file: Path, size: int, changed: int) -> str:
    """SHA-256 of a file; ``changed`` tells a file that was written anew from the one that was hashed."""
    del changed
    digest = hashlib.sha256()
    with (
        file.open("rb") as stream,
        tqdm(total=size, desc=f"hashing {file.name}", unit="B", unit_scale=True, delay=2, leave=False) as bar,
    ):
        while block := stream.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()

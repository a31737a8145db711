"""What decides the data that a preparation yields: the key of those that are kept, and the versions that made them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from lit_align.data.sources.hub_rows import hub_revision, is_hub_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PACKAGE = Path(__file__).parents[2]
_CODE = ("data", "metrics", "forest.py", "rated.py", "tokenizer.py", "trie.py", "types.py")  # reads, draws, tokenises
_LIBRARIES = ("datasets", "jinja2", "tokenizers", "transformers")
_LONGEST_PATH = 1000
_BLOCK = 2**20


def deciding(settings: Mapping[str, object], tokenizer: PreTrainedTokenizerBase) -> tuple[str, dict[str, str]]:
    """A hash of what is asked for, and the versions of what makes it.

    The first holds the settings, the content of all files that they name, and the tokenizer with its template. The
    bytes of a file count, not its date. The second holds libraries and the code of this package, and that of sources
    from elsewhere.

    Args:
        settings: By name: numbers, texts, and sources and their like with what these hold.
        tokenizer: Of the base.

    Returns:
        16 hexadecimal digits, and versions by name.

    Raises:
        OSError: A data set of the hub is out of reach, and there is no copy of it.
        ValueError: A setting is an object of which it cannot be told what it holds.
    """
    classes: set[type] = set()
    told = [f"{name}: {_described(value, f'data.{name}', classes)}" for name, value in sorted(settings.items())]
    text = "\n".join([*told, _of_tokenizer(tokenizer)])
    key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return key, {**{name: version(name) for name in _LIBRARIES}, "the code that prepares data": _of_code(classes)}


def _described(value: object, where: str, classes: set[type]) -> str:
    """A value as text, with the content of the files that it names; the classes in it are noted."""
    if isinstance(value, str):
        return _of_text(value, where)
    if value is None or isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Path):
        return _described(str(value), where, classes)
    if isinstance(value, list | tuple | set | frozenset):
        items = [_described(one, where, classes) for one in value]
        return f"[{', '.join(items if isinstance(value, list | tuple) else sorted(items))}]"
    if isinstance(value, Mapping):
        items = [f"{key!r}: {_described(one, f'{where}.{key}', classes)}" for key, one in value.items()]
        return f"{{{', '.join(sorted(items))}}}"
    if is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
    elif hasattr(value, "__dict__") and not callable(value):
        held = vars(value)
    else:
        raise ValueError(
            f"`data.cache`: what {where} holds decides the data, and it cannot be told from a {type(value).__name__}; "
            "make it a dataclass, or set `data.cache: null`"
        )
    classes.add(type(value))
    named = f"{type(value).__module__}.{type(value).__qualname__}"
    items = [f"{key}={_described(one, f'{where}.{key}', classes)}" for key, one in held.items()]
    return f"{named}({', '.join(items)})"


def _of_text(text: str, where: str) -> str:
    """A text, with what lies where it points, if anything: the bytes of a file or folder, the commit of a hub's set.

    Of a path the name counts, of which ids and sources are made, and not where it is.
    """
    if not text or len(text) > _LONGEST_PATH or "\n" in text or "\0" in text:
        return repr(text)
    path = Path(text).expanduser()
    if path.is_file():
        return f"{path.name!r} {_of_bytes([path])}"
    if path.is_dir():
        return f"{path.name!r} {_of_bytes(sorted(one for one in path.rglob('*') if one.is_file()))}"
    on_hub = where.endswith(".path") and is_hub_id(text) and not path.parent.is_dir()
    return f"{text!r} {hub_revision(text)}" if on_hub else repr(text)


def _of_bytes(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    with tqdm(desc="checking the sources", delay=2, leave=False, unit="B", unit_scale=True) as bar:
        for file in files:
            # Of several files the names count too: they decide the order in which they are read.
            digest.update(f"{file.name} {file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
                    bar.update(len(block))
    return digest.hexdigest()


def _of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    core = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = sorted(tokenizer.get_vocab().items()) if core is None else core.to_str()
    told = (vocabulary, tokenizer.chat_template, sorted(tokenizer.special_tokens_map.items()), type(tokenizer).__name__)
    return f"tokenizer: {hashlib.sha256(repr(told).encode('utf-8', 'surrogatepass')).hexdigest()}"


def _of_code(classes: Iterable[type]) -> str:
    files = {file for name in _CODE for file in [_PACKAGE / name, *(_PACKAGE / name).rglob("*.py")] if file.is_file()}
    own = sorted(files)
    foreign = sorted({Path(inspect.getfile(one)) for one in classes} - files)
    digest = hashlib.sha256()
    for file in [*own, *(file for file in foreign if not file.is_relative_to(_PACKAGE))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]

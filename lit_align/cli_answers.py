"""What the command line answers without a run: its short help, and one line for each mistake in the arguments."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

COMMANDS = {
    "fit": "train, and measure before and after",
    "validate": "measure the validation data and the benchmarks",
    "audit": "what training would see of the data, without training: what is wrong with them",
    "sample": "completions of the base or an adapter for the prompts of a source, into a file",
    "export": "trained adapters as one adapter or as merged weights, with the drift that it brings",
    "calibrate": "place a reward model's rewards on the scale of 1 to 10, by answers of known quality",
    "cache": "show or remove the log-probs that references have on disk",
}


@dataclass(frozen=True)
class Given:
    """A value that a user gave.

    Attributes:
        file: Where it stands; empty on the command line.
        path: Its key, without ``init_args``: ``data.sources[0].n``.
        value: As YAML reads it.
    """

    file: str
    path: str
    value: Any

    def __str__(self) -> str:
        """The key, and the file that it stands in."""
        return f"`{self.path.removesuffix('.class_path')}`" + (f" in {self.file}" if self.file else "")


def short_help() -> str:
    """The commands and how they are used."""
    commands = "\n".join(f"  {name:<11}{what}" for name, what in COMMANDS.items())
    return (
        "usage: lit-align COMMAND -c FILE [-c OVERLAY ...] [--key=value ...]\n\n"
        f"{commands}\n\n"
        "lit-align fit -c configs/quickstart.yaml    try it: offline, on CPU, minutes\n"
        "lit-align fit --help                        all keys; --model.help=SFTModule those of a class\n"
        "lit-align fit -c FILE --print_config        what a run would use, without running\n"
        "lit-align --version"
    )


def _cache(words: Sequence[str]) -> int:
    from lit_align.commands.cache import cache

    return cache(words)


QUICK: dict[str, Callable[[Sequence[str]], int]] = {"cache": _cache}
"""Commands that need neither torch nor a configuration: given the words after their name, they return an exit status;
a ValueError is a mistake in these words."""


def quick_answer(words: Sequence[str]) -> int | None:
    """Do what needs no parser: short help, version, an unknown command, a quick command.

    Returns:
        The exit status, or None where there is a command to run.
    """
    if not words or words[0] in {"-h", "--help", "help"}:
        print(short_help())  # noqa: T201  the answer
        return 0
    if words[0] == "--version":
        from lit_align import __version__

        print(f"lit-align {__version__}")  # noqa: T201  the answer
        return 0
    if words[0] in QUICK:
        try:
            return QUICK[words[0]](words[1:])
        except ValueError as error:
            complain(str(error))
            return 2
        except OSError as error:
            complain(str(error))
            return 1
    if words[0] in COMMANDS:
        return None
    if words[0].startswith("-"):
        complain(f"`{words[0]}` stands before the command; commands are {', '.join(COMMANDS)}")
    else:
        near = get_close_matches(words[0], COMMANDS, 1)
        told = f"did you mean `{near[0]}`?" if near else f"commands are {', '.join(COMMANDS)}"
        complain(f"unknown command `{words[0]}`; {told}")
    return 2


def complain(text: str) -> None:
    """Write one line to the terminal."""
    sys.stderr.write(f"lit-align: {' '.join(text.split())}\n")


def read_given(words: Sequence[str]) -> list[Given]:
    """All values of the command line and of the files that it names, in the order in which they apply.

    Raises:
        FileNotFoundError: A file given with ``-c`` is not there.
        ValueError: A file is broken YAML, or holds something else than keys; the message names file and line.
    """
    found: list[Given] = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        if not flag.startswith("-"):
            continue
        value = value if equals else following
        if flag in {"-c", "--config"}:
            found += _flat(value, "", _read_config(value))
        elif flag.startswith("--") and value:
            found += _flat("", flag.removeprefix("--"), _scalar(value))
    return found


def _scalar(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _read_config(name: str) -> dict[str, Any]:
    import yaml

    path = Path(name)
    if not path.is_file():
        given = _scalar(name)
        if isinstance(given, dict):  # the configuration itself instead of a file
            return given
        folder = path.parent if path.parent.is_dir() else Path()
        near = get_close_matches(path.name, [other.name for other in folder.glob("*.y*ml")], 1)
        hint = f"; did you mean {folder / near[0]}?" if near else ""
        raise FileNotFoundError(f"-c {name}: no such file (looked at {path.absolute()}){hint}")
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{name}{line}: broken YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: no YAML in UTF-8: {error}") from error
    if not isinstance(held, dict):
        raise ValueError(f"{name}: must hold keys such as `model:`, holds {type(held).__name__}")
    return held


def _flat(file: str, path: str, value: Any) -> Iterator[Given]:
    path = re.sub(r"(^|\.)init_args(?=\.|$)", "", path).removeprefix(".")
    path = re.sub(r"^(fit|validate)(\.|$)", "", path)  # a file may hold their keys below the command's name
    if isinstance(value, str) and (path in {"model", "data"} or value.endswith((".yaml", ".yml"))):
        # A file in place of the values; one that is named in a file lies beside it.
        inner = next((one for one in (str(Path(file).parent / value), value) if Path(one).is_file()), "")
        file, value = (inner, _read_config(inner)) if inner else (file, value)
    if path:
        yield Given(file, path, value)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(file, f"{path}.{key}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flat(file, f"{path}[{index}]", inner)


def refuse_link_target(given: Sequence[Given]) -> None:
    """A value for ``data.base`` would be dropped silently, since the model's base takes its place.

    Raises:
        ValueError: Names where it was set.
    """
    for one in given:
        if one.path == "data.base":
            raise ValueError(f"{one}: the data module takes its base from the model; set `model.base`")

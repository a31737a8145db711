"""A class that takes the place of another starts from its own defaults: none of the other's options leaks into it."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jsonargparse import _typehints

from lit_align.cli_answers import Given


@contextmanager
def reset_on_class_change() -> Iterator[None]:
    """Make jsonargparse drop all options of a class when another takes its place, inside the block.

    By itself it keeps those that the new class has too: the ``beta: 0.02`` of a SigmoidLoss would become IPOLoss's,
    where it means something else. Whichever way a class is named (a word, a file, an item of a list, inside another
    class), jsonargparse comes through the one function that is exchanged here. Were it gone from some version, this
    would fail at once; were it no longer called, the tests, which go through every way.
    """
    kept = _typehints.discard_init_args_on_class_path_change
    _typehints.discard_init_args_on_class_path_change = _discard_all
    try:
        yield
    finally:
        _typehints.discard_init_args_on_class_path_change = kept


def _discard_all(parser: Any, before: Any, now: Any) -> None:
    """Take all options out of ``before``, in place, where ``now`` is of another class."""
    del parser
    if before and "init_args" in before and not _same_class(before["class_path"], now["class_path"]):
        options = before["init_args"]
        for key in list(vars(options)):
            del options[key]


def _same_class(one: str, other: str) -> bool:
    """Whether two names are of one class; each is whole, or without its module."""
    if one == other or one.rpartition(".")[2] != other.rpartition(".")[2]:
        return one == other
    if "." not in one or "." not in other:
        return True
    try:
        # A package offers under its own name what a file in it defines.
        return bool(pkgutil.resolve_name(one) is pkgutil.resolve_name(other))
    except (ImportError, AttributeError, ValueError):
        return False


@dataclass(frozen=True)
class ClassChange:
    """A class that took the place of another one for which a user had set options.

    Attributes:
        key: Where the classes stand, such as ``model.loss``.
        before: Name of the class that was there; empty for the default.
        now: Name of the class that is there.
        lost: The options that were set for the one before.
        named: Whether the command line named the one before.
    """

    key: str
    before: str
    now: str
    lost: tuple[Given, ...]
    named: bool

    def __str__(self) -> str:
        """One line for the log."""
        by_file: dict[str, dict[str, str]] = {}
        for one in self.lost:
            below = one.path.removeprefix(f"{self.key}.")
            first = re.split(r"[.\[]", below)[0]  # of a whole block its name
            shown = f"{below} = {one.value}" if below == first and not isinstance(one.value, list) else first
            by_file.setdefault(one.file, {}).setdefault(first, shown)
        lost = ", ".join(", ".join(names.values()) + (f" of {file}" if file else "") for file, names in by_file.items())
        return f"`{self.key}`: {self.now} in place of {self._before}, with its own defaults; not kept: {lost}"

    def refuse_if_unclear(self) -> None:
        """Refuse an option of the command line that stands before the class, since it may be meant for either.

        Raises:
            ValueError: Names the option, both classes, and the order in which it is clear.
        """
        typed = [one for one in self.lost if not one.file]
        if typed and not self.named:
            raise ValueError(
                f"`{typed[0].path}` stands before `{self.key}`, which changes the class from {self._before} to "
                f"{self.now}; an option is written after its class: {self.now} starts from its own defaults"
            )

    @property
    def _before(self) -> str:
        return self.before or "the default"


def class_changes(given: Sequence[Given]) -> list[ClassChange]:
    """The changes of a class by which options that a user had set are lost.

    Args:
        given: What the user gave, in the order in which it applies.
    """
    changes = []
    classes: dict[str, Given] = {}  # by key; the value names the class
    options: dict[str, Given] = {}  # by key
    lists: dict[str, int] = {}  # the last item of each
    for one in given:
        key = _indexed(one, lists)
        if isinstance(one.value, list) and not one.path.endswith("+"):  # it takes the place of the whole list
            _forget(f"{key}[", classes, options)
        holder, name = _class_named_by(one, key)
        if name:
            before = classes.get(holder)
            same = before is not None and _same_class(str(before.value), name)
            if lost := () if same else _forget(f"{holder}.", classes, options):
                old = str(before.value).rpartition(".")[2] if before else ""
                named = before is not None and not before.file
                changes.append(ClassChange(holder, old, name.rpartition(".")[2], lost, named))
            classes[holder] = Given(one.file, key, name)
        if not isinstance(one.value, dict) and not key.endswith(".class_path"):
            options[key] = Given(one.file, key, one.value)
    return changes


def _indexed(one: Given, lists: dict[str, int]) -> str:
    """The key with the index of the last item wherever it names a list as a whole, as the command line may."""
    key = ""
    for part in one.path.split("."):
        if key in lists:
            key = f"{key}[{lists[key]}]"
        key = f"{key}.{part}" if key else part
    if isinstance(one.value, list):
        lists[key.removesuffix("+")] = len(one.value) - 1 + (lists.get(key[:-1], -1) + 1 if key.endswith("+") else 0)
    elif key.endswith("+"):
        key = key[:-1]
        lists[key] = lists.get(key, -1) + 1
        key = f"{key}[{lists[key]}]"
    return key


def _class_named_by(one: Given, key: str) -> tuple[str, str]:
    """The key of the class and its name; no name where the value names none. Any word may: few have options below."""
    if isinstance(one.value, dict):
        # Before what stands beside it: options of the same block are of the new class, in whatever order.
        return key, str(one.value.get("class_path", ""))
    if key.endswith(".class_path"):
        return key.removesuffix(".class_path"), str(one.value)
    word = isinstance(one.value, str) and re.fullmatch(r"[A-Za-z_][\w.]*", one.value)
    return key, str(one.value) if word and not str(one.value).endswith((".yaml", ".yml")) else ""


def _forget(prefix: str, classes: dict[str, Given], options: dict[str, Given]) -> tuple[Given, ...]:
    """Take out what stands below a key; returns the options among it."""
    lost = tuple(one for key, one in options.items() if key.startswith(prefix))
    for table in (classes, options):
        for key in [key for key in table if key.startswith(prefix)]:
            del table[key]
    return lost

"""One line for each mistake in the arguments: the key, the rule, and the nearest right one."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any

from lit_align.cli_answers import Given

_UNKNOWN_KEY = (
    re.compile(r"Group '(?P<group>[^']+)' does not accept (?:nested )?(?:option|key) '(?P<key>[^']+)'"),
    re.compile(r"[Nn]o action for (?:destination )?key \"(?P<key>[^\"]+)\""),
    re.compile(r"Subcommand '[^']+' does not accept (?:nested )?(?:option|key) '(?P<key>[^']+)'"),
    re.compile(r"Option '(?P<key>[^']+)' is not accepted"),
    re.compile(r"[Kk]ey '(?P<key>[^']+)' is not expected"),
    re.compile(r"[Uu]nrecognized arguments: -+(?P<key>[^\s=]+)"),
)
_UNKNOWN_CLASS = (
    re.compile(r"Expected a dot import path string: (?P<name>[\w.]+)"),
    re.compile(r"Problem with given class_path '(?P<name>[^']+)':\s*(?:module '|No module|Not a|Import of)"),
    re.compile(r"has no attribute '\w+'. Got value: (?:Namespace\(class_path=')?(?P<name>[\w.]+)"),
    re.compile(r"expects a function or a callable class.*Got value: (?:Namespace\(class_path=')?(?P<name>[\w.]+)"),
)
_NO_CLASS = (
    re.compile(r"but [\w.]+\.(?P<base>\w+) is abstract"),
    re.compile(r"Not a valid subclass of (?P<base>\w+)\n(?=[\s\S]*Given value: \{'init_args')"),
)
_KEY = re.compile(r"Parser key \"(?P<key>[^\"]+)\"")
_EXPECTED = re.compile(r"Expected an? (?P<kind>.+?)(?:\. Got value: (?P<value>.*))?$")
_NO_CAUSE = (
    "Does not validate", "Subtypes:", "Errors:", "Given value", "Parser key", "Expected a path but",
    "Expected a <class 'NoneType'>", "Not a valid subclass", "Subclass types expect", "a class path (str)",
    "a dict with", "Problem with given class_path",
)  # fmt: skip


def explain(message: str, given: Sequence[Given], known: set[str]) -> str:
    r"""The cause of a parsing error in one line.

    Args:
        message: What jsonargparse says, of many lines.
        given: What the user gave, to name the place.
        known: Valid keys, to name the nearest one.

    Example:
        >>> explain("Parser key ... Group 'lora' does not accept option 'aplha'", [], {"lora.alpha", "lora.rank"})
        'unknown key `lora.aplha`; did you mean `lora.alpha`?'
        >>> explain('Parser key "window": Expected a <class \'int\'>. Got value: many', [], set())
        "`window`: must be int, got 'many'"
    """
    for pattern in _UNKNOWN_KEY:
        for match in reversed(list(pattern.finditer(message))):
            parts = match.groupdict()
            return _unknown_key(".".join(filter(None, (parts.get("group"), parts["key"]))), given, known)
    if stray := re.search(r"[Uu]nrecognized arguments: (\S+)", message):
        return f"unexpected argument `{stray[1]}`; values are given as --key=value"
    if required := re.search(r"arguments are required: (.+)", message):
        return _missing(required[1], given)
    keys = _KEY.findall(message)
    key = keys[-1] if keys else ""
    for pattern in _UNKNOWN_CLASS:
        for match in pattern.finditer(message):
            # A plain word for a number or a tensor is no class name.
            if not re.search(r"Expected a <class '(int|float|bool|list|dict)'>", message):
                return _unknown_class(match["name"], key, given)
    for pattern in _NO_CLASS:
        if (unnamed := pattern.search(message)) and (told := _class_not_named(unnamed["base"], key, given)):
            return told
    causes = innermost(message)
    kinds = [match for match in map(_EXPECTED.match, causes) if match]
    if len(kinds) < len(causes):
        cause = next(line for line in causes if not _EXPECTED.match(line))
        return cause if not key or f"`{key}`" in cause else f"{_place(key, None, given)}: {cause}"
    if not kinds:
        return " ".join(message.split())
    value = kinds[-1]["value"] or (found[-1] if (found := re.findall(r"Given value: (.*)", message)) else "")
    expected = " or ".join(dict.fromkeys(_readable(kind["kind"]) for kind in kinds if "dot import" not in kind["kind"]))
    return f"{_place(key, value, given)}: must be {expected}, got {value!r}"


def innermost(message: str) -> list[str]:
    """The lines of a message that tell causes; those that only tell where, and repeat the input, are left out."""
    lines = [re.sub(_KEY.pattern + r":?", "", line).strip(" -") for line in message.splitlines()]
    return [line for line in lines if line and not line.startswith(_NO_CAUSE)]


def refusal(error: Exception, given: Sequence[Given] = ()) -> str:
    """What a class says when it refuses its values, without what jsonargparse wraps around it.

    Args:
        error: Its error; a class that may stand in several places says ``beta must …``, without the whole key.
        given: What the user gave, to name the place.
    """
    message = str(error) or type(error).__name__
    message = next(iter(innermost(message)), message) if message.startswith("Does not validate") else message
    name, _, rule = message.partition(" must ")
    there = {one.path: one for one in given if rule and one.path.endswith(f".{name}")}
    return f"{next(iter(there.values()))}: must {rule}" if len(there) == 1 else message


def _readable(kind: str) -> str:
    kind = re.sub(r"<class '([^']+)'>", r"\1", kind)
    return f"one of {literal[1]}" if (literal := re.fullmatch(r"typing\.Literal\[(.+)\]", kind)) else kind


def _place(key: str, value: str | None, given: Sequence[Given]) -> str:
    found = _find(key, value, given)
    return str(found) if found else f"`{key}`"


def _find(key: str, value: str | None, given: Sequence[Given]) -> Given | None:
    there = [one for one in given if _ends_with(one.path, key) and not one.path.endswith("]")]
    exact = [one for one in there if value is not None and str(one.value) == value]
    return (exact or there)[-1] if there else None


def _ends_with(path: str, key: str) -> bool:
    plain = re.sub(r"\[\d+\]", "", path)
    return plain == key or plain.endswith(f".{key}")


def _unknown_key(key: str, given: Sequence[Given], known: set[str]) -> str:
    found = _find(key, None, given)
    parent, _, last = (found.path if found else key).rpartition(".")
    siblings: dict[str, str] = {}
    for one in given:  # the class that the user named there, if any
        if one.path == f"{parent}.class_path" and (owner := _class_named(str(one.value))):
            siblings = {name: name for name in inspect.signature(owner).parameters}
    siblings = siblings or {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    near = [siblings[name] for name in get_close_matches(last, siblings, 1, 0.4 if parent else 0.7)]
    near = near or get_close_matches(key, known, 1, 0.7) or get_close_matches(last, known, 1, 0.7)
    there = f"; there are {', '.join(siblings)}" if siblings and parent else "; see --help"
    return f"unknown key {found or f'`{key}`'}" + (f"; did you mean `{near[0]}`?" if near else there)


def _missing(names: str, given: Sequence[Given]) -> str:
    keys = [name.split(".")[-1] for name in names.split(", ")]
    for one in given:
        holder = one.path.removesuffix(".class_path")
        if isinstance(one.value, str) and (owner := _class_named(one.value)):
            held = {other.path for other in given}
            if all(key in inspect.signature(owner).parameters and f"{holder}.{key}" not in held for key in keys):
                return f"{one}: {owner.__name__} needs {', '.join(f'`{key}`' for key in keys)}"
    if len(keys) > 1 or set(keys) <= {"model", "data"}:  # as without any file
        return f"{' and '.join(f'`{key}`' for key in sorted(keys))} not set; name a file with -c"
    return f"`{keys[0]}` must be given"


def _unknown_class(name: str, key: str, given: Sequence[Given]) -> str:
    last = key.split(".")[-1]
    there = [one for one in given if one.value == name and _ends_with(one.path.removesuffix(".class_path"), last)]
    place = str(there[-1]) if there else f"`{key}`"
    bases = _types_of(there[-1].path.removesuffix(".class_path") if there else key, given)
    names = sorted({found.__name__ for base in bases for found in _concrete(base)})
    near = get_close_matches(name.split(".")[-1], names, 1, 0.6)
    general = [base for base in bases if _made_by(base) not in bases and not {*base.__mro__[1:]} & bases]
    what = " or ".join(sorted(base.__name__ for base in general)) or "class"
    if name.split(".")[-1] in names:
        return f"{place}: `{name}` does not fit here, or the options given for it do not"
    if near:
        package = name.rpartition(".")[0]
        nearest = f"{package}.{near[0]}" if hasattr(sys.modules.get(package), near[0]) else near[0]
        return f"{place}: `{name}` is no {what}; did you mean `{nearest}`?"
    return f"{place}: `{name}` is no {what}; " + (f"there are {', '.join(names)}" if names else "see --help")


def _class_not_named(base: str, key: str, given: Sequence[Given]) -> str | None:
    """Options of a class that stand where no class is named, as in ``--model.loss.beta=0.2`` alone."""
    last = key.split(".")[-1]
    options = [one for one in given if _ends_with(one.path.rpartition(".")[0], last)]
    kind = _class_named(base)
    if not options or kind is None:
        return None
    holder, _, option = options[-1].path.rpartition(".")
    classes = [one for one in _concrete(kind) if not inspect.isabstract(one)]
    having = [one for one in classes if option in inspect.signature(one).parameters]
    lead = f"whose option is it? set `{holder}` first, to one of" if having else f"no {base} has this option; there are"
    return f"{options[-1]}: {lead} {', '.join(sorted(one.__name__ for one in having or classes))}"


def _made_by(base: type[Any]) -> Any:
    """What a class of factories makes: a user knows them by that."""
    call = vars(base).get("__call__")
    return typing.get_type_hints(call).get("return") if inspect.isfunction(call) else None


def _our_classes() -> list[type[Any]]:
    modules = [module for name, module in sys.modules.items() if name.startswith("lit_align.")]
    found = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    return [value for value in found if value.__module__.startswith("lit_align.")]


def _class_named(name: str) -> type[Any] | None:
    return next((found for found in _our_classes() if found.__name__ == name.split(".")[-1]), None)


def class_keys() -> set[str]:
    """Parameters of everything that a configuration can name by class path."""
    return {
        name
        for found in _our_classes()
        if is_dataclass(found) or "__init__" in vars(found)
        for name in inspect.signature(found).parameters
    }


def _types_of(path: str, given: Sequence[Given]) -> set[type[Any]]:
    """The classes that a parameter takes: that of its owner, or where that is not known, all of its name."""
    from lightning.pytorch import Callback, LightningDataModule, LightningModule

    parent, _, last = path.rpartition(".")
    key = last.partition("[")[0]
    fixed = {"model": LightningModule, "data": LightningDataModule, "callbacks": Callback}
    if key in fixed:
        return {fixed[key]}
    owners = _owners(parent, given) or set(_our_classes())
    return {kind for owner in owners for kind in _parameter_classes(owner, key) if kind.__subclasses__()}


def _owners(path: str, given: Sequence[Given]) -> set[type[Any]]:
    """The class that stands at a place: named there by the user, or the only one that its owner takes."""
    if not path:
        return set()
    for one in given:
        if one.path in {path, f"{path}.class_path"} and (named := _class_named(str(one.value))):
            return {named}
    parent, _, last = path.rpartition(".")
    return {kind for owner in _owners(parent, given) for kind in _parameter_classes(owner, last.partition("[")[0])}


def _parameter_classes(owner: type[Any], name: str) -> set[type[Any]]:
    try:
        hints = typing.get_type_hints(owner if is_dataclass(owner) else owner.__init__)
    except NameError:  # a name that is imported for type checkers alone
        return set()
    return set(_classes_in(hints.get(name)))


def _classes_in(hint: Any) -> Iterator[type[Any]]:
    if inspect.isclass(hint) and hint.__module__ != "builtins" and not typing.get_args(hint):
        yield hint
    parts = typing.get_args(hint)
    for part in parts[-1:] if typing.get_origin(hint) is Callable else parts:  # of a factory, what it makes
        yield from _classes_in(part)


def _concrete(base: type[Any]) -> Iterator[type[Any]]:
    if not inspect.isabstract(base):
        yield base
    for child in base.__subclasses__():
        yield from _concrete(child)

"""What a verifiable instruction is: a rule about the text of an answer, with parameters from a file."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import ClassVar, Literal, get_args

# Types of parameters; an instruction's fields are annotated with these names, and each name has a rule below.
Count = int
Text = str
Letter = str
LanguageCode = str
Pattern = str
Patterns = tuple[str, ...]
Relation = Literal["less than", "at least"]

RELATIONS: tuple[str, ...] = get_args(Relation)


def holds(count: int, relation: Relation, threshold: int) -> bool:
    """Whether a count stands in a relation to a threshold.

    Args:
        count: What was counted.
        relation: ``less than`` is ``<``, ``at least`` is ``>=``.
        threshold: What the instruction asks for.

    Example:
        >>> holds(3, "less than", 3), holds(3, "at least", 3)
        (False, True)
    """
    return count < threshold if relation == "less than" else count >= threshold


def _is_pattern(value: object) -> bool:
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        re.compile(value)
    except re.error:
        return False
    return True


_RULES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "Count": ("a whole number >= 0", lambda value: type(value) is int and value >= 0),
    "Text": ("text that is not blank", lambda value: isinstance(value, str) and bool(value.strip())),
    "Letter": ("one character", lambda value: isinstance(value, str) and len(value) == 1 and not value.isspace()),
    "LanguageCode": (
        "a language code such as 'ru'",
        lambda value: isinstance(value, str) and re.fullmatch(r"[a-z]{2,3}", value) is not None,
    ),
    "Pattern": ("a word or regular expression", _is_pattern),
    "Patterns": (
        "a list of one or more words or regular expressions",
        lambda value: isinstance(value, tuple) and bool(value) and all(map(_is_pattern, value)),
    ),
    "Relation": ("'less than' or 'at least'", lambda value: value in RELATIONS),
}


@dataclass(frozen=True)
class Instruction(ABC):
    """A rule that an answer follows or not; its fields are the parameters, under the names that IFEval's file uses.

    Every rule gives the result of IFEval's own program (google-research/instruction_following_eval), also where that is
    lenient or odd: a figure is of use only if it can be compared. Where the libraries differ the docstring says so. A
    blank answer follows no instruction; that is seen to by :func:`~lit_align.evals.instructions.scoring.follows`.

    Attributes:
        package: The package that the rule needs, as it is imported; empty for none.

    Raises:
        ValueError: A parameter breaks its rule; the message begins with the parameter's name.
    """

    package: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            rule, keeps = _RULES[str(field.type)]
            value = getattr(self, field.name)
            if not keeps(value):
                raise ValueError(f"{field.name} must be {rule}, got {value!r}")

    def check(self) -> None:
        """Refuse what would fail at the first answer.

        Raises:
            ImportError: The package is not installed.
            ValueError: The package does not know what a parameter says.
        """
        if self.package and find_spec(self.package) is None:
            raise ImportError(
                f'{type(self).__name__} needs one more package, {self.package}: pip install "lit_align[instructions]"'
            )

    @abstractmethod
    def is_followed(self, answer: str) -> bool:
        """Whether a text that is not blank follows the rule."""

"""What an example counts in a drawing: one, or its trained tokens; asked for one by one, made ready many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class TokenCount:
    """Counts the trained tokens of an example.

    Attributes:
        count: Of an example; 0 for one that is dropped.
        ahead: The examples that it is given, while those that come next are counted in other processes.
    """

    count: Callable[[Any], int]
    ahead: Callable[[Iterable[Any]], Iterable[Any]]

    def __call__(self, one: Any) -> int:
        """Trained tokens of an example."""
        return self.count(one)


@dataclass(frozen=True)
class Weighing:
    """Weighs examples as :func:`~lit_align.data.mixture.draw` asks for them.

    Args:
        tokens: Trained tokens of an example, 0 for one that is dropped.
        of: Whether an example counts one, or its tokens.

    Example:
        >>> [Weighing(len, "examples")(text) for text in ("", "ab")], Weighing(len, "tokens")("ab")
        ([0, 1], 2)
    """

    tokens: Callable[[Any], int]
    of: Literal["examples", "tokens"]

    def __call__(self, one: Any) -> int:
        """Weight of an example."""
        tokens = self.tokens(one)
        return tokens if self.of == "tokens" else min(tokens, 1)

    def coming(self, pool: Iterable[T]) -> Iterable[T]:
        """The examples of a pool, that will be weighed in its order.

        Args:
            pool: Read a little before its examples are asked for.
        """
        return self.tokens.ahead(pool) if isinstance(self.tokens, TokenCount) else pool

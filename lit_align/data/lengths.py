"""Token limits: which examples fit, and what becomes of those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lit_align.forest import TokenClass, TokenPath


@dataclass(frozen=True)
class Lengths:
    """Token limits of an example.

    Attributes:
        max_length: Prompt and answer together, > 0.
        max_prompt_length: The prompt alone; 0 leaves it to ``max_length``. A longer one drops the example: a prompt is
            never cut.
        overlong: What happens to an answer that does not fit: ``drop`` the example, or ``cut`` the answer, which then
            has no end-of-turn token.
        max_dropped: Largest share of a source's answers that may be dropped, in [0, 1]. Over it the run stops and
            shows the lengths: a limit that drops most rows trains on the short ones alone.
    """

    max_length: int = 4096
    max_prompt_length: int = 0
    overlong: Literal["drop", "cut"] = "drop"
    max_dropped: float = 0.5

    def __post_init__(self) -> None:
        if self.max_length <= 1:
            raise ValueError(f"`data.lengths.max_length` must be > 1, got {self.max_length}")
        if not 0 <= self.max_prompt_length <= self.max_length:
            raise ValueError(
                f"`data.lengths.max_prompt_length` must be in [0, max_length = {self.max_length}], got "
                f"{self.max_prompt_length}"
            )
        if not 0 <= self.max_dropped <= 1:
            raise ValueError(f"`data.lengths.max_dropped` must be in [0, 1], got {self.max_dropped}")

    def fit(self, path: TokenPath) -> tuple[TokenPath | None, str]:
        """Hold an example to the limits.

        Returns:
            The path, perhaps cut, or None; and what happened: ``kept``, ``cut``, ``prompt too long``, ``too long``.
        """
        prompt = prompt_size(path)
        if prompt > (self.max_prompt_length or self.max_length):
            return None, "prompt too long"
        if len(path.tokens) <= self.max_length:
            return path, "kept"
        if self.overlong == "drop" or prompt >= self.max_length:
            return None, "too long"
        end = self.max_length
        return TokenPath(path.tokens[:end], path.classes[:end], path.example, path.weight), "cut"


def refuse_over_budget(example: str, rows: int, budget: int, what: str) -> None:
    """Refuse an example that no forest can hold.

    Args:
        example: Its id.
        rows: Rows of it that must be in one forest.
        budget: ``data.token_budget``.
        what: What takes them: ``answer``, ``pair`` for both of a pair, or ``answer and a mismatched one``.

    Raises:
        ValueError: It has more rows than a forest.
    """
    if rows > budget:
        taken = f"its {rows} tokens" if what == "answer" else f"the {rows} tokens of its {what}"
        named = f"{example} chosen: {taken}" if what == "pair" else f"{example}: {taken}"
        raise ValueError(
            f"{named} are over `data.token_budget` = {budget}; raise the budget or lower `data.lengths.max_length`"
        )


def prompt_size(path: TokenPath) -> int:
    """Tokens before the answer, the scaffold that opens it included."""
    return int(np.argmax(path.classes == TokenClass.ANSWER))


def histogram(sizes: Sequence[int], limit: int) -> str:
    """Draw lengths as a bar for each doubling, and mark those over a limit.

    Args:
        sizes: Lengths in tokens, > 0.
        limit: The limit; it is a bound of its own between the powers of two.

    Returns:
        A line for each range that is between the shortest and the longest.

    Example:
        >>> print(histogram([3, 4, 100, 130, 700], 512))
              3-4    |#################### 2
              5-8    | 0
              9-16   | 0
             17-32   | 0
             33-64   | 0
             65-128  |########## 1
            129-256  |########## 1
            257-512  | 0
            513-1024 |########## 1 over
    """
    bounds = sorted({limit, *(2**power for power in range(max(sizes, default=1).bit_length() + 1))})
    places = np.searchsorted(bounds, np.asarray(sizes, dtype=np.int64), side="left")
    counts = np.bincount(places, minlength=len(bounds))
    lines = []
    for place in range(int(places.min(initial=len(bounds))), int(places.max(initial=-1)) + 1):
        first, last = (bounds[place - 1] + 1 if place else 1), bounds[place]
        bar = "#" * int(np.ceil(20 * counts[place] / counts.max()))
        lines.append(f"{first:>7}-{last:<5}|{bar} {counts[place]}{' over' * (last > limit)}")
    return "\n".join(lines)

"""Questions and answers of words at random."""

from __future__ import annotations

from random import Random
from typing import Any

WORDS = [f"{a}{b}" for a in ("ba", "ce", "di", "fo", "gu", "la") for b in ("rt", "nk", "mp", "sh", "lv", "nd")]


def words(n: int, seed: Any) -> str:
    """So many words at random."""
    rng = Random(str(seed))
    return " ".join(rng.choices(WORDS, k=n))


def chats(n: int, seed: str = "") -> list[list[str]]:
    """Questions and answers of words at random, none like another."""
    return [[words(12, f"{seed} q {i}"), words(8, f"{seed} a {i}")] for i in range(n)]

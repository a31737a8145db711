"""Seeds that belong to a name: what draws for one purpose does not move what draws for another."""

from __future__ import annotations

import hashlib


def seed_of(seed: int, *names: str | int) -> int:
    """A seed for something that has a name, the same on every machine.

    Args:
        seed: The seed of the run.
        names: What the seed is for, such as the name of a stage.

    Returns:
        A number in [0, 2^48).

    Example:
        >>> seed_of(0, "general") == seed_of(0, "general") != seed_of(1, "general")
        True
        >>> seed_of(0, "a", 11) == seed_of(0, "a1", 1)
        False
    """
    text = "\n".join(map(repr, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")

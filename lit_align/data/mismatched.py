"""Which answer to another prompt each prompt is confronted with, for KTO's estimate of the divergence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lit_align.data.mixture import place
from lit_align.forest import TokenClass, TokenPath


def mismatches(groups: Sequence[str]) -> list[int]:
    """Choose for each row one of another group, whose answer is to stand under its prompt.

    The rows are put into an order of their groups by hash, those of a group side by side, and the answers rotated by
    the size of the largest group: no row meets its own group, and each answer is used once. So the choice is a function
    of the data alone; what shares a window or a forest, ranks and seeds have no part in it. (TRL rotates by one row
    within each batch of the file's order: neighbours may have one prompt, a batch of one row meets its own answer, and
    another batch size is another choice.) Where one group holds more than half of the rows, its rows take answers of
    the others in turn, for there are not enough.

    Args:
        groups: The group of each row, as :func:`~lit_align.data.mixture.group_of` names it.

    Returns:
        For each row the number of another one.

    Raises:
        ValueError: All rows are of one group.

    Example:
        >>> [("a", "a", "b", "c")[row] for row in mismatches(["a", "a", "b", "c"])]
        ['c', 'b', 'a', 'a']
    """
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise ValueError(
            f"all {len(groups)} answers are of one group or prompt, and KTO compares with answers to others: add rows "
            "of other prompts"
        )
    places = {group: place(group, seed=0) for group in sizes}
    order = sorted(range(len(groups)), key=lambda row: (places[groups[row]], groups[row], row))
    [(most, largest)] = sizes.most_common(1)
    others = [row for row in order if groups[row] != most]
    chosen = [0] * len(groups)
    for at, row in enumerate(order):
        chosen[row] = order[(at + largest) % len(order)]
        if groups[chosen[row]] == groups[row]:
            chosen[row] = others[at % len(others)]  # of the largest group, which alone can meet itself
    return chosen


def with_answer_of(path: TokenPath, other: TokenPath) -> TokenPath:
    """The prompt of one path with the answer of another, as the template writes them.

    Args:
        path: Gives the prompt.
        other: Gives the answer, and what the template writes before it (an empty think block).

    Returns:
        A path of which nobody says that it is good or bad.
    """
    end, start = answer_start(path), answer_start(other)
    return TokenPath(
        np.concatenate([path.tokens[:end], other.tokens[start:]]),
        np.concatenate([path.classes[:end], other.classes[start:]]),
        f"{path.example} with the answer of {other.example}",
        source=path.source,
    )


def answer_start(path: TokenPath) -> int:
    """Tokens of the prompt alone, before what the template writes in front of an answer."""
    return int(np.argmax(path.classes != TokenClass.PROMPT))

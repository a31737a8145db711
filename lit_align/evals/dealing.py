"""Forests dealt out to the ranks and measured, behind a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tqdm import tqdm

from lit_align.data.windows import Tree
from lit_align.evals.generate import SECONDS_BEFORE_PROGRESS
from lit_align.evals.ranks import gathered, rank_and_world
from lit_align.forest import TokenForest
from lit_align.models.policy import Policy

T = TypeVar("T")


def dealt(
    policy: Policy, trees: Sequence[Tree], measure: Callable[[Tree, TokenForest], Sequence[T]], progress: str | None
) -> list[T]:
    """Measure each tree as a forest of its own; all ranks must call it with the same trees.

    Args:
        policy: The forests are put on its device.
        trees: What is measured; each within the budget of a forest.
        measure: Gives what is wanted of a tree, as objects that can be pickled.
        progress: Label of the progress bar, none if ``None``.

    Returns:
        What was measured, in the order of the trees, on every rank.
    """
    rank, world = rank_and_world()
    bar = tqdm(
        total=len(trees),
        desc=progress,
        unit="forest",
        delay=SECONDS_BEFORE_PROGRESS,
        leave=False,
        disable=progress is None or rank > 0,
    )
    own: dict[int, Sequence[T]] = {}
    with bar:
        for place in range(rank, len(trees), world):
            tree = trees[place]
            own[place] = measure(tree, TokenForest.build([tree.paths]).to(policy.device))
            bar.update(min(world, len(trees) - bar.n))
    return [one for part in gathered(own).values() for one in part]

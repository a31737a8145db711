"""Work dealt out to the ranks of a distributed run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank_and_world() -> tuple[int, int]:
    """The number of this rank and of all ranks; 0 and 1 in a run of one process.

    Example:
        >>> rank_and_world()
        (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gathered(own: Mapping[int, T]) -> dict[int, T]:
    """The work of all ranks together; every rank must call it.

    Args:
        own: What this rank has done, by number of the item.

    Returns:
        What all have done, in the order of the numbers.

    Raises:
        RuntimeError: Two ranks did the same item.

    Example:
        >>> gathered({1: "b", 0: "a"})
        {0: 'a', 1: 'b'}
    """
    _, world = rank_and_world()
    parts: list[Mapping[int, T]] = [own]
    if world > 1:
        received: list[Mapping[int, T] | None] = [None] * world
        dist.all_gather_object(received, dict(own))
        parts = [part for part in received if part is not None]
    together = dict(sorted(pair for part in parts for pair in part.items()))
    if len(together) < sum(map(len, parts)):
        raise RuntimeError("two ranks did the same item: the ranks were given different lists")
    return together

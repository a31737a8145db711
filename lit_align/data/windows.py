"""Windows by number: the conversations or pairs of one optimizer step, packed into forests for one rank."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch.utils.data import Dataset

from lit_align.data.packing import Plan, fill_forests, share_out
from lit_align.forest import TokenForest, TokenPath, Window
from lit_align.trie import shared_size

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Tree:
    """What a window counts as one: the paths of one conversation, or of the pairs of one group.

    They are in one forest, unless they take more rows together than a forest may have: then in several, and share less.

    Attributes:
        name: Id of the conversation or of the group.
        paths: One path for each trained turn; or, for each pair in turn, that of the chosen and of the rejected answer.
        size: Rows that they take together.
        group: Trees of one group that meet in a window become one; empty stands alone.
    """

    name: str
    paths: tuple[TokenPath, ...]
    size: int
    group: str = ""


def group_of_copy(group: str, copy: int) -> str:
    """The group of an example that an epoch repeats: its copies are not to meet in one window and weigh there as one.

    Args:
        group: The example's group; empty stands alone, as its copies do.
        copy: 0 for the first time that it occurs.

    Example:
        >>> group_of_copy("table 7", 0), group_of_copy("table 7", 1), group_of_copy("", 1)
        ('table 7', 'table 7 again 1', '')
    """
    return f"{group} again {copy}" if group and copy else group


class WindowDataset(Dataset[Window]):
    """Windows by number, for one rank; building forests is all that workers do.

    Args:
        trained: Trained conversations.
        replayed: Conversations that carry the anchor alone.
        plan: Members of each window.
        token_budget: Rows a forest.
        rank: This process.
        ranks: Number of processes.
    """

    def __init__(
        self,
        trained: Sequence[Tree],
        replayed: Sequence[Tree],
        plan: Plan,
        token_budget: int,
        rank: int,
        ranks: int,
    ) -> None:
        self._trained, self._replayed, self._plan = trained, replayed, plan
        self._budget, self._rank, self._ranks = token_budget, rank, ranks

    def __len__(self) -> int:
        """Windows of one epoch."""
        return self._plan.windows_per_epoch

    def __getitem__(self, window: int) -> Window:
        """This rank's part of a window of the run; in each forest, what is replayed stands after the rest."""
        members = [self._trained[i] for i in self._plan.trained_in(window)]
        members += [self._replayed[i] for i in self._plan.replayed_in(window)]
        trees = joined(members)
        mine = [trees[i] for i in share_out([tree.size for tree in trees], self._ranks)[self._rank]]
        parts = [part for tree in mine for part in within(tree, self._budget)]
        packed = fill_forests([part.size for part in parts], self._budget)
        forests = tuple(TokenForest.build([parts[i].paths for i in forest]) for forest in packed)
        return Window(forests, window, tuple(tree.name for tree in members))


def within(tree: Tree, budget: int) -> list[Tree]:
    """A tree as it is, or in as few neighbouring parts as take at most ``budget`` rows each.

    Args:
        tree: Any tree.
        budget: Most rows of a part, no fewer than the longest path has.
    """
    if tree.size <= budget:
        return [tree]
    return [replace(tree, paths=tuple(paths), size=size) for paths, size in within_budget(tree.paths, budget)]


def within_budget(
    paths: Sequence[TokenPath], budget: int, together: int = 1, most: int | None = None
) -> list[tuple[list[TokenPath], int]]:
    """Cut paths into runs that each take at most ``budget`` rows, each as long as it can be.

    Args:
        paths: Paths in their order.
        budget: Most rows of a run.
        together: So many neighbours are never parted: 2 for the answers of a pair.
        most: Most paths of a run; None sets no limit.

    Returns:
        The runs, each with its rows. Neighbours that are never parted may be over the budget by themselves.

    Example:
        >>> import numpy as np
        >>> paths = [TokenPath(np.array([1, 2, n], np.int32), np.array([0, 0, 1], np.uint8), "x") for n in range(4)]
        >>> [(len(run), size) for run, size in within_budget(paths, budget=5)]
        [(3, 5), (1, 3)]
    """
    runs: list[tuple[list[TokenPath], int]] = []
    for start in range(0, len(paths), together):
        added = paths[start : start + together]
        if runs:
            longer = [*runs[-1][0], *added]
            size = shared_size([path.tokens for path in longer])
            if size <= budget and (most is None or len(longer) <= most):
                runs[-1] = (longer, size)
                continue
        runs.append((list(added), shared_size([path.tokens for path in added])))
    return runs


def grouped(
    groups: Mapping[str, Sequence[tuple[TokenPath, TokenPath]]], window: int, budget: int, part: str, what: str
) -> list[Tree]:
    """Trees of groups whose members are two paths each, in as few as hold the limits; members stay in order.

    Args:
        groups: Members by the group's name.
        window: Most members of a tree; a larger group is split, and the log says so.
        budget: Most rows of a tree; a larger group is split, a larger member is an error.
        part: Name of the part of the data, for messages.
        what: What a member is, for messages.

    Raises:
        ValueError: A member takes more rows than `budget`.
    """
    trees = []
    split = 0
    for name, members in groups.items():
        paths = [path for member in members for path in member]
        runs = within_budget(paths, budget, together=2, most=2 * window)
        split += len(runs) > 1
        for number, (run, size) in enumerate(runs, start=1):
            if size > budget:
                raise ValueError(
                    f"{run[0].example}: the {size} tokens of its {what} are over `data.token_budget` = {budget}; "
                    "raise the budget or lower `data.lengths.max_length`"
                )
            trees.append(Tree(name if len(runs) == 1 else f"{name} part {number}", tuple(run), size))
    if split:
        logger.info(
            f"{part}: {split} of {len(groups)} groups hold more {what}s than `data.window` = {window} or more tokens "
            f"than `data.token_budget` = {budget}, and are split"
        )
    return trees


def joined(trees: Sequence[Tree]) -> list[Tree]:
    """One tree for each group; a tree without one stands alone.

    Args:
        trees: Any trees; a joined one has the name of its first.
    """
    groups: dict[str | int, list[Tree]] = {}
    for number, tree in enumerate(trees):
        groups.setdefault(tree.group or number, []).append(tree)
    joined = []
    for members in groups.values():
        paths = tuple(path for tree in members for path in tree.paths)
        size = shared_size([path.tokens for path in paths]) if len(members) > 1 else members[0].size
        joined.append(replace(members[0], paths=paths, size=size))
    return joined

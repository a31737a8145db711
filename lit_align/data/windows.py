"""Windows by number: the conversations or pairs of one optimizer step, packed into forests for one rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch.utils.data import Dataset

from lit_align.data.packing import Plan, fill_forests, share_out
from lit_align.forest import TokenForest, TokenPath, Window
from lit_align.trie import shared_size


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
        return window_of(self._members(window), window, self._budget, self._rank, self._ranks)

    def packed(self, window: int) -> list[list[Tree]]:
        """The trees of each forest of this rank's part of a window.

        Args:
            window: Its number, from 0 over the whole run.
        """
        return _packed(self._members(window), self._budget, self._rank, self._ranks)

    def _members(self, window: int) -> list[Tree]:
        members = [self._trained[i] for i in self._plan.trained_in(window)]
        return members + [self._replayed[i] for i in self._plan.replayed_in(window)]


def window_of(members: Sequence[Tree], number: int, budget: int, rank: int, ranks: int, together: int = 1) -> Window:
    """One rank's part of a window, packed into forests.

    Args:
        members: The trees of the whole window, in the order in which they stand in a forest.
        number: Number of the window in the run.
        budget: Rows a forest.
        rank: Whose part it is.
        ranks: Number of processes.
        together: As for :func:`within_budget`.
    """
    packed = _packed(members, budget, rank, ranks, together)
    forests = tuple(TokenForest.build([tree.paths for tree in forest]) for forest in packed)
    return Window(forests, number, tuple(tree.name for tree in members))


def _packed(members: Sequence[Tree], budget: int, rank: int, ranks: int, together: int = 1) -> list[list[Tree]]:
    trees = joined(members)
    mine = [trees[i] for i in share_out([tree.size for tree in trees], ranks)[rank]]
    parts = [part for tree in mine for part in within(tree, budget, together)]
    return [[parts[i] for i in forest] for forest in fill_forests([part.size for part in parts], budget)]


def within(tree: Tree, budget: int, together: int = 1) -> list[Tree]:
    """A tree as it is, or in as few neighbouring parts as take at most ``budget`` rows each.

    Args:
        tree: Any tree.
        budget: Most rows of a part, no fewer than what is never parted has.
        together: As for :func:`within_budget`.
    """
    if tree.size <= budget:
        return [tree]
    parts = within_budget(tree.paths, budget, together)
    return [replace(tree, paths=tuple(paths), size=size) for paths, size in parts]


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

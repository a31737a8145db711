"""Windows by number: the conversations or pairs of one optimizer step, packed into forests for one rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset

from lit_align.data.packing import Plan, fill_forests, share_out
from lit_align.forest import TokenForest, TokenPath, Window


@dataclass(frozen=True, eq=False)
class Tree:
    """Paths that a forest never parts: those of one conversation, or of the pairs of one group.

    Attributes:
        name: Id of the conversation or of the group.
        paths: One path for each trained turn; or, for each pair in turn, that of the chosen and of the rejected answer.
        size: Rows that they take together.
        group: Trees of one group share their beginnings where packing puts them into one forest; empty shares nothing.
    """

    name: str
    paths: tuple[TokenPath, ...]
    size: int
    group: str = ""


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
        """This rank's part of a window of the run."""
        members = [self._trained[i] for i in self._plan.trained_in(window)]
        members += [self._replayed[i] for i in self._plan.replayed_in(window)]
        mine = [members[i] for i in share_out([tree.size for tree in members], self._ranks)[self._rank]]
        packed = fill_forests([tree.size for tree in mine], self._budget)
        forests = tuple(TokenForest.build(_groups([mine[i] for i in forest])) for forest in packed)
        return Window(forests, window, tuple(tree.name for tree in members))


def _groups(trees: Sequence[Tree]) -> list[list[TokenPath]]:
    """Paths by group; a tree without one stands alone."""
    groups: dict[str | int, list[TokenPath]] = {}
    for number, tree in enumerate(trees):
        groups.setdefault(tree.group or number, []).extend(tree.paths)
    return list(groups.values())

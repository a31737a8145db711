"""Windows of data that are read before training: their plan, and the fingerprint of the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import cycle, islice

from torch.utils.data import DataLoader

from lit_align.data.forest_module import ForestDataModule, longest_first
from lit_align.data.packing import Plan, WindowSampler
from lit_align.data.windows import Tree, tokens_hash
from lit_align.forest import TokenForest, Window
from lit_align.types import ConversationSource


def refuse_mixture(window: int, val_fraction: float, replay: Sequence[ConversationSource], replay_share: float) -> None:
    """Refuse numbers that make no windows.

    Args:
        window: ``data.window``.
        val_fraction: ``data.val_fraction``.
        replay: ``data.replay``.
        replay_share: ``data.replay_share``.

    Raises:
        ValueError: Names the option, its value and its rule.
    """
    for name, value, holds, rule in (
        ("window", window, window > 0, "> 0"),
        ("replay_share", replay_share, replay_share >= 0, ">= 0"),
        ("val_fraction", val_fraction, 0 <= val_fraction < 1, "in [0, 1)"),
    ):
        if not holds:
            raise ValueError(f"`data.{name}` must be {rule}, got {value}")
    if bool(replay) != (replay_share > 0):
        raise ValueError(
            f"`data.replay` ({len(replay)} sources) and `data.replay_share` ({replay_share}) go together: set both "
            "or none"
        )


class WindowDataModule(ForestDataModule):
    """Windows of token forests; a subclass reads and tokenises in ``setup`` and names the plan of its windows.

    Args:
        token_budget: See :class:`~lit_align.data.forest_module.ForestDataModule`.
        workers: See there.
    """

    def __init__(self, token_budget: int, workers: int) -> None:
        super().__init__(token_budget, workers)
        self._replayed: list[Tree] = []

    @property
    @abstractmethod
    def _plan(self) -> Plan:
        """Members of each window of the run."""

    @cached_property
    def source_names(self) -> tuple[str, ...]:
        """Names of the sources of all examples, in the order of their first ones; the same on all ranks."""
        trees = [*self._trained, *self._validation]
        return tuple(dict.fromkeys(path.source for tree in trees for path in tree.paths))

    @property
    def windows_per_epoch(self) -> int:
        """See :class:`~lit_align.data.forest_module.ForestDataModule`."""
        return self._plan.windows_per_epoch

    def train_dataloader(self) -> DataLoader[Window]:
        """Windows of this rank, from the position at which the run stands."""
        assert self.trainer is not None
        trainer = self.trainer
        sampler = WindowSampler(self.windows_per_epoch, lambda: trainer.global_step)
        return self._loader(self._dataset(self._trained, self._replayed, self._plan), sampler)

    def training_windows(self) -> Iterator[Window]:
        """See :class:`~lit_align.data.forest_module.ForestDataModule`."""
        dataset = self._dataset(self._trained, self._replayed, self._plan)
        return (dataset[window] for window in range(self.windows_per_epoch))

    def largest_forest(self) -> TokenForest:
        """A forest no smaller than any that packing makes: the longest trees, up to the budget."""
        plan = self._plan
        # A window may replay a conversation more than once.
        replayed = islice(cycle(longest_first(self._replayed)), plan.most_replayed)
        return self._filled(longest_first([*longest_first(self._trained)[: plan.most_trained], *replayed]))

    @cached_property
    def _fingerprint(self) -> str:
        # Once a run: each checkpoint asks for it, and the tokens of a large set take seconds to hash.
        return tokens_hash(self._trained, self._replayed)

"""Windows of data that are all known before training: their plan, their fingerprint, and how they are prepared."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from inspect import signature
from itertools import cycle, islice
from pathlib import Path

from torch.utils.data import DataLoader

from lit_align.data.forest_module import ForestDataModule
from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import Lengths
from lit_align.data.packing import Plan, WindowSampler
from lit_align.data.part import Workshop
from lit_align.data.prepared.cache import PreparedCache
from lit_align.data.prepared.deciding import deciding
from lit_align.data.prepared.examples import Examples
from lit_align.data.prepared.prepared import Prepared
from lit_align.data.trees import ConversationTrees, GivenTrees, Trees
from lit_align.data.windows import Tree, WindowDataset
from lit_align.forest import TokenForest, Window
from lit_align.types import ConversationSource

# On what is prepared; the tokenizer of the base is looked into.
_WITHOUT_EFFECT = {"base", "window", "token_budget", "replay_share", "seed", "workers", "processes", "cache"}


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


class PlannedDataModule(ForestDataModule):
    """Windows of trees that are all known, by a plan; with a fingerprint of the tokens.

    Args:
        token_budget: Tokens a forest (one forward and backward pass), > 0.
        workers: Processes that build forests ahead, >= 0.

    Attributes:
        reports: What became of the rows of ``training``, ``validation`` and ``replay``, once they are set up.
        trained_groups: Groups on the training side of the split, once they are.
        trained_questions: What these and the replayed conversations open with.

    Raises:
        ValueError: A value is out of its range.
    """

    def __init__(self, token_budget: int, workers: int) -> None:
        super().__init__(token_budget, workers)
        self._replayed: Trees = GivenTrees([])
        self.reports: Mapping[str, LengthReport] = {}
        self.trained_groups: frozenset[str] = frozenset()
        self.trained_questions: frozenset[str] = frozenset()

    @property
    def parts(self) -> dict[str, Trees]:
        """The trees of ``training``, ``validation`` and ``replay``."""
        return {"training": self._trained, "validation": self._validation, "replay": self._replayed}

    def planned_forests(self, window: int) -> list[list[Tree]]:
        """The trees of each forest of a window of the run on one process; nothing is built.

        Args:
            window: Its number, from 0.
        """
        return WindowDataset(self._trained, self._replayed, self._plan, self.token_budget, 0, 1).packed(window)

    @property
    @abstractmethod
    def _plan(self) -> Plan:
        """Members of each window of the run."""

    @cached_property
    def source_names(self) -> tuple[str, ...]:
        """Names of the sources of all examples, in the order of their first ones; the same on all ranks."""
        return tuple(dict.fromkeys([*self._trained.source_names(), *self._validation.source_names()]))

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
        replayed = islice(cycle(self._replayed.largest(plan.most_replayed)), plan.most_replayed)
        pool = GivenTrees([*self._trained.largest(plan.most_trained), *replayed])
        return self._filled(pool.largest(len(pool)))

    @cached_property
    def _fingerprint(self) -> str:
        # Once a run: each checkpoint asks for it, and the tokens of a large set take seconds to hash.
        digest = hashlib.sha256()
        for trees in (self._trained, self._replayed):
            digest.update(f"{len(trees)} conversations\n".encode())
            for tree in trees:
                # The lengths come first: without them two divisions of the same tokens would have one hash.
                digest.update(f"{[len(path.tokens) for path in tree.paths]} {tree.group}\n".encode())
                for path in tree.paths:
                    digest.update(path.tokens.tobytes() + path.classes.tobytes())
        return digest.hexdigest()[:16]


class WindowDataModule(PlannedDataModule):
    """A subclass says how its data are prepared and names the plan of its windows.

    Args:
        token_budget: Tokens a forest (one forward and backward pass), > 0.
        workers: Processes that build forests ahead, >= 0.
        processes: Processes that tokenise, >= 1; None for one, and all processors for many examples.
        cache: Folder in which prepared data are kept for later runs; None keeps none.

    Raises:
        ValueError: A value is out of its range.
    """

    lengths: Lengths

    def __init__(self, token_budget: int, workers: int, processes: int | None, cache: str | None) -> None:
        super().__init__(token_budget, workers)
        if processes is not None and processes < 1:
            raise ValueError(f"`data.processes` must be >= 1, or null, got {processes}")
        self.processes, self.cache = processes, cache

    def _prepared(self) -> Prepared:
        """The data: prepared now, or by an earlier run."""
        if self.cache is None:
            ranks = 1 if self.trainer is None else self.trainer.world_size
            with closing(Workshop(None, self.processes, ranks)) as workshop:
                return self._prepare(workshop)
        # All options but those: one that is forgotten here costs a preparation, not a wrong training set.
        names = signature(type(self)).parameters.keys() - _WITHOUT_EFFECT
        settings = {name: getattr(self, name) for name in names}
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        key, made_by = deciding({"kind": kind, **settings}, self.chat.tokenizer)
        kept = PreparedCache(Path(self.cache).expanduser(), key, made_by, self.lengths)
        return kept.get(self._prepare, self.processes)

    @abstractmethod
    def _prepare(self, workshop: Workshop) -> Prepared:
        """Read, split, draw and tokenise."""

    def _take(self, prepared: Prepared, trees: Callable[[Examples], Trees]) -> None:
        """Make trees of what was prepared.

        Args:
            prepared: The data.
            trees: Makes them of what is trained or validated.
        """
        self.reports = prepared.reports
        self.trained_groups, self.trained_questions = prepared.trained_groups, prepared.trained_questions
        found = prepared.examples
        self._trained = trees(found["training"])
        if "validation" in found:
            self._validation = trees(found["validation"])
        if "replay" in found:
            self._replayed = ConversationTrees(found["replay"], self.token_budget)

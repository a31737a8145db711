"""What all data modules share: loaders of windows, the validation set, the forests tried at the start."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import lightning as L  # noqa: N812  the name that its users know
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Dataset

from lit_align.data.chat import ChatFormat
from lit_align.data.packing import Plan, WindowSampler
from lit_align.data.trees import GivenTrees, Trees
from lit_align.data.windows import Tree, WindowDataset
from lit_align.forest import TokenForest, TokenPath, Window


def _as_it_is(window: Any) -> Any:
    return window


def _leave_interrupts_to_the_trainer(worker: int) -> None:
    # A terminal sends Ctrl-C to all processes; the window that is being computed needs its workers to the end.
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class ForestDataModule(L.LightningDataModule, ABC):
    """Windows of token forests, with a validation set; a subclass says where the trained ones come from.

    Args:
        token_budget: Tokens a forest (one forward and backward pass), > 0.
        workers: Processes that build forests ahead, >= 0.

    Attributes:
        holds: What the examples are, ``conversations``, ``pairs`` or ``rated answers``; a model trains on one of them.
        chat: The chat format, once the data are set up.

    Raises:
        ValueError: A value is out of its range.
    """

    holds: ClassVar[str]
    chat: ChatFormat

    def __init__(self, token_budget: int, workers: int) -> None:
        super().__init__()
        if token_budget <= 0:
            raise ValueError(f"`data.token_budget` must be > 0, got {token_budget}")
        if workers < 0:
            raise ValueError(f"`data.workers` must be >= 0, got {workers}")
        self.token_budget, self.workers = token_budget, workers
        self._trained: Trees = GivenTrees([])  # all of them, or of a stream those at its beginning
        self._validation: Trees = GivenTrees([])

    @property
    @abstractmethod
    def _validation_plan(self) -> Plan:
        """Members of each window of the validation set."""

    @property
    @abstractmethod
    def windows_per_epoch(self) -> int:
        """Optimizer steps of one pass over the data."""

    @abstractmethod
    def training_windows(self) -> Iterator[Window]:
        """This rank's part of each training window of the first epoch, in their order; each is built when asked for."""

    @abstractmethod
    def largest_forest(self) -> TokenForest:
        """A forest no smaller than any that packing makes."""

    def val_dataloader(self) -> DataLoader[Window] | list[DataLoader[Window]]:
        """Windows of the validation data, in a fixed order; none without validation data.

        Raises:
            ValueError: ``trainer.validate`` without validation data: Lightning would pass over everything, benchmarks
                too, and end as if all were well.
        """
        if not self._validation:
            if self.trainer is not None and self.trainer.state.fn == TrainerFn.VALIDATING:
                raise ValueError(
                    "`validate` needs validation data, and there are none: set `data.val_fraction` or name "
                    "`data.val_sources`"
                )
            return []
        return self._loader(self._dataset(self._validation, GivenTrees([]), self._validation_plan), None)

    def _dataset(self, trained: Trees, replayed: Trees, plan: Plan) -> WindowDataset:
        trainer = self.trainer
        assert trainer is not None
        return WindowDataset(trained, replayed, plan, self.token_budget, trainer.global_rank, trainer.world_size)

    def _loader(self, dataset: Dataset[Any], sampler: WindowSampler | None) -> DataLoader[Any]:
        # A generator of its own: a loader otherwise draws from the global random numbers each time it is opened.
        generator = torch.Generator()
        return DataLoader(
            dataset, None, sampler=sampler, num_workers=self.workers, collate_fn=_as_it_is, generator=generator,
            worker_init_fn=_leave_interrupts_to_the_trainer,
        )  # fmt: skip

    def _filled(self, pool: Iterable[Tree]) -> TokenForest:
        """A forest of the trees of a pool, in their order, up to the budget.

        Where the next one does not fit, others might fill the rest of the budget to the last token; it is filled with
        repeated tokens, in place of a search for them.
        """
        groups: list[tuple[TokenPath, ...]] = []
        room = self.token_budget
        for tree in pool:
            if tree.size > room:
                path = max(tree.paths, key=lambda path: len(path.tokens))
                rest = replace(path, tokens=np.resize(path.tokens, room), classes=np.resize(path.classes, room))
                # As many examples as in the tree: those of a preference forest come in twos.
                groups += [(rest,) * len(tree.paths)] if room else []
                break
            groups.append(tree.paths)
            room -= tree.size
        # As in a window: what is replayed stands last.
        return TokenForest.build(sorted(groups, key=lambda paths: paths[0].weight == 0))

    def probe_forest(self) -> TokenForest:
        """The two shortest trees, of several paths if there are any; one group, so that there is a branch to check."""
        return TokenForest.build([[path for tree in self._trained.smallest_to_share(2) for path in tree.paths]])

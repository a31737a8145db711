"""What an objective defines, and what it asks of the data; the window loop in base.py does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ClassVar, Protocol

import lightning as L  # noqa: N812  the name that its users know
from torch import Tensor

from lit_align.forest import TokenForest, Window
from lit_align.modules.resume import Identity


class WindowData(Protocol):
    """What the module asks of the data module."""

    windows_per_epoch: int
    holds: str
    source_names: tuple[str, ...]

    def identity(self) -> Identity:
        """Everything of the data that a resumed run must share, as text by key."""

    def largest_forest(self) -> TokenForest:
        """The largest forest that a window of this run may hold."""

    def probe_forest(self) -> TokenForest:
        """A small forest of real examples for the checks at start-up."""

    def training_windows(self) -> Iterator[Window]:
        """This rank's part of each training window of the first epoch, in their order."""


ForestLoss = Callable[[], tuple[Tensor, Tensor]]
"""Computes what :meth:`Objective.forest_loss` returns."""


class Objective(L.LightningModule, ABC):
    """Sums and counts of a loss: everything in which SFT and DPO differ.

    Attributes:
        trains_on: What the examples of its forests are, ``conversations`` or ``pairs``.
    """

    trains_on: ClassVar[str]

    @abstractmethod
    def counts(self, window: Window) -> Tensor:
        """Denominators of the loss's terms in this rank's part of a window, float64, shape ``(K,)``."""

    @abstractmethod
    def forest_loss(self, forest: TokenForest, counts: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """One forest's share of the loss.

        Args:
            forest: A forest of the window.
            counts: Denominators over the whole window and all ranks.
            step: Optimizer steps done, for coefficients with a schedule.

        Returns:
            The share, a scalar with gradient, and sums for the log, float64, without gradient.
        """

    def window_losses(self, forests: Sequence[TokenForest], counts: Tensor, step: int) -> Iterator[ForestLoss]:
        """The shares of a window's forests, each to be computed when it is called, in the order of the forests.

        An objective whose loss couples the examples of a window looks at all of them before the first share.

        Args:
            forests: This rank's forests.
            counts: Denominators over the whole window and all ranks.
            step: Optimizer steps done.
        """
        for forest in forests:
            yield partial(self.forest_loss, forest, counts, step)

    @abstractmethod
    def window_metrics(self, sums: Tensor, counts: Tensor) -> dict[str, Tensor | float]:
        """Metrics of a window from the sums and counts over all ranks, by key without prefix."""

    @abstractmethod
    def validation_sums(self, forest: TokenForest) -> Tensor:
        """Sums and counts of one validation forest, float64."""

    @abstractmethod
    def validation_metrics(self, sums: Tensor) -> dict[str, Tensor | float]:
        """Metrics from the sums over the validation set, by key without prefix."""

    @abstractmethod
    def objective_identity(self) -> Identity:
        """What of the objective a resumed run must share, as text by key."""

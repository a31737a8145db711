"""One line of progress over the whole run."""

from __future__ import annotations

import sys
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm
from typing_extensions import override


class WindowProgress(ProgressBar):
    """Windows done, time left, loss, KL and tokens per second of the run; validation below it while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._train: tqdm[Any] | None = None
        self._val: tqdm[Any] | None = None

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    def _bar(self, what: str, total: float | int | None, done: int = 0, keep: bool = False) -> tqdm[Any]:
        finite = int(total) if total is not None and total != float("inf") else None
        # In a file or pipe a line every ten seconds is enough.
        interval = 0.2 if sys.stderr.isatty() else 10.0
        return tqdm(
            desc=what, total=finite, initial=done, disable=not self._enabled, leave=keep, mininterval=interval,
            dynamic_ncols=True, unit="window",
        )  # fmt: skip

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total_steps = getattr(pl_module, "total_steps", None)
        total = total_steps() if callable(total_steps) else None
        self._train = self._bar("training", total or None, trainer.global_step, keep=True)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._train is not None
        shown = {"loss": "loss", "kl": "kl", "tokens_per_second": "tok/s"}
        metrics = trainer.callback_metrics
        values = {
            label: f"{float(metrics[f'train/{key}']):.4g}" for key, label in shown.items() if f"train/{key}" in metrics
        }
        self._train.set_postfix(values, refresh=False)
        self._train.update()

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._train is not None:
            self._train.close()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        for bar in (self._val, self._train):
            if bar is not None:
                bar.close()

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._val = self._bar("validating", sum(trainer.num_val_batches))

    @override
    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if self._val is not None:
            self._val.update()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._val is not None:
            self._val.close()

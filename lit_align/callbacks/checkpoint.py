"""When checkpoints are written: every so many windows, at the end, and on Ctrl-C."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

logger = logging.getLogger(__name__)


class WindowCheckpoint(Checkpoint):
    """Keep the run resumable.

    A first Ctrl-C lets the window that is being computed end, saves, and stops; a second one stops at once, and the
    last checkpoint stays. (Lightning's ModelCheckpoint is not used: under manual optimisation it warns on each save,
    and on a resume it would count and remove files of the run that is resumed.)

    Args:
        every_n_windows: Optimizer steps between checkpoints, > 0.
        keep: ``last`` keeps ``checkpoints/last.ckpt`` alone, ``all`` also ``checkpoints/step-NNNNNN.ckpt`` for each.

    Raises:
        ValueError: `every_n_windows` is not positive.
    """

    def __init__(self, every_n_windows: int = 100, keep: Literal["last", "all"] = "last") -> None:
        if every_n_windows <= 0:
            raise ValueError(f"`checkpoint.every_n_windows` must be > 0, got {every_n_windows}")
        self.every_n_windows, self.keep = every_n_windows, keep
        self._previous: Any = None
        self._stopping = False

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take Ctrl-C over for the time of the windows."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        logger.warning("Ctrl-C: ending this window, then saving (again: stop at once, back to the last checkpoint)")

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, if this was the last window, or if the user wants to stop."""
        # Here and not at the end of the fit: Lightning's counters stand between two windows now, as a resume needs it.
        ended = (
            trainer.should_stop  # another callback ends the run in this window
            or trainer.global_step == trainer.max_steps
            or (trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs)
        )
        # The ranks hear Ctrl-C in different windows, but must save and stop in the same one.
        stop = trainer.strategy.reduce_boolean_decision(self._stopping, all=False)
        if (ended or stop or trainer.global_step % self.every_n_windows == 0) and trainer.log_dir is not None:
            last = self._save(trainer, Path(trainer.log_dir) / "checkpoints")
            if stop:
                logger.warning("saved; to go on, run the same command with --ckpt_path %s", last)
        if stop:
            raise KeyboardInterrupt

    def _save(self, trainer: pl.Trainer, folder: Path) -> Path:
        if self.keep == "all":
            trainer.save_checkpoint(folder / f"step-{trainer.global_step:06d}.ckpt")
        last = folder / "last.ckpt"
        trainer.save_checkpoint(last)
        return last

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give Ctrl-C back before the last benchmarks: there is no window to end any more."""
        self._give_back()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give Ctrl-C back, also after an error."""
        self._give_back()

    def _give_back(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

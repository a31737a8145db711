"""The loop over windows, which ends a run in good order whenever it is resumed."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from typing_extensions import override


class EndingFitLoop(_FitLoop):
    """Ends a run that was killed after its last window.

    Lightning passes over a fit without a window left: the adapter would not be written, the best one not restored, and
    the last benchmarks not run.

    Args:
        trainer: Whose loop this becomes; its own one is taken apart.
    """

    def __init__(self, trainer: Trainer) -> None:
        own = trainer.fit_loop
        super().__init__(trainer, min_epochs=own.min_epochs, max_epochs=own.max_epochs)
        self.epoch_loop = own.epoch_loop

    @property
    @override
    def skip(self) -> bool:
        """Whether not even an end is due: the run has not begun."""
        return self.trainer.limit_train_batches == 0 or (self.done and self.trainer.global_step == 0)

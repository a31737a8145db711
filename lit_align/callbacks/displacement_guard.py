"""An eye on likelihood displacement: preference training that makes the chosen answers less likely."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Literal

import lightning.pytorch as pl
from typing_extensions import override

logger = logging.getLogger(__name__)

_METRIC = "train/displacement/chosen"
_HELP = (
    "what helps: a loss with an NLL on the chosen answer (RPOLoss, DPOPLoss), an anchor on it (`model.anchor.coef`), "
    "a lower learning rate"
)


class DisplacementGuard(pl.Callback):
    """Warn or stop when the chosen answers of too many pairs become less likely than under the reference.

    A preference loss asks for the difference of two log-probs alone, which also grows where both fall; what the chosen
    answers lose then goes to answers that no pair names (Razin et al. 2024, arXiv 2410.08847). What is watched is
    ``train/displacement/chosen``, the share of a window's pairs, over all ranks, whose chosen log-prob is below the
    reference's: its mean over the last windows, once there are so many.

    It acts when the mean goes over ``max_share``, once, and again only after it has been at or below it. A stop is in
    good order: the window ends, the checkpoint is saved, the adapter is written, benchmarks run as at any end. A run
    that is resumed from that checkpoint goes on.

    Args:
        max_share: Largest share that is let pass, in [0, 1).
        over_windows: Windows that the mean goes over, >= 1.
        action: ``warn`` says so in the log, ``stop`` ends the run.

    Attributes:
        stopped: Why the run was stopped; empty where it was not.

    Raises:
        ValueError: A value is out of its range; at the start of fit: the loss has no reference to compare with.

    Example:
        >>> DisplacementGuard(max_share=1.5)
        Traceback (most recent call last):
        ValueError: DisplacementGuard: max_share must be in [0, 1), got 1.5
    """

    def __init__(
        self, max_share: float = 0.5, over_windows: int = 16, action: Literal["warn", "stop"] = "warn"
    ) -> None:
        for option, value, holds, rule in (
            ("max_share", max_share, 0 <= max_share < 1, "in [0, 1)"),
            ("over_windows", over_windows, over_windows >= 1, "at least 1"),
            ("action", action, action in ("warn", "stop"), "warn or stop"),
        ):
            if not holds:
                raise ValueError(f"DisplacementGuard: {option} must be {rule}, got {value}")
        self.max_share, self.over_windows, self.action = max_share, over_windows, action
        self.stopped = ""
        self._shares: deque[float] = deque(maxlen=over_windows)
        self._is_over = False

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a module that does not compare pairs with a reference."""
        loss: Any = getattr(pl_module, "loss", None)
        if stage == "fit" and not getattr(loss, "needs_reference", False):
            raise ValueError(
                f"DisplacementGuard watches `{_METRIC}`, which compares with a reference, and "
                f"{type(pl_module).__name__ if loss is None else type(loss).__name__} has none: remove the callback, "
                "or take a loss with a reference such as SigmoidLoss"
            )

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the window; before the checkpoint of this window, which Lightning calls last."""
        if _METRIC not in trainer.callback_metrics:
            return  # no window so far had a good answer: those of KTO come one by one
        self._shares.append(float(trainer.callback_metrics[_METRIC]))
        if len(self._shares) < self.over_windows:
            return
        mean = sum(self._shares) / len(self._shares)
        was_over, self._is_over = self._is_over, mean > self.max_share
        if was_over or not self._is_over:
            return
        said = (
            f"step {trainer.global_step}: over the last {self.over_windows} windows the chosen answers of "
            f"{mean:.0%} of the pairs are less likely than under the reference (DisplacementGuard: at most "
            f"{self.max_share:.0%}); {_HELP}"
        )
        if self.action == "stop":
            # The shares are over all ranks, so that all of them stop here.
            self.stopped, trainer.should_stop = f"stopped at {said}", True
            said = self.stopped
        logger.warning(said)

    @override
    def state_dict(self) -> dict[str, Any]:
        """The shares of the last windows, in plain types that ``weights_only=True`` loads."""
        return {"shares": list(self._shares), "is_over": self._is_over}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the windows before the checkpoint."""
        self._shares.extend(state_dict["shares"])
        self._is_over = state_dict["is_over"]

"""The end of a run whose loss or gradient is not finite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from lit_align.forest import Window

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class NonFiniteError(RuntimeError):
    """A loss or a gradient is nan or inf; the message names window, examples and saved state."""


def stop_at_nonfinite(trainer: Trainer, window: Window, shares: Tensor, norm: float) -> None:
    """Save the state before a window, and end the run.

    Args:
        trainer: Of the run.
        window: This rank's part of the window.
        shares: The loss of each of its forests, ``(F,)``.
        norm: Of the gradient, over all ranks.

    Raises:
        NonFiniteError: Always.
    """
    bad = [forest for forest, share in zip(window.forests, shares.isfinite(), strict=False) if not bool(share)]
    names = sorted({name for forest in bad for name in forest.examples}) or list(window.examples)
    what = "loss" if bad else f"gradient norm ({norm})" if window.forests else "loss on another rank"
    saved = "nothing (no log folder)"
    if trainer.log_dir is not None:
        saved = str(Path(trainer.log_dir) / "checkpoints" / f"nonfinite-step-{trainer.global_step:06d}.ckpt")
        trainer.save_checkpoint(saved)
    raise NonFiniteError(
        f"window {window.index}: {what} is not finite; examples: {', '.join(names[:8])}"
        f"{f' and {len(names) - 8} more' if len(names) > 8 else ''}. State before the window: {saved}. "
        "Look at these examples, or lower the learning rate."
    )

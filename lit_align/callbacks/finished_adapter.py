"""A finished adapter in place of the one that a run would train, for ``lit-align validate``."""

from __future__ import annotations

import lightning.pytorch as pl
from typing_extensions import override

from lit_align.callbacks.measurement import policy_of
from lit_align.models.adapter_folder import AdapterFolder
from lit_align.models.adapter_switch import put_in_place_of_live


class FinishedAdapter(pl.Callback):
    """Validate an adapter of any shape, read from its folder in PEFT's format.

    Args:
        path: The folder, or ``package:NAME/PATH``.
    """

    def __init__(self, path: str) -> None:
        self.folder = AdapterFolder(path)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put it in the place of the live adapter; the model is on its device by now."""
        put_in_place_of_live(policy_of(trainer), self.folder)

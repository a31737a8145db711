"""What a run was: versions, commit, hardware, data, and the checkpoint that it goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from lit_align.environment import environment


class RunRecord(pl.Callback):
    """Write ``environment.json`` beside ``config.yaml`` before anything is computed, and show both in TensorBoard."""

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the record of a fit, once over all processes."""
        self._write(trainer)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the record of ``trainer.validate``; the validations of a fit are a part of it."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer)

    @staticmethod
    def _write(trainer: pl.Trainer) -> None:
        log_dir = trainer.log_dir
        if log_dir is None or not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        folder = Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        identity: dict[str, str] = getattr(getattr(trainer, "datamodule", None), "identity", dict)()
        record = {**environment(), "data": identity, "resumed_from": trainer.ckpt_path}
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (folder / "environment.json").write_text(text + "\n", encoding="utf-8")
        config = folder / "config.yaml"
        for logger in trainer.loggers:
            add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
            if callable(add_text):
                add_text("run/environment", f"```json\n{text}\n```", 0)
                if config.exists():
                    add_text("run/config", f"```yaml\n{config.read_text(encoding='utf-8')}\n```", 0)

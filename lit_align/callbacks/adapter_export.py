"""The trained adapter in PEFT's format, in the folder of the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import lightning.pytorch as pl
from torch import Tensor
from typing_extensions import override

from lit_align.checkpoint import write_adapter

logger = logging.getLogger(__name__)


class _Policy(Protocol):
    def adapter_parameters(self) -> Mapping[str, Tensor]: ...
    def adapter_config(self) -> dict[str, Any]: ...


class AdapterExport(pl.Callback):
    """Write ``adapter/`` when training ends; ``PeftModel.from_pretrained`` opens it."""

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the adapter, once over all processes."""
        log_dir = trainer.log_dir
        if trainer.is_global_zero and log_dir is not None and not getattr(trainer, "fast_dev_run", False):
            policy = cast(_Policy, pl_module.policy)
            write_adapter(Path(log_dir) / "adapter", policy.adapter_parameters(), policy.adapter_config())

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Say where everything lies."""
        log_dir = trainer.log_dir
        if stage == "fit" and trainer.is_global_zero and log_dir is not None and (Path(log_dir) / "adapter").exists():
            logger.info("adapter: %s", Path(log_dir) / "adapter")
            logger.info("curves:  tensorboard --logdir %s", Path(log_dir).parent)

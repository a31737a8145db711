"""What a run was: versions, commit, hardware, data, and the checkpoint that it goes on from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

_PACKAGES = (
    "lit_align",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "numpy",
    "tokenizers",
)


class RunRecord(pl.Callback):
    """Write ``environment.json`` beside ``config.yaml`` before the first step, and show both in TensorBoard."""

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the record, once over all processes."""
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


def environment() -> dict[str, Any]:
    """Versions, commit and hardware."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "cpus": os.cpu_count(),
        "cpu_threads": torch.get_num_threads(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the code that runs; None where it is no git checkout."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=folder, capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None

"""Writing and reading checkpoints: whole or not at all, with a PEFT folder beside each."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor


class AdapterCheckpointIO(CheckpointIO):
    """Checkpoints that a kill or a full disk cannot break.

    A file is written beside its final name and then renamed, which the file system does at once; the previous
    checkpoint stays whole until then. ``NAME.ckpt`` gets a folder ``NAME`` that ``PeftModel.from_pretrained`` opens.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint and its PEFT folder.

        Raises:
            OSError: The disk is full or the folder cannot be written; the previous file is untouched.
        """
        del storage_options
        path = Path(path)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, [buffer.getvalue()])
            own = checkpoint.get("lit_align")
            if own is not None:
                write_adapter(path.with_suffix(""), checkpoint["state_dict"], own["adapter_config"])
        except OSError as error:
            raise OSError(
                error.errno,
                f"checkpoint {path} could not be written ({error.strerror}); the previous checkpoint is whole: free "
                "space and resume from it",
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; only tensors and plain types are accepted.

        Raises:
            OSError: There is no such file.
            ValueError: The file is cut short, damaged or no checkpoint.
        """
        del map_location, weights_only
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"checkpoint {path}: no such file (looked at {path.absolute()})")
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load checks no sums: a flipped bit would be another weight
                if (member := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{member} is damaged")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except (EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, KeyError) as error:
            raise ValueError(
                f"{path} ({path.stat().st_size} bytes) is cut short, damaged or no lit_align checkpoint: "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}; resume from an earlier one"
            ) from error
        if not isinstance(loaded, dict) or "lit_align" not in loaded:
            raise ValueError(f"{path} was not written by lit_align; start a new run instead of resuming")
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its PEFT folder."""
        Path(path).unlink(missing_ok=True)
        shutil.rmtree(Path(path).with_suffix(""), ignore_errors=True)


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write an adapter in PEFT's format.

    Args:
        folder: Made if missing; each file is replaced at once.
        tensors: Adapter tensors by the policy's parameter names, with or without the prefix ``policy.``.
        config: PEFT's configuration in plain types.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        name.removeprefix("policy.").removeprefix("peft.").replace(".default.", "."): tensor.detach().cpu().contiguous()
        for name, tensor in tensors.items()
    }
    write_whole(folder / "adapter_model.safetensors", [save(plain, metadata={"format": "pt"})])
    write_whole(folder / "adapter_config.json", [json.dumps({**config, "inference_mode": True}, indent=2).encode()])


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file beside its final name and rename it, which the file system does at once: whole or not at all.

    Args:
        path: The file; one that is there is replaced.
        parts: What it is to hold, in order.

    Raises:
        OSError: The disk is full or the folder cannot be written; the previous file is untouched.
    """
    part = path.with_name(f".{path.name}.part")  # one name: what a kill leaves is written over by the next
    try:
        with part.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

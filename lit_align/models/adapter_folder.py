"""A LoRA adapter on disk in PEFT's format: read, and held against the base that it is to lie on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_align.models.loading import empty_base
from lit_align.tokenizer import PACKAGE_PREFIX, path_in_package

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class AdapterFolder:
    """The folder of a plain LoRA adapter; every message names it as the user did.

    Attributes:
        path: The folder, with the two files that PEFT writes, or ``package:NAME/FOLDER``; ``~`` is the home folder.
    """

    path: str

    def check(self, base: str) -> None:
        """Refuse an adapter that is broken or does not fit a base, of which the configuration alone is read.

        Raises:
            FileNotFoundError: The folder or one of its two files is not there.
            ValueError: As of :meth:`add_to`.
        """
        with torch.device("meta"):
            model = self._laid_on(empty_base(base), "checked", low_cpu_mem_usage=True)
        self._refuse_misfit(model, "checked", self._tensors())

    def open_on(self, base: PreTrainedModel, name: str) -> PeftModel:
        """Load the adapter onto a bare base.

        Args:
            base: The base; its layers are wrapped in place.
            name: The adapter's name there.

        Raises:
            FileNotFoundError: The folder or one of its two files is not there.
            ValueError: As of :meth:`add_to`.
        """
        from peft import set_peft_model_state_dict

        tensors = self._tensors()
        model = self._laid_on(base, name)
        self._refuse_misfit(model, name, tensors)
        set_peft_model_state_dict(model, tensors, adapter_name=name)
        return model

    def add_to(self, model: PeftModel, name: str) -> None:
        """Load the adapter into a model that has others.

        Args:
            model: The base with adapters.
            name: The new adapter's name there.

        Raises:
            FileNotFoundError: The folder or one of its two files is not there.
            ValueError: It is no plain LoRA adapter, its weights are cut short or not finite, or it does not fit.
        """
        from peft import set_peft_model_state_dict

        config, tensors = self._config(), self._tensors()
        with _quiet_peft():
            model.add_adapter(name, config)
        self._refuse_misfit(model, name, tensors)
        set_peft_model_state_dict(model, tensors, adapter_name=name)

    def digest(self) -> str:
        """Hash of the weights' file, 16 hexadecimal digits; where it lies does not matter."""
        return hashlib.sha256(self._file(_WEIGHTS).read_bytes()).hexdigest()[:16]

    def _laid_on(self, base: PreTrainedModel, name: str, low_cpu_mem_usage: bool = False) -> PeftModel:
        from peft import get_peft_model

        config = self._config()
        config.base_model_name_or_path = None  # PEFT would warn of a base under another name, which may well fit
        with _quiet_peft():
            try:
                model = get_peft_model(base, config, adapter_name=name, low_cpu_mem_usage=low_cpu_mem_usage)
            except ValueError as error:  # none of its layers is there
                raise self._misfit(str(error)) from error
        laid: PeftModel = model
        return laid

    def _refuse_misfit(self, model: PeftModel, name: str, tensors: Mapping[str, Tensor]) -> None:
        places = {
            key.replace(f".{name}.", "."): tuple(place.shape)
            for key, place in model.named_parameters()
            if f".{name}." in key
        }
        if differing := sorted({*places} ^ {*tensors}):
            where = "this base" if differing[0] in places else "the adapter"
            raise self._misfit(f"`{differing[0]}` is in {where} alone")
        for key, shape in sorted(places.items()):
            if (own := tuple(tensors[key].shape)) != shape:
                raise self._misfit(f"`{key}` is {list(own)} in the adapter, and this base has {list(shape)} there")

    def _misfit(self, cause: str) -> ValueError:
        return ValueError(
            f"adapter {self.path} does not fit this base: {cause}; the base must be the one that it was trained on"
        )

    def _config(self) -> PeftConfig:
        from peft import PeftConfig

        file = self._file(_CONFIG)
        try:
            config: PeftConfig = PeftConfig.from_pretrained(str(file.parent))
        except (ValueError, KeyError, TypeError) as error:  # no JSON, or not of PEFT's keys
            raise ValueError(f"adapter {self.path}: {_CONFIG} is not one of PEFT's: {error}") from error
        plain = getattr(config, "bias", None) == "none" and not getattr(config, "modules_to_save", None)
        if config.peft_type != "LORA" or not plain:
            raise ValueError(f"adapter {self.path}: is no plain LoRA adapter (bias or whole modules are trained too)")
        return config

    def _tensors(self) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = self._file(_WEIGHTS)
        try:
            tensors: dict[str, Tensor] = load_file(file)
        except SafetensorError as error:
            raise ValueError(
                f"adapter {self.path}: {_WEIGHTS} ({file.stat().st_size} bytes) is cut short or no safetensors file "
                f"({error}); copy the folder again"
            ) from error
        for name, tensor in sorted(tensors.items()):
            if not bool(tensor.isfinite().all()):
                raise ValueError(
                    f"adapter {self.path}: `{name}` holds nan or inf: its run diverged; take another adapter"
                )
        return tensors

    def _file(self, name: str) -> Path:
        in_package = self.path.startswith(PACKAGE_PREFIX)
        file = (path_in_package(self.path) if in_package else Path(self.path).expanduser()) / name
        if not file.is_file():
            raise FileNotFoundError(
                f"adapter {self.path}: no file {name} there; name the folder `adapter/` of a finished run"
            )
        return file


@contextmanager
def _quiet_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        # PEFT 0.21 reads a property that transformers 5.23 has renamed; nothing for a user to do.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield

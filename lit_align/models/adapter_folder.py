"""A LoRA adapter on disk in PEFT's format: read, and held against the base that it is to lie on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_align.models.adapter_sum import Factors
from lit_align.models.loading import LoRA, add_lora, empty_base, quiet_peft
from lit_align.tokenizer import PACKAGE_PREFIX, path_in_package

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_ALWAYS = {"r", "lora_alpha", "target_modules"}
_NOT_OF_THE_MODEL = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version", "revision",
    "task_type",
}  # fmt: skip


@dataclass(frozen=True)
class AdapterFolder:
    """The folder of a plain LoRA adapter; every message names it as the user did.

    Attributes:
        path: The folder, with the two files that PEFT writes, or ``package:NAME/FOLDER``; ``~`` is the home folder.
    """

    path: str

    def check(self, base: str, lora: LoRA = LoRA(), continued: bool = False) -> None:
        """Refuse an adapter that is broken or does not fit a base, of which the configuration alone is read.

        Args:
            base: See :func:`lit_align.tokenizer.resolve_base`.
            lora: The live adapter beside it.
            continued: Whether the live adapter is to start as this one.

        Raises:
            FileNotFoundError: The folder or one of its two files is not there.
            ValueError: As of :meth:`add_to`, and of :meth:`refuse_other_shape` if it is continued.
        """
        config, tensors = self._config(), self._tensors()
        with torch.device("meta"):
            model = add_lora(empty_base(base), lora)
            self._place(model, "checked", config, tensors)
        if continued:
            self.refuse_other_shape(model, "checked", "default")

    def open_on(self, base: PreTrainedModel, name: str) -> PeftModel:
        """Load the adapter onto a bare base.

        Args:
            base: The base; its layers are wrapped in place.
            name: The adapter's name there.

        Raises:
            FileNotFoundError: The folder or one of its two files is not there.
            ValueError: As of :meth:`add_to`.
        """
        from peft import get_peft_model, set_peft_model_state_dict

        config, tensors = self._config(), self._tensors()
        config.base_model_name_or_path = None  # PEFT would warn of a base under another name, which may well fit
        try:
            with quiet_peft():
                model: PeftModel = get_peft_model(base, config, adapter_name=name)
        except ValueError as error:  # none of its layers is there
            raise self._misfit(str(error)) from error
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
        self._place(model, name, config, tensors)
        set_peft_model_state_dict(model, tensors, adapter_name=name)

    def refuse_other_shape(self, model: PeftModel, name: str, live: str) -> None:
        """Refuse a live adapter that computes something else with the same factors.

        Args:
            model: Holds both adapters.
            name: This one there.
            live: The live one, of `model.lora`.

        Raises:
            ValueError: Names the first of rank, alpha, adapted layers and scaling that differs, and both values.
        """
        own, other = _shape(model, name), _shape(model, live)
        for key, mine in own.items():
            if mine != other[key]:
                can_be_set = key == "target_modules" or (key in ("rank", "alpha") and "," not in mine)
                raise ValueError(
                    f"adapter {self.path} cannot be continued: its {key} is {mine}, and that of `model.lora` "
                    f"{other[key]}; set {f'`model.lora.{key}: {mine}`, or ' if can_be_set else ''}`init: stack` for a "
                    "new adapter on top of it"
                )

    def factors(self, base: str) -> dict[str, Factors]:
        """What the adapter adds to each linear layer of a base, by the layer's name; the base's weights are not read.

        Args:
            base: See :func:`lit_align.tokenizer.resolve_base`.

        Raises:
            FileNotFoundError: The folder or one of its two files is not there.
            ValueError: As of :meth:`add_to`; or it adapts the output head, or something that is no linear layer.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        config, tensors = self._config(), self._tensors()
        with torch.device("meta"):
            model = add_lora(empty_base(base), LoRA())
            self._place(model, "read", config, tensors)
        causal_lm: Any = model.get_base_model()
        found: dict[str, Factors] = {}
        layers: dict[str, Any] = {
            name: one
            for name, one in causal_lm.named_modules()
            if isinstance(one, BaseTunerLayer) and "read" in getattr(one, "scaling", ())
        }
        for name, layer in layers.items():
            kind = type(layer.get_base_layer())
            if kind is not torch.nn.Linear or layer is causal_lm.get_output_embeddings():
                what = "the output head" if kind is torch.nn.Linear else f"a {kind.__name__}, no linear layer"
                raise ValueError(f"adapter {self.path}: adapts `{name}`, {what}; that is not supported")
            a, b = (tensors[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
            found[name] = Factors(a, b, layer.scaling["read"])
        return found

    def digest(self) -> str:
        """Hash of the weights' file and of the settings that change the model, 16 hexadecimal digits.

        Where it lies, what it was trained on, its dropout and the versions that wrote it do not matter.
        """
        from peft import LoraConfig

        # Defaults are left out: a setting that a later PEFT adds without effect leaves equal folders equal.
        defaults, own = (asdict(config) for config in (LoraConfig(), self._config()))
        settings = {
            key: sorted(value) if isinstance(value, set) else value
            for key, value in own.items()
            if key not in _NOT_OF_THE_MODEL and (key in _ALWAYS or value != defaults.get(key))
        }
        text = json.dumps(settings, sort_keys=True, default=str)
        return hashlib.sha256(self._file(_WEIGHTS).read_bytes() + text.encode()).hexdigest()[:16]

    def _place(self, model: PeftModel, name: str, config: PeftConfig, tensors: Mapping[str, Tensor]) -> None:
        """Make room for the adapter."""
        try:
            with quiet_peft():
                model.add_adapter(name, config)
        except ValueError as error:  # none of its layers is there
            raise self._misfit(str(error)) from error
        self._refuse_misfit(model, name, tensors)

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
        more = [one.name for one in fields(config) if one.metadata.get("is_lora_variant")]  # DoRA and others
        more = [name for name in ("modules_to_save", "lora_bias", *more) if getattr(config, name, None)]
        if config.peft_type != "LORA" or getattr(config, "bias", None) != "none" or more:
            raise ValueError(
                f"adapter {self.path}: is no plain LoRA adapter ({', '.join(more) or 'bias'}: more than two factors of "
                "each layer is trained, or they are used otherwise)"
            )
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


def _shape(model: PeftModel, name: str) -> dict[str, str]:
    """What two adapters must share to compute the same with the same factors, as text, by option of LoRA first."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules: Iterable[tuple[str, Any]] = model.named_modules()
    layers: dict[str, Any] = {
        key: one for key, one in modules if isinstance(one, BaseTunerLayer) and name in getattr(one, "r", ())
    }

    def shown(values: set[Any]) -> str:
        return ", ".join(map(str, sorted(values)))

    return {
        "rank": shown({one.r[name] for one in layers.values()}),
        "alpha": shown({float(one.lora_alpha[name]) for one in layers.values()}),
        "target_modules": f"[{shown({key.rpartition('.')[2] for key in layers})}]",
        "set of layers": f"{len(layers)} from {min(layers)} to {max(layers)}",
        "scaling": shown({one.scaling[name] for one in layers.values()}),
    }

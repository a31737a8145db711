"""References: the policy's own weights with other adapters active."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lit_align.tokenizer import PACKAGE_PREFIX, path_in_package

_LIVE, _FROZEN = "default", "frozen"  # names of adapters

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lit_align.models.policy import Policy


class Reference(ABC):
    """What the policy is compared with: which adapters are active while it computes."""

    def attach(self, policy: Policy) -> None:  # noqa: B027  most references need nothing
        """Load what the reference needs into the policy, once, before anything is computed; nothing by default."""

    def identity(self) -> str:
        """What a resumed run must share: the settings, and what the files hold that they name."""
        return repr(self)

    @abstractmethod
    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """Make ``policy`` compute as the reference inside the block, without gradient.

        Everything is as it was afterwards, also after an exception: active adapters, ``requires_grad``, train or
        eval mode, random number generators.
        """


@dataclass(frozen=True)
class BaseReference(Reference):
    """The bare base: all adapters off.

    Raises:
        ValueError: On use, when anything but an adapter is trainable: switched-off adapters would then not give the
            base back.
    """

    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """See :class:`Reference`."""
        refuse_trainable_base(policy)
        return only_adapters(policy, ())


@dataclass(frozen=True)
class FrozenAdapterReference(Reference):
    """The base with a trained adapter that stays as it is; the policy is that, and the live adapter on top.

    So a stage of training starts where the last one ended and is compared with it (sDPO, Kim et al. 2024, arXiv
    2403.19270), not with the bare base. The frozen adapter never drops out. A run's own ``adapter/`` then holds the
    live adapter alone: it belongs on top of the frozen one.

    Attributes:
        path: Folder of a LoRA adapter in PEFT's format, such as ``adapter/`` of another run, or
            ``package:NAME/PATH``, a folder of an installed package.

    Raises:
        FileNotFoundError: On use, when the folder or one of its two files is not there.
        ValueError: On use, when it is no plain LoRA adapter, or does not fit the base.
    """

    path: str

    def attach(self, policy: Policy) -> None:
        """Load the adapter under the live one."""
        from peft import PeftConfig, set_peft_model_state_dict
        from safetensors.torch import load_file

        weights = self._file("adapter_model.safetensors")
        config = PeftConfig.from_pretrained(str(self._file("adapter_config.json").parent))
        plain = getattr(config, "bias", None) == "none" and not getattr(config, "modules_to_save", None)
        if config.peft_type != "LORA" or not plain:
            raise ValueError(f"adapter {self.path}: is no plain LoRA adapter (bias or whole modules are trained too)")
        with warnings.catch_warnings():
            # PEFT 0.21 reads a property that transformers 5.23 has renamed; nothing for a user to do.
            warnings.filterwarnings(
                "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
            )
            policy.peft.add_adapter(_FROZEN, config)
        tensors = load_file(weights)
        places = {
            name.replace(f".{_FROZEN}.", ".") for name, _ in policy.peft.named_parameters() if f".{_FROZEN}." in name
        }
        if differing := sorted(places ^ {*tensors}):
            where = "this base" if differing[0] in places else "the adapter"
            raise ValueError(f"adapter {self.path} does not fit this base: `{differing[0]}` is in {where} alone")
        try:
            set_peft_model_state_dict(policy.peft, tensors, adapter_name=_FROZEN)
        except RuntimeError as error:  # shapes
            cause = str(error).splitlines()[-1].strip()
            raise ValueError(f"adapter {self.path} does not fit this base: {cause}") from error
        for layer in _layers(policy):
            if _FROZEN in layer.lora_dropout:
                layer.lora_dropout[_FROZEN] = nn.Identity()
            layer._active_adapter = [_FROZEN, _LIVE]
        for name, parameter in policy.named_parameters():
            parameter.requires_grad_(f".{_LIVE}." in name and ".lora_" in name)

    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """See :class:`Reference`."""
        return only_adapters(policy, (_FROZEN,))

    def identity(self) -> str:
        """The adapter's weights; where they lie does not matter."""
        digest = hashlib.sha256(self._file("adapter_model.safetensors").read_bytes()).hexdigest()
        return f"FrozenAdapterReference({digest[:16]})"

    def _file(self, name: str) -> Path:
        folder = path_in_package(self.path) if self.path.startswith(PACKAGE_PREFIX) else Path(self.path).expanduser()
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(
                f"adapter {self.path}: no file {name} there; name the folder `adapter/` of a finished run"
            )
        return file


def refuse_trainable_base(policy: nn.Module) -> None:
    """Refuse a policy in which anything but a LoRA adapter is trainable.

    Raises:
        ValueError: Names the first such parameter.
    """
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad and ".lora_" not in name:
            raise ValueError(
                f"parameter `{name}` is trainable but belongs to no LoRA adapter: with adapters off the policy would "
                "not be the base; freeze it"
            )


@contextmanager
def only_adapters(policy: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Compute with just these adapters: evaluation mode, no gradient, everything restored on exit.

    PEFT's own switches (`disable_adapter`, `set_adapter`) change `requires_grad` as a side effect; this one sets the
    two attributes that PEFT's layers read in their forward pass.

    Args:
        policy: A module that holds PEFT layers.
        names: Names of the adapters; empty for the bare base.
    """
    layers = _layers(policy)
    adapters = [(layer, layer._active_adapter, layer._disable_adapters) for layer in layers]
    modes = [(module, module.training) for module in policy.modules()]
    trainable = [(parameter, parameter.requires_grad) for parameter in policy.parameters()]
    devices = {parameter.device for parameter, _ in trainable if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)):
        try:
            for layer in layers:
                layer._disable_adapters = not names
                if names:
                    layer._active_adapter = list(names)
            policy.eval()
            with torch.no_grad():
                yield
        finally:
            for layer, active, disabled in adapters:
                layer._active_adapter, layer._disable_adapters = active, disabled
            for module, training in modes:
                module.training = training
            for parameter, requires_grad in trainable:
                parameter.requires_grad_(requires_grad)


def _layers(policy: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]

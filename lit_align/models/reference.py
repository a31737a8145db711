"""References: the policy's own weights with other adapters active."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lit_align.models.adapter_folder import AdapterFolder

_LIVE, _FROZEN = "default", "frozen"  # names of adapters

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lit_align.models.policy import Policy


class Reference(ABC):
    """What the policy is compared with: which adapters are active while it computes."""

    def check(self, base: str) -> None:  # noqa: B027  most references need nothing
        """Refuse what can be seen to be wrong before weights or data are read; nothing by default.

        Args:
            base: As ``model.base``.
        """

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
        ValueError: On use, when it is no plain LoRA adapter, its weights are cut short or not finite, or it does not
            fit the base.
    """

    path: str

    def check(self, base: str) -> None:
        """Refuse a folder that holds no plain LoRA adapter of this base, or one of broken weights."""
        AdapterFolder(self.path).check(base)

    def attach(self, policy: Policy) -> None:
        """Load the adapter under the live one."""
        AdapterFolder(self.path).add_to(policy.peft, _FROZEN)
        policy.frozen_adapter = self.path
        for layer in _layers(policy):
            if _FROZEN in layer.lora_dropout:
                layer.lora_dropout[_FROZEN] = nn.Identity()
            layer._active_adapter = [_FROZEN, _LIVE]
        for name, parameter in policy.named_parameters():
            parameter.requires_grad_(f".{_LIVE}." in name and ".lora_" in name)

    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """See :class:`Reference`."""
        # PEFT passes over an adapter that is not there: the bare base would answer in its place.
        if policy.frozen_adapter != self.path:
            raise ValueError(
                f"reference adapter {self.path} is not the one under the policy ({policy.frozen_adapter or 'none'}): "
                "name the same reference here and in `model.reference`"
            )
        return only_adapters(policy, (_FROZEN,))

    def identity(self) -> str:
        """The adapter's weights; where they lie does not matter."""
        return f"FrozenAdapterReference({AdapterFolder(self.path).digest()})"


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

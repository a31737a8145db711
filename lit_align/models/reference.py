"""References: the policy's own weights with other adapters active."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lit_align.models.policy import Policy


class Reference(ABC):
    """What the policy is compared with: which adapters are active while it computes."""

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
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]
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

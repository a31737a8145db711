"""Which adapters a policy computes with: switched for a block, and restored whatever happens in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def only_adapters(policy: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Compute with just these adapters: evaluation mode, no gradient, everything restored on exit.

    PEFT's own switches (`disable_adapter`, `set_adapter`) change `requires_grad` as a side effect; this one sets the
    two attributes that PEFT's layers read in their forward pass.

    Args:
        policy: A module that holds PEFT layers.
        names: Names of the adapters; empty for the bare base.
    """
    layers = adapted_layers(policy)
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


def adapted_layers(policy: nn.Module) -> list[Any]:
    """The layers of a policy that hold adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]

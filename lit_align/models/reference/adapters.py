"""Which adapters a policy computes with: switched for a block, and restored whatever happens in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_align.models.loading import tensors_fingerprint


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


def active_adapters_fingerprint(policy: nn.Module) -> str:
    """A short hash of the adapters that a policy computes with now, weights and scales but not their names.

    Returns:
        16 hexadecimal digits, or ``none`` for the bare base.
    """
    layers = set(adapted_layers(policy))
    tensors: dict[str, Tensor] = {}
    scales: list[str] = []
    for place, layer in policy.named_modules():
        for name in layer.active_adapters if layer in layers and not layer.disable_adapters else ():
            if name in layer.scaling:
                scales.append(f"{place} {layer.scaling[name]!r}")
                own = [(key, part) for key, part in layer.named_parameters() if f".{name}." in f".{key}."]
                tensors.update({f"{len(scales)} {place} {key.replace(name, '')}": part for key, part in own})
    if not scales:
        return "none"
    return hashlib.sha256(f"{tensors_fingerprint(tensors)} {scales}".encode()).hexdigest()[:16]

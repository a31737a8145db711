"""The adapters of a policy: which of them are active, which one is trained, what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_align.models.loading import tensors_fingerprint

LIVE, FROZEN, AVERAGE = "default", "frozen", "average"  # names: the trained one, an earlier one, an average of the live

_set_plainly = object.__setattr__  # a module's own setter looks for parameters first, at 20 times the cost


@contextmanager
def only_adapters(policy: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Compute with just these adapters: evaluation mode, no gradient, everything restored on exit.

    PEFT's own switches (`disable_adapter`, `set_adapter`) change `requires_grad` as a side effect; this one sets the
    two attributes that PEFT's layers read in their forward pass.

    Args:
        policy: A module that holds PEFT layers.
        names: Names of the adapters; empty for the bare base.
    """
    # One walk and plain settings: each pass of a reference goes through thousands of modules.
    modules = list(policy.modules())
    layers = _adapted(modules)
    adapters = [(layer, layer._active_adapter, layer._disable_adapters) for layer in layers]
    modes = [(module, module.training) for module in modules]
    parameters = [one for module in modules for one in module._parameters.values() if one is not None]
    trainable = [(parameter, parameter.requires_grad) for parameter in parameters]
    devices = {parameter.device for parameter in parameters if parameter.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices, key=str)):
        try:
            for layer in layers:
                layer._disable_adapters = not names
                if names:
                    layer._active_adapter = list(names)
            for module in modules:
                _set_plainly(module, "training", False)
            with torch.no_grad():
                yield
        finally:
            for layer, active, disabled in adapters:
                layer._active_adapter, layer._disable_adapters = active, disabled
            for module, training in modes:
                _set_plainly(module, "training", training)
            for parameter, requires_grad in trainable:
                if parameter.requires_grad != requires_grad:
                    parameter.requires_grad_(requires_grad)


@contextmanager
def live_dropout_off(policy: nn.Module) -> Iterator[None]:
    """Compute without the dropout of the live adapter; whatever else drops out does so here too."""
    dropouts = [layer.lora_dropout[LIVE] for layer in adapted_layers(policy) if LIVE in layer.lora_dropout]
    modes = [dropout.training for dropout in dropouts]
    try:
        for dropout in dropouts:
            dropout.eval()
        yield
    finally:
        for dropout, training in zip(dropouts, modes, strict=True):
            dropout.train(training)


def train_live_adapter(policy: nn.Module, below: Sequence[str] = ()) -> None:
    """Compute with the live adapter on top of others, and train it alone: no other learns or drops out.

    Args:
        policy: A module that holds PEFT layers.
        below: Names of the adapters under the live one.
    """
    for layer in adapted_layers(policy):
        for name in layer.lora_dropout:
            if name != LIVE:
                layer.lora_dropout[name] = nn.Identity()
        layer._active_adapter = [*below, LIVE]
    policy.requires_grad_(False)
    for parameter in factors(policy, LIVE).values():
        parameter.requires_grad_(True)


def below_live(policy: nn.Module) -> list[str]:
    """Names of the adapters under the live one, the lowest first."""
    return [name for name in adapted_layers(policy)[0].active_adapters if name != LIVE]


def factors(policy: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    """The factors A and B of an adapter, by the parameter's name without that of the adapter.

    Args:
        policy: A module that holds PEFT layers.
        adapter: Name of the adapter.
    """
    return {
        name.replace(f".{adapter}.", "."): parameter
        for name, parameter in policy.named_parameters()
        if f".{adapter}." in name and ".lora_" in name
    }


@torch.no_grad()
def copy_factors(policy: nn.Module, source: str, target: str) -> None:
    """Set an adapter to another one of its shape."""
    targets = factors(policy, target)
    for name, value in factors(policy, source).items():
        targets[name].copy_(value)


def adapted_layers(policy: nn.Module) -> list[Any]:
    """The layers of a policy that hold adapters."""
    return _adapted(policy.modules())


def _adapted(modules: Iterable[nn.Module]) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in modules if isinstance(module, BaseTunerLayer)]


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


def adapters_below_fingerprint(policy: nn.Module) -> str:
    """A short hash of what lies under the live adapter and is computed with it, see the function above."""
    with only_adapters(policy, below_live(policy)):
        return active_adapters_fingerprint(policy)

"""The adapters that the stages of a run leave in a policy: frozen ones, and a live one on top of some of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lit_align.models.loading import LoRA, lora_config, quiet_peft
from lit_align.models.reference.adapters import (
    LIVE,
    adapted_layers,
    below_live,
    copy_factors,
    factors,
    train_live_adapter,
)

if TYPE_CHECKING:
    from peft import PeftConfig

    from lit_align.models.policy import Policy


def freeze_live(policy: Policy, name: str) -> None:
    """Keep the live adapter as it is now, frozen, under a name of its own; the policy computes and trains as before.

    Args:
        policy: The policy.
        name: Of the copy, none that the policy has.
    """
    below = below_live(policy)
    _add(policy, name, copy.copy(policy.peft.peft_config[LIVE]))
    copy_factors(policy, LIVE, name)
    train_live_adapter(policy, below)


def stack_live(policy: Policy, below: Sequence[str], lora: LoRA) -> None:
    """Train a fresh adapter on top of frozen ones; it adds exactly nothing yet.

    Args:
        policy: The policy; its live adapter is dropped.
        below: Names of the frozen ones, the lowest first.
        lora: Shape of the new one, whose factors A are drawn from torch's random numbers.
    """
    _replace_live(policy, below, lora_config(lora))


def continue_live(policy: Policy, adapters: Sequence[str], dropout: float) -> None:
    """Train a copy of the uppermost of frozen adapters, on top of the others.

    Args:
        policy: The policy; its live adapter is dropped.
        adapters: Names of the frozen ones, the lowest first.
        dropout: Of the copy.
    """
    *below, top = adapters
    config: Any = copy.copy(policy.peft.peft_config[top])
    config.lora_dropout, config.inference_mode = dropout, False
    _replace_live(policy, below, config)
    copy_factors(policy, top, LIVE)


def stack_state(policy: Policy, adapters: Sequence[str]) -> dict[str, Any]:
    """What a checkpoint must hold beside the live adapter, in tensors and plain types.

    Args:
        policy: The policy.
        adapters: Names of the frozen adapters that stages have left behind.
    """
    return {
        "below": below_live(policy),
        "adapters": {
            name: {
                "config": policy.adapter_config(name),
                "weights": {key: value.detach() for key, value in factors(policy, name).items()},
            }
            for name in adapters
        },
    }


def restore_stack(policy: Policy, state: Mapping[str, Any], live: Mapping[str, Any], path: str) -> None:
    """Rebuild the adapters of a checkpoint; the weights of the live one are left to whoever loads them.

    Args:
        policy: A policy as the run began.
        state: Of :func:`stack_state`.
        live: PEFT's configuration of the live adapter in plain types.
        path: What to call the checkpoint in a message.

    Raises:
        ValueError: The adapters do not fit the base.
    """
    for name, saved in state["adapters"].items():
        _add(policy, name, _config(saved["config"]))
        targets, weights = factors(policy, name), saved["weights"]
        for key in sorted({*targets} | {*weights}):
            if key not in targets or key not in weights or targets[key].shape != weights[key].shape:
                raise ValueError(f"{path}: `{key}` of its adapter {name!r} does not fit this base; set `model.base`")
            with torch.no_grad():
                targets[key].copy_(weights[key])
    _replace_live(policy, state["below"], _config(live))


def _replace_live(policy: Policy, below: Sequence[str], config: PeftConfig) -> None:
    for layer in adapted_layers(policy):
        layer._active_adapter = list(below)  # or PEFT would warn of another adapter that it makes active
    policy.peft.delete_adapter(LIVE)
    _add(policy, LIVE, config)
    train_live_adapter(policy, below)


def _add(policy: Policy, name: str, config: PeftConfig) -> None:
    with quiet_peft():
        policy.peft.add_adapter(name, config)


def _config(plain: Mapping[str, Any]) -> PeftConfig:
    from peft import PeftConfig

    config: PeftConfig = PeftConfig.from_peft_type(**plain)  # type: ignore[no-untyped-call]
    return config

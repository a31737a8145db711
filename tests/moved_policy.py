"""A policy whose adapter has moved away from the base."""

from __future__ import annotations

import copy

import torch

from lit_align.models.policy import Policy


def moved(policy: Policy, size: float) -> Policy:
    """A copy in train mode whose factors B are random, with this standard deviation."""
    trained = copy.deepcopy(policy)
    torch.manual_seed(4)
    for name, parameter in trained.adapter_parameters().items():
        if ".lora_B." in name:
            parameter.data.normal_().mul_(size)
    return trained.train()

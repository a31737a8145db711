"""Adapters in PEFT's format on disk, as a run leaves them, of whatever shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lit_align.checkpoint import write_adapter
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy


def save_adapter(folder: Path, seed: int, base: str = "tiny-qwen3", std: float = 0.05, **lora: Any) -> str:
    """Write an adapter whose factors are random."""
    torch.manual_seed(seed)
    policy = Policy(base, Weights(dtype="float32"), LoRA(**lora), "tree_sdpa")
    for parameter in policy.adapter_parameters().values():
        torch.nn.init.normal_(parameter, std=std)
    write_adapter(folder, policy.adapter_parameters(), policy.adapter_config())
    return str(folder)


def save_peft_adapter(folder: Path, seed: int, base: str, **settings: Any) -> str:
    """Write an adapter by PEFT itself, with settings that a run of ours does not have."""
    from peft import LoraConfig, get_peft_model

    from lit_align.models.loading import plain_base, quiet_peft

    torch.manual_seed(seed)
    with quiet_peft():
        model: Any = get_peft_model(
            plain_base(base, Weights(dtype="float32")), LoraConfig(task_type="CAUSAL_LM", **settings)
        )
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder, save_embedding_layers=False)
    return str(folder)

"""Tiny random reward models on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save_reward_model(folder: Path, seed: int = 7, template: str | None = None, **changes: Any) -> str:
    """Write a random Qwen3 reward model with the bundled tokenizer; return its folder."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForSequenceClassification

    from lit_align.tokenizer import resolve_base

    base = resolve_base("tiny-qwen3").path
    config = Qwen3Config.from_pretrained(base)
    settings = {
        "num_labels": 1, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
        "layer_types": ["full_attention"] * 2, "initializer_range": 0.3, "dtype": "float32", **changes,
    }  # fmt: skip
    for name, value in settings.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    Qwen3ForSequenceClassification(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = tokenizer.chat_template if template is None else template
    tokenizer.save_pretrained(folder)
    return str(folder)

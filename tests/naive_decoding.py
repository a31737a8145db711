"""Greedy decoding in its plainest form, which generation is held against."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def naive(model: Any, prompt: list[int], new_tokens: int) -> tuple[int, ...]:
    """Greedy decoding without batch, padding, cache or transformers' loop."""
    tokens = list(prompt)
    for _ in range(new_tokens):
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        best, second = logits.topk(2).values.tolist()
        assert best - second > 1e-3, "a near tie: choose another seed, so that rounding cannot decide"
        tokens.append(int(logits.argmax()))
    return tuple(tokens[len(prompt) :])

"""The weights that a 4-bit base computes with, in a number format that everyone can read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from lit_align.models.loading import Weights, load_base, plain_base

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def dequantized_base(base: str, weights: Weights) -> PreTrainedModel:
    """A base without quantisation, whose weights are those that the quantised one stands for.

    An adapter that was trained on a 4-bit base has learned to live with its rounding; the original weights lack it.

    Args:
        base: See :func:`lit_align.tokenizer.resolve_base`.
        weights: As the quantised base is loaded.

    Returns:
        On the CPU, in the number format of ``weights``.
    """
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit

    model = plain_base(base, replace(weights, quantization="none"))
    quantized: Any = load_base(base, weights)
    for name, layer in quantized.named_modules():
        if isinstance(layer, Linear4bit):
            packed: Any = layer.weight
            model.get_parameter(f"{name}.weight").copy_(dequantize_4bit(packed.data, packed.quant_state))
    return model

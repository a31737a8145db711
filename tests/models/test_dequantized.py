"""The weights behind a 4-bit base: what it computes with, and not what it was made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lit_align.models.dequantized import dequantized_base
from lit_align.models.loading import Weights, load_base, plain_base

TOKENS = torch.tensor([[3, 17, 44, 9, 60, 21, 8, 30]])


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model(input_ids=TOKENS).logits.float()
    return found


@pytest.mark.parametrize("base", ["tiny-qwen3", "random_llama"])
def test_it_computes_what_the_quantised_base_computes(base: str, request: pytest.FixtureRequest) -> None:
    path = base if base == "tiny-qwen3" else request.getfixturevalue(base)
    weights = Weights("float32", "nf4")
    model = dequantized_base(path, weights)
    quantized = logits(load_base(path, weights))
    torch.testing.assert_close(logits(model), quantized, rtol=1e-4, atol=1e-4)
    assert float((logits(plain_base(path, Weights("float32"))) - quantized).abs().max()) > 0.01
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not getattr(model.config, "quantization_config", None), "or it would be opened as a 4-bit one"

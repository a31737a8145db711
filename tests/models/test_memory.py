"""The estimate from a model's shape, against the bytes that its layers really keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_align.forest import TokenForest, TokenPath
from lit_align.models.loading import LoRA, Weights
from lit_align.models.memory import MemoryEstimate, estimate_memory
from lit_align.models.policy import Policy


def _forest(groups: int) -> TokenForest:
    """Prompts of 96 tokens with two answers of 16."""
    rng = np.random.default_rng(0)

    def path(prompt: np.ndarray) -> TokenPath:
        tokens = np.concatenate([prompt, rng.integers(0, 60, 16)]).astype(np.int32)
        return TokenPath(tokens, np.repeat([0, 1], [96, 16]).astype(np.uint8), "x")

    prompts = [rng.integers(0, 60, 96) for _ in range(groups)]
    return TokenForest.build([[path(prompt), path(prompt)] for prompt in prompts])


def _kept(policy: Policy, forest: TokenForest) -> int:
    """Bytes that a forward pass keeps for the backward one, parameters apart."""
    own = {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.hidden(forest)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _estimate(base: str, weights: Weights, lora: LoRA, forest: TokenForest, *, ck: bool = False) -> MemoryEstimate:
    return estimate_memory(base, weights, lora, forest, checkpointing=ck, cuda=False)


CASES = [
    ("random_qwen3", "float32", LoRA()),
    ("random_qwen3", "bfloat16", LoRA()),
    ("random_qwen3", "float32", LoRA(target_modules=["q_proj", "v_proj"])),
    ("random_qwen3", "float32", LoRA(dropout=0.1)),
    ("random_llama", "float32", LoRA()),
]


@pytest.mark.parametrize(("base", "dtype", "lora"), CASES)
def test_what_layers_keep_grows_with_rows_as_estimated(
    base: str, dtype: str, lora: LoRA, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(base)
    weights = Weights(dtype)  # type: ignore[arg-type]
    policy = Policy(base, weights, lora, "tree_sdpa")
    policy.train()
    small, large = _forest(1), _forest(3)
    grown = _kept(policy, large) - _kept(policy, small)
    config = policy.causal_lm.config
    # What passes by in the backward pass is no part of what is kept.
    widest = max(config.intermediate_size, config.hidden_size, config.num_attention_heads * config.head_dim)
    passing = 4 * (len(large) - len(small)) * (3 * widest + 2 * config.hidden_size)
    found = _estimate(base, weights, lora, large).activations - _estimate(base, weights, lora, small).activations
    assert found - passing == pytest.approx(grown, rel=0.15)


def test_weights_and_adapter_are_those_of_the_model(random_qwen3: str) -> None:
    lora = LoRA(rank=4)
    policy = Policy(random_qwen3, Weights("float32"), lora, "tree_sdpa")
    found = _estimate(random_qwen3, Weights("float32"), lora, _forest(1))
    base = [one for one in policy.parameters() if not one.requires_grad]
    assert found.weights == sum(one.numel() * one.element_size() for one in base)
    assert found.adapter == 16 * sum(one.numel() for one in policy.adapter_parameters().values())


def test_smaller_formats_and_checkpoints_take_less(random_qwen3: str) -> None:
    forest = _forest(2)
    plain, half, quarter = (
        _estimate(random_qwen3, weights, LoRA(), forest)
        for weights in (Weights("float32"), Weights("bfloat16"), Weights("bfloat16", "nf4"))
    )
    assert plain.weights == 2 * half.weights > quarter.weights
    again = _estimate(random_qwen3, Weights("float32"), LoRA(), forest, ck=True)
    assert again.activations < plain.activations
    assert again.total == again.weights + again.adapter + again.activations + again.head

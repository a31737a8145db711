from __future__ import annotations

from typing import Any

import pytest
import torch
from naive_decoding import naive

from lit_align.evals import generate as generate_module
from lit_align.evals.generate import Completion, generate
from lit_align.evals.prompt_cache import cache_argument, families, prompt_cache
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy

CONTEXT = [5, 9, 3, 14, 27, 33, 8, 41, 19, 22, 50, 7]
SHARED = [
    [*CONTEXT, 11, 4],
    [*CONTEXT, 11, 6, 6],
    [*CONTEXT, 30],
    [*CONTEXT, 30],
    [*CONTEXT[:9], 2, 2, 18, 40, 44, 10],
    [31, 12, 13],
]


@pytest.fixture(params=["random_qwen3", "random_llama"])
def model(request: pytest.FixtureRequest) -> Any:
    base = request.getfixturevalue(request.param)
    torch.manual_seed(3)  # before the adapter is drawn: else it depends on which tests went before
    policy = Policy(base, Weights("float32"), LoRA(rank=2), "tree_sdpa")
    for name, parameter in policy.adapter_parameters().items():
        if "lora_B" in name:  # else the adapter would do nothing
            torch.nn.init.normal_(parameter, std=0.2)
    model = policy.causal_lm
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight), requires_grad=False)
    return model.eval()


@pytest.mark.parametrize("batch_size", [3, 6])
def test_prompts_that_share_tokens_get_the_answers_that_each_gets_alone(
    model: Any, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []

    def counted(*arguments: Any) -> Any:
        cache = prompt_cache(*arguments)
        made.append(cache is not None)
        return cache

    monkeypatch.setattr(generate_module, "prompt_cache", counted)
    expected = [Completion(naive(model, prompt, 6), hit_cap=True) for prompt in SHARED]

    assert generate(model, SHARED, max_new_tokens=6, stop_ids=[], batch_size=batch_size) == expected
    assert any(made)


def test_a_shared_token_is_computed_once(model: Any) -> None:
    widths: list[int] = []
    model.get_decoder().register_forward_pre_hook(
        lambda _, __, inputs: widths.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    generate(model, SHARED[:4], max_new_tokens=1, stop_ids=[])
    # All but the last token of each: 12 of the context, and the 11 before it for two of them; then the last tokens.
    assert widths == [len({tuple(prompt[:end]) for prompt in SHARED[:4] for end in range(1, len(prompt))}), 4]


def test_keys_of_a_prompt_are_those_of_the_prompt_alone(model: Any) -> None:
    from transformers import DynamicCache

    with torch.no_grad():
        cache: Any = prompt_cache(model, SHARED[:5])
        width = max(map(len, SHARED)) - 1
        for row, prompt in enumerate(SHARED[:5]):
            alone: Any = DynamicCache()
            model(torch.tensor([prompt[:-1]]), use_cache=True, **{cache_argument(model.forward): alone})
            for layer, expected in zip(cache.layers, alone.layers, strict=True):
                start = width - (len(prompt) - 1)
                torch.testing.assert_close(layer.keys[row, :, start:], expected.keys[0], rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(layer.values[row, :, start:], expected.values[0], rtol=1e-5, atol=1e-5)


def test_prompts_that_share_little_are_left_to_transformers(model: Any) -> None:
    assert prompt_cache(model, [[1, 2, 3, 4], [5, 6, 7, 8]]) is None
    assert prompt_cache(model, [[1, 2, 3, 4], [9]]) is None


def test_a_model_whose_layers_forbid_sharing_is_left_to_transformers(model: Any) -> None:
    model.config.layer_types = ["sliding_attention"] * 2
    assert prompt_cache(model, SHARED[:4]) is None


def test_families_keep_together_what_shares_most_of_its_tokens() -> None:
    assert families(SHARED) == [[0, 1, 2, 3, 4], [5]]
    assert families([]) == []

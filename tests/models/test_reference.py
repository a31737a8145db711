"""A reference computes as the bare base, and leaves no trace on the policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_align.forest import TokenForest, TokenPath
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, only_adapters, refuse_trainable_base
from lit_align.models.tree_attention import AttentionPath

FP32 = Weights(dtype="float32")


def a_forest() -> TokenForest:
    rng = np.random.default_rng(0)
    start = rng.integers(3, 61, 6)
    tokens = [np.concatenate([start, rng.integers(3, 61, length)]).astype(np.int32) for length in (4, 9, 2)]
    return TokenForest.build([[TokenPath(t, (np.arange(len(t)) > 5).astype(np.uint8), "x") for t in tokens]])


def a_policy(base: str, attention: AttentionPath = "tree_sdpa") -> Policy:
    torch.manual_seed(2)
    policy = Policy(base, FP32, LoRA(rank=4, dropout=0.5), attention)
    for parameter in policy.adapter_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy


def plain_logits(base: str, forest: TokenForest, adapter: Callable[[Any], Any] = lambda model: model) -> list[Tensor]:
    """Each path alone through transformers' own model."""
    from transformers import AutoModelForCausalLM

    model = adapter(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)).eval()
    with torch.no_grad():
        return [model(input_ids=path[None]).logits[0] for path in forest.paths()]


@pytest.mark.parametrize("attention", ["tree_sdpa", "padded"])
@pytest.mark.parametrize("family", ["random_qwen3", "random_llama"])
def test_the_references_logits_are_those_of_the_plain_model(
    request: pytest.FixtureRequest, family: str, attention: AttentionPath
) -> None:
    base, forest = request.getfixturevalue(family), a_forest()
    policy = a_policy(base, attention).train()
    with BaseReference().active(policy):
        logits = policy.hidden(forest) @ policy.head.weight.T
    for last, expected in zip(forest.last_rows, plain_logits(base, forest), strict=True):
        rows = [row for part in forest.path_rows(last) for row in part]
        assert torch.allclose(logits[rows], expected, atol=1e-4)
    own = (policy.hidden(forest) @ policy.head.weight.T).detach()
    assert (own - logits).abs().max() > 0.1


def everything(policy: Policy) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [part for part in policy.modules() if isinstance(part, BaseTunerLayer)]
    return {
        "active": [(list(layer.active_adapters), layer.disable_adapters) for layer in layers],
        "requires_grad": {name: parameter.requires_grad for name, parameter in policy.named_parameters()},
        "modes": {name: part.training for name, part in policy.named_modules()},
        "rng": torch.get_rng_state().tolist(),
        "weights": {name: parameter.detach().clone().tolist() for name, parameter in policy.named_parameters()},
        "grad": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("raises", [False, True])
def test_everything_is_as_it_was_afterwards_also_after_an_exception(random_qwen3: str, raises: bool) -> None:
    policy = a_policy(random_qwen3).train()
    policy.causal_lm.eval()  # mixed modes, as in training: dropouts alone are on
    for name, part in policy.named_modules():
        part.training = part.training or "lora_dropout" in name
    frozen = next(iter(policy.adapter_parameters().values()))
    frozen.requires_grad_(False)
    before = everything(policy)
    try:
        with BaseReference().active(policy):
            policy.hidden(a_forest())
            torch.rand(7)
            policy.peft.requires_grad_(True)
            assert not torch.is_grad_enabled()
            if raises:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert raises
    assert everything(policy) == before


def test_contexts_inside_one_another_are_undone_one_by_one(random_qwen3: str) -> None:
    policy = a_policy(random_qwen3).eval()
    forest = a_forest()
    with torch.no_grad():
        own = policy.hidden(forest)
        with BaseReference().active(policy):
            bare = policy.hidden(forest)
            with only_adapters(policy, ["default"]):
                assert torch.equal(policy.hidden(forest), own)
            assert torch.equal(policy.hidden(forest), bare)
        assert torch.equal(policy.hidden(forest), own)


def test_dropouts_of_the_policy_are_the_same_with_and_without_a_reference_between(random_qwen3: str) -> None:
    policy, forest = a_policy(random_qwen3).train(), a_forest()
    torch.manual_seed(4)
    first = [policy.hidden(forest), policy.hidden(forest)]
    torch.manual_seed(4)
    second = [policy.hidden(forest)]
    with BaseReference().active(policy):
        policy.hidden(forest)
    second.append(policy.hidden(forest))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not torch.equal(*first)


def test_another_frozen_adapter_never_drops_out_and_has_no_gradient(random_qwen3: str) -> None:
    policy, forest = a_policy(random_qwen3), a_forest()
    policy.peft.add_adapter("earlier", policy.peft.peft_config["default"])
    for name, parameter in policy.named_parameters():
        if ".earlier." in name:
            torch.nn.init.normal_(parameter, std=0.3)
            parameter.requires_grad_(False)
    policy.train()
    with only_adapters(policy, ["earlier"]):
        one, other = policy.hidden(forest), policy.hidden(forest)
    assert torch.equal(one, other)
    assert not one.requires_grad
    with BaseReference().active(policy):
        assert (policy.hidden(forest) - one).abs().max() > 0.1
    assert not any(".earlier." in name for name in policy.adapter_parameters())


def test_a_trainable_base_is_refused_by_name(random_qwen3: str) -> None:
    policy = a_policy(random_qwen3)
    refuse_trainable_base(policy)
    policy.causal_lm.model.norm.weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"parameter `peft\..*model\.norm\.weight` is trainable"):
        BaseReference().active(policy)

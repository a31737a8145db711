"""A stage starts as the policy that the one before ended with, and what it lies on stays as it is."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_align.forest import TokenForest, TokenPath
from lit_align.models.adapter_stack import continue_live, freeze_live, restore_stack, stack_live, stack_state
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import StackedReference, below_live
from lit_align.models.reference.adapters import LIVE, factors

FORMATS = [Weights("float32"), Weights("bfloat16"), Weights("float32", "nf4")]


def hidden(policy: Policy) -> Tensor:
    tokens = np.random.default_rng(0).integers(3, 61, 12).astype(np.int32)
    forest = TokenForest.build([[TokenPath(tokens, (np.arange(12) > 5).astype(np.uint8), "x")]])
    with torch.no_grad():
        return policy.hidden(forest)


def trained(policy: Policy, seed: int) -> Tensor:
    """Move the live adapter; the hidden states without dropout then."""
    torch.manual_seed(seed)
    for parameter in policy.adapter_parameters().values():
        parameter.data.add_(torch.randn(parameter.shape), alpha=0.3)
    modes = [(part, part.training) for part in policy.modules()]
    policy.eval()
    end = hidden(policy)
    for part, training in modes:
        part.training = training
    return end


def two_stages(base: str, weights: Weights) -> tuple[Policy, Tensor, Tensor]:
    """A policy whose second adapter of another shape lies on the first one, and both ends."""
    policy = Policy(base, weights, LoRA(rank=4, dropout=0.5), "tree_sdpa")
    first = trained(policy, 1)
    freeze_live(policy, "stage-a")
    stack_live(policy, ("stage-a",), LoRA(rank=2, alpha=6, dropout=0.5, target_modules=["q_proj", "down_proj"]))
    return policy, first, trained(policy, 2)


@pytest.mark.parametrize("weights", FORMATS, ids=str)
def test_a_stacked_stage_starts_as_the_end_before_to_the_bit_in_train_mode(random_qwen3: str, weights: Weights) -> None:
    policy = Policy(random_qwen3, weights, LoRA(rank=4, dropout=0.5), "tree_sdpa")
    end = trained(policy, 1)
    freeze_live(policy, "stage-a")
    assert not torch.equal(hidden(policy), end), "its own dropout is on before the stage ends"
    stack_live(policy, ("stage-a",), LoRA(rank=2, dropout=0.5))
    assert policy.peft.training
    assert torch.equal(hidden(policy), end)
    end = trained(policy, 2)
    freeze_live(policy, "stage-b")
    stack_live(policy, ("stage-a", "stage-b"), LoRA(rank=3))
    assert torch.equal(hidden(policy), end)
    with StackedReference(("stage-a", "stage-b")).active(policy):
        assert torch.equal(hidden(policy), end)


@pytest.mark.parametrize("weights", FORMATS, ids=str)
def test_a_continued_stage_starts_as_the_end_before_with_the_shape_of_its_adapter(
    random_qwen3: str, weights: Weights
) -> None:
    policy, first, end = two_stages(random_qwen3, weights)
    freeze_live(policy, "stage-b")
    continue_live(policy, ("stage-a", "stage-b"), dropout=0.0)
    assert torch.equal(hidden(policy), end)
    assert below_live(policy) == ["stage-a"]
    shapes = {name: value.shape for name, value in factors(policy, "stage-b").items()}
    assert {name: value.shape for name, value in factors(policy, LIVE).items()} == shapes
    trained(policy, 3)
    for names, expected in ((("stage-a",), first), (("stage-a", "stage-b"), end)):
        with StackedReference(names).active(policy):
            assert torch.equal(hidden(policy), expected)


@pytest.mark.parametrize("kind", ["stack", "continue"])
def test_only_the_new_adapter_is_trained_and_only_it_drops_out(random_qwen3: str, kind: str) -> None:
    policy, _, _ = two_stages(random_qwen3, FORMATS[0])
    freeze_live(policy, "stage-b")
    if kind == "stack":
        stack_live(policy, ("stage-a", "stage-b"), LoRA(rank=3, dropout=0.5))
    else:
        continue_live(policy, ("stage-a", "stage-b"), dropout=0.5)
    assert all(
        ".default." in name and value.dtype == torch.float32 for name, value in policy.adapter_parameters().items()
    )
    assert len(policy.adapter_parameters()) == len(factors(policy, LIVE)) > 0
    dropping = [name for name, part in policy.named_modules() if isinstance(part, torch.nn.Dropout)]
    assert dropping
    assert all(name.endswith(".default") for name in dropping)


def test_keeping_an_adapter_changes_nothing_of_the_one_that_is_trained(random_qwen3: str) -> None:
    policy, _, end = two_stages(random_qwen3, FORMATS[0])
    before = {name: (id(value), value.clone()) for name, value in policy.adapter_parameters().items()}
    freeze_live(policy, "stage-b")
    after = policy.adapter_parameters()
    assert {name: id(value) for name, value in after.items()} == {name: one for name, (one, _) in before.items()}
    assert below_live(policy) == ["stage-a"]
    policy.eval()
    assert torch.equal(hidden(policy), end)
    assert all(torch.equal(after[name], value) for name, (_, value) in before.items())


def test_a_fresh_adapter_is_that_of_its_random_numbers_whatever_was_there(random_qwen3: str) -> None:
    policy, _, _ = two_stages(random_qwen3, FORMATS[0])
    alone = Policy(random_qwen3, FORMATS[0], LoRA(rank=1), "tree_sdpa")
    drawn = []
    for one, below in ((policy, ("stage-a",)), (alone, ())):
        torch.manual_seed(5)
        stack_live(one, below, LoRA(rank=3))
        drawn.append({name: value.clone() for name, value in factors(one, LIVE).items()})
    assert drawn[0].keys() == drawn[1].keys()
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])


def test_a_checkpoint_rebuilds_the_stack(random_qwen3: str) -> None:
    policy, _, _ = two_stages(random_qwen3, FORMATS[0])
    freeze_live(policy, "stage-b")
    stack_live(policy, ("stage-a", "stage-b"), LoRA(rank=3, dropout=0.5))
    end = trained(policy, 3)
    buffer = io.BytesIO()
    torch.save([stack_state(policy, ["stage-a", "stage-b"]), policy.adapter_config()], buffer)
    buffer.seek(0)
    state, live = torch.load(buffer, weights_only=True)

    other = Policy(random_qwen3, FORMATS[0], LoRA(rank=1), "tree_sdpa")
    restore_stack(other, state, live, "x.ckpt")
    other.load_state_dict({name: value.detach() for name, value in policy.adapter_parameters().items()}, strict=False)
    assert list(other.adapter_parameters()) == list(policy.adapter_parameters())
    assert other.adapter_config() == policy.adapter_config()
    other.eval()
    assert torch.equal(hidden(other), end)
    with StackedReference(("stage-a",)).active(policy), StackedReference(("stage-a",)).active(other):
        assert torch.equal(hidden(other), hidden(policy))


@pytest.mark.parametrize("how", ["shape", "missing"])
def test_a_stack_of_another_base_is_refused(random_qwen3: str, how: Literal["shape", "missing"]) -> None:
    policy, _, _ = two_stages(random_qwen3, FORMATS[0])
    state = stack_state(policy, ["stage-a"])
    weights = state["adapters"]["stage-a"]["weights"]
    name = next(iter(weights))
    weights[name] = weights[name][:, :-1]
    if how == "missing":
        del weights[name]
    other = Policy(random_qwen3, FORMATS[0], LoRA(rank=1), "tree_sdpa")
    with pytest.raises(ValueError, match=r"x\.ckpt: `peft.*lora_A.*` of its adapter 'stage-a' does not fit this base"):
        restore_stack(other, state, policy.adapter_config(), "x.ckpt")


def test_a_reference_to_an_adapter_that_is_not_there_is_refused(random_qwen3: str) -> None:
    policy, _, _ = two_stages(random_qwen3, FORMATS[0])
    with pytest.raises(ValueError, match=r"holds no adapter 'stage-b' \(it holds stage-a, default\)"):
        StackedReference(("stage-a", "stage-b")).active(policy)

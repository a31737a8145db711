"""Adapters are fp32 on any base, and a base is known by every bit of it."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from lit_align.models.loading import LoRA, Weights, add_lora, load_base, weights_fingerprint


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"rank": 0}, "`lora.rank` must be > 0, got 0"),
        ({"alpha": 0.0}, "`lora.alpha` must be > 0, got 0.0"),
        ({"alpha": float("nan")}, "`lora.alpha` must be > 0, got nan"),
        ({"dropout": 1.0}, r"`lora.dropout` must be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"`lora.dropout` must be in \[0, 1\), got -0.1"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        LoRA(**options)


BASES = [Weights(), Weights(dtype="float32"), Weights(quantization="nf4"), Weights("float32", "nf4")]


@pytest.mark.parametrize("weights", BASES, ids=repr)
def test_adapters_are_fp32_and_alone_trainable_whatever_the_base(random_qwen3: str, weights: Weights) -> None:
    adapted = add_lora(load_base(random_qwen3, weights), LoRA(rank=4, alpha=6.0))
    trainable = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert len(trainable) == 2 * 7 * 2  # A and B of seven linear layers in each of two blocks
    assert all(".lora_" in name and parameter.dtype == torch.float32 for name, parameter in trainable.items())
    assert all((name in trainable) == (".lora_" in name) for name, _ in adapted.named_parameters())
    ids = torch.randint(3, 61, (1, 9))
    adapted(input_ids=ids).logits.float().sum().backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in trainable.values()
    )


@pytest.mark.parametrize("weights", BASES, ids=repr)
def test_a_fresh_adapter_changes_no_logit(random_qwen3: str, weights: Weights) -> None:
    base = load_base(random_qwen3, weights)
    ids = torch.randint(3, 61, (1, 9))
    with torch.no_grad():
        before = base(input_ids=ids).logits
        assert torch.equal(add_lora(base, LoRA(rank=4))(input_ids=ids).logits, before)


def test_a_base_is_frozen_and_in_evaluation_mode_with_its_head_and_norms_not_quantised(random_qwen3: str) -> None:
    base = load_base(random_qwen3, Weights(quantization="nf4"))
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert not any(part.training for part in base.modules())
    assert type(base.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert type(base.get_output_embeddings()) is torch.nn.Linear


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_pass_without_gradient_changes_no_gradient_of_an_nf4_policy(dtype: Literal["bfloat16", "float32"]) -> None:
    # Where the CPU has bf16 instructions, bitsandbytes would switch to a kernel without a backward at such a pass.
    ids = torch.arange(3, 40)[None]

    def gradients(pass_before: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        policy = add_lora(load_base("tiny-qwen3", Weights(dtype, "nf4")), LoRA(rank=4))
        if pass_before:
            with torch.no_grad():
                policy(input_ids=ids)
        policy(input_ids=ids).logits.float().logsumexp(-1).sum().backward()
        found = [p.grad for name, p in policy.named_parameters() if "lora_B" in name and p.grad is not None]
        assert found
        return found

    for one, other in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(one, other)
        assert one.abs().max() > 0


def test_an_unknown_target_is_an_error_that_names_it(random_qwen3: str) -> None:
    with pytest.raises(ValueError, match="nope"):
        add_lora(load_base(random_qwen3, Weights()), LoRA(target_modules=["nope"]))


def flipped(tensor: torch.Tensor, byte: int, bit: int) -> None:
    tensor.view(-1).view(torch.uint8)[byte] ^= 1 << bit


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_flipped_bit_anywhere_changes_the_fingerprint(
    random_qwen3: str, dtype: Literal["bfloat16", "float32"]
) -> None:
    base = load_base(random_qwen3, Weights(dtype=dtype))
    seen = {weights_fingerprint(base)}
    generator = torch.Generator().manual_seed(0)
    tensors = [tensor.data for tensor in base.parameters()]
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        for byte in (0, size - 1, int(torch.randint(size, (), generator=generator))):
            bit = int(torch.randint(8, (), generator=generator))
            flipped(tensor, byte, bit)
            seen.add(weights_fingerprint(base))
            flipped(tensor, byte, bit)
    assert len(seen) == 1 + 3 * len(tensors)
    assert weights_fingerprint(load_base(random_qwen3, Weights(dtype=dtype))) in seen


def buffers(**tensors: torch.Tensor) -> torch.nn.Module:
    module = torch.nn.Module()
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor)
    return module


def test_exchanged_weights_and_exchanged_tensors_change_the_fingerprint() -> None:
    plain = buffers(a=torch.tensor([1.0, 2.0, 3.0, 4.0]), b=torch.tensor([5.0, 6.0, 7.0, 8.0]))
    swapped = buffers(a=torch.tensor([2.0, 1.0, 3.0, 4.0]), b=torch.tensor([5.0, 6.0, 7.0, 8.0]))
    crossed = buffers(b=torch.tensor([1.0, 2.0, 3.0, 4.0]), a=torch.tensor([5.0, 6.0, 7.0, 8.0]))
    odd = buffers(a=torch.ones(3, dtype=torch.bfloat16), b=torch.tensor(True))
    again = buffers(a=torch.ones(1, 3, dtype=torch.bfloat16), b=torch.tensor(True))
    assert len({weights_fingerprint(module) for module in (plain, swapped, crossed, odd, again)}) == 5


def test_quantisation_and_number_format_have_fingerprints_of_their_own(random_qwen3: str) -> None:
    assert len({weights_fingerprint(load_base(random_qwen3, weights)) for weights in BASES[:3]}) == 3

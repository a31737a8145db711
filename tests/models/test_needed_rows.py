"""Hidden states at some rows are those of all rows, and the last layer computes no others."""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lit_align.forest import TokenForest, TokenPath
from lit_align.models import needed_rows
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy, check_forest_path
from lit_align.models.reference import BaseReference
from lit_align.models.tree_attention import AttentionPath

FP32 = Weights(dtype="float32")
SHAPE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.3,
}  # fmt: skip
FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")


def a_base(folder: Path, family: str) -> str:
    import transformers

    torch.manual_seed(7)
    config = getattr(transformers, f"{family}Config")(
        **{**SHAPE, **({"sliding_window": None} if family == "Mistral" else {})}
    )
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(folder)
    return str(folder)


def a_policy(base: str, attention: AttentionPath = "tree_sdpa", again: bool = False, dropout: float = 0.0) -> Policy:
    torch.manual_seed(2)
    lora = LoRA(rank=4, dropout=dropout)
    policy = Policy(base, FP32, lora, attention, activation_checkpointing=again)
    for parameter in policy.adapter_parameters().values():
        nn.init.normal_(parameter, std=0.3)
    return policy


def a_forest() -> TokenForest:
    rng = np.random.default_rng(0)
    start = rng.integers(3, 61, 6)
    tokens = [np.concatenate([start, rng.integers(3, 61, length)]).astype(np.int32) for length in (4, 9, 2)]
    return TokenForest.build([[TokenPath(t, (np.arange(len(t)) > 5).astype(np.uint8), "x") for t in tokens]])


def in_float64(policy: Policy) -> Policy:
    """All of it: transformers' norms compute in fp32 in any model, which would hide what is below its rounding."""

    def exact(norm: Any, x: Tensor) -> Tensor:
        scaled: Tensor = norm.weight * (x * (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt())
        return scaled

    norms = [part for part in policy.modules() if type(part).__name__.endswith("RMSNorm")]
    assert norms
    for norm in norms:
        norm.forward = MethodType(exact, norm)
    return policy.double()


def values_and_gradients(policy: Policy, forest: TokenForest, rows: Tensor, all_rows: bool) -> list[Tensor]:
    torch.manual_seed(5)
    hidden = policy.hidden(forest)[rows] if all_rows else policy.hidden(forest, rows)
    weights = torch.linspace(-1, 1, hidden.numel(), dtype=hidden.dtype).view(hidden.shape)
    (hidden * weights).square().sum().backward()  # type: ignore[no-untyped-call]
    found = [hidden.detach()]
    for parameter in policy.adapter_parameters().values():
        assert parameter.grad is not None
        found.append(parameter.grad)
        parameter.grad = None
    return found


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    assert len(one) == len(other) > 1
    return max(float((a - b).norm() / b.norm()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_in_float64_values_and_gradients_are_those_of_all_rows(tmp_path: Path, family: str) -> None:
    policy, forest = in_float64(a_policy(a_base(tmp_path, family))), a_forest()
    assert policy._slices
    rows = forest.pair_rows
    assert len(rows) < len(forest)
    few = values_and_gradients(policy, forest, rows, False)
    assert distance(few, values_and_gradients(policy, forest, rows, True)) < 1e-12


@pytest.mark.parametrize("rows", [[5, 5, 5, 9], [7, 2, 7, 0], [20], list(range(21))], ids=str)
def test_rows_may_come_again_and_in_any_order(random_qwen3: str, rows: list[int]) -> None:
    policy, forest = in_float64(a_policy(random_qwen3)), a_forest()
    wanted = torch.tensor(rows)
    few = values_and_gradients(policy, forest, wanted, False)
    assert distance(few, values_and_gradients(policy, forest, wanted, True)) < 1e-12


def test_no_row_at_all_gives_gradients_of_zero(random_qwen3: str) -> None:
    policy = a_policy(random_qwen3)
    hidden = policy.hidden(a_forest(), torch.zeros(0, dtype=torch.long))
    hidden.sum().backward()  # type: ignore[no-untyped-call]
    assert hidden.shape == (0, 32)
    grads = [parameter.grad for parameter in policy.adapter_parameters().values()]
    assert all(grad is not None and not bool(grad.any()) for grad in grads)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_activations_computed_again_give_the_same_bits(random_qwen3: str, dropout: float) -> None:
    forest = a_forest()
    plain = a_policy(random_qwen3, dropout=dropout)
    again = a_policy(random_qwen3, again=True, dropout=dropout)
    for _ in range(2):  # another forward has gone between the two, as the reference's does
        with BaseReference().active(again):
            again.hidden(forest, forest.pair_rows[:3])
        one, other = (values_and_gradients(policy, forest, forest.pair_rows, False) for policy in (plain, again))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_reference_gives_the_same_rows(random_llama: str) -> None:
    policy, forest = a_policy(random_llama), a_forest()
    with BaseReference().active(policy):
        every, few = policy.hidden(forest), policy.hidden(forest, forest.pair_rows)
    assert torch.allclose(few, every[forest.pair_rows], atol=1e-5)
    assert not torch.allclose(few, policy.hidden(forest, forest.pair_rows), atol=1e-2)


def test_other_layouts_compute_all_rows(random_qwen3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needed_rows, "KNOWN_LAYERS", ())
    policy, forest = a_policy(random_qwen3), a_forest()
    assert torch.equal(policy.hidden(forest, forest.pair_rows), policy.hidden(forest)[forest.pair_rows])
    assert products(policy, forest, forest.pair_rows) == products(policy, forest, None)


def test_the_padded_path_computes_all_rows(random_qwen3: str) -> None:
    policy, forest = a_policy(random_qwen3, "padded"), a_forest()
    assert torch.equal(policy.hidden(forest, forest.pair_rows), policy.hidden(forest)[forest.pair_rows])


def products(policy: Policy, forest: TokenForest, rows: Tensor | None) -> int:
    """FLOPs of the matrix products; those of attention, alike in both, are not counted on a CPU."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        policy.hidden(forest, rows)
    return int(counter.get_total_flops())


def test_the_last_mlp_is_computed_at_distinct_rows_alone(random_qwen3: str) -> None:
    policy, forest = a_policy(random_qwen3), a_forest()
    distinct = len(set(forest.pair_rows.tolist()))
    assert distinct < len(forest.pair_rows) < len(forest)
    one_row = 2 * 3 * (32 * 48 + 4 * (32 + 48))
    saved = products(policy, forest, None) - products(policy, forest, forest.pair_rows)
    assert saved == (len(forest) - distinct) * one_row


def test_the_check_at_the_start_looks_at_the_rows_that_are_read(
    random_qwen3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forest = a_forest()
    assert check_forest_path(a_policy(random_qwen3).eval(), forest) < 1e-5

    def off_by_one(_attention: Any, _args: Any, kwargs: dict[str, Any], output: tuple[Tensor, Any]) -> Any:
        rows = kwargs.get("needed_rows")
        return None if rows is None else (output[0].index_select(1, rows - 1), output[1])

    monkeypatch.setattr(needed_rows, "_attended_at_needed", off_by_one)
    with pytest.raises(RuntimeError, match="differ from those of the padded path"):
        check_forest_path(a_policy(random_qwen3).eval(), forest)

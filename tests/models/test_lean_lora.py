"""A LoRA layer's lean forward pass gives what PEFT's gives, to dropout's draws; what it does not know is PEFT's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_align.forest import TokenForest, TokenPath
from lit_align.models import lean_lora
from lit_align.models.lean_lora import use_lean_forward
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy

IN, OUT, ROWS = 24, 40, 50


class Model(nn.Module):
    """One linear layer, frozen."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(IN, OUT, bias)
        self.config = {"model_type": "one layer"}
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


def adapted(dtype: torch.dtype = torch.float32, bias: bool = False, stack: int = 1, **options: Any) -> Any:
    """A model of PEFT with adapters that are not zero, all active; the last one is trained."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 12, "target_modules": ["layer"], **options}
    model = get_peft_model(Model(bias).to(dtype), LoraConfig(**settings), adapter_name="0")
    for number in range(1, stack):
        model.add_adapter(str(number), LoraConfig(**{**settings, "r": 4 + number}))
    layer = model.base_model.model.layer
    layer._active_adapter = [str(number) for number in range(stack)]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name and f".{stack - 1}." in name)
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    return model.train()


def both(model: Any, run: Callable[[Any], list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """What PEFT computes, and what the lean form does, which is seen to run."""
    peft = run(model)
    lean = copy.deepcopy(model)
    use_lean_forward(lean)
    return peft, run(lean)


def outcome(
    model: Any, dtype: torch.dtype = torch.float32, autocast: bool = False, graded: bool = True
) -> list[Tensor]:
    """Values, gradients of the input and of all that is trained, and the random number that comes next."""
    torch.manual_seed(3)
    x = torch.randn(2, ROWS // 2, IN, dtype=dtype).requires_grad_(graded)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = model(x)
    weights = torch.linspace(-1, 1, OUT, dtype=y.dtype)
    (y * weights).square().sum().backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = [x.grad] if graded else []
    found += [parameter.grad for parameter in trained]
    for parameter in trained:
        parameter.grad = None
    assert trained
    assert all(grad is not None and bool(grad.any()) for grad in found)
    return [y.detach(), *(grad for grad in found if grad is not None), torch.rand(1)]


def distance(ours: list[Tensor], peft: list[Tensor]) -> float:
    """The largest relative difference, in norms; number formats must agree."""
    assert [one.dtype for one in ours] == [one.dtype for one in peft]
    return max(
        float((one.double() - other.double()).norm() / other.double().norm())
        for one, other in zip(ours, peft, strict=True)
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many adapters each lean product had."""
    found: list[int] = []
    products = lean_lora._products

    def counted(*args: Any) -> Any:
        found.append(len(args[4]))
        return products(*args)

    monkeypatch.setattr(lean_lora, "_products", counted)
    return found


cases = pytest.mark.parametrize("stack", [1, 3])
dropouts = pytest.mark.parametrize("dropout", [0.0, 0.4])


@cases
@dropouts
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("graded", [False, True])
def test_in_float64_values_and_gradients_are_those_of_peft(
    stack: int, dropout: float, bias: bool, graded: bool, calls: list[int]
) -> None:
    model = adapted(torch.float64, bias, stack, lora_dropout=dropout).double()
    peft, lean = both(model, lambda one: outcome(one, torch.float64, graded=graded))
    assert distance(lean, peft) < 1e-14
    assert calls == [stack]


@cases
@dropouts
@pytest.mark.parametrize(
    ("dtype", "autocast", "bound"),
    [
        (torch.float32, False, 2e-6),
        (torch.bfloat16, False, 1e-2),
        (torch.bfloat16, True, 2e-2),
        (torch.float32, True, 2e-2),
    ],
)
def test_number_formats_are_those_of_peft(
    stack: int, dropout: float, dtype: torch.dtype, autocast: bool, bound: float, calls: list[int]
) -> None:
    model = adapted(dtype, stack=stack, lora_dropout=dropout)
    peft, lean = both(model, lambda one: outcome(one, dtype, autocast))
    assert distance(lean, peft) < bound
    assert torch.equal(lean[-1], peft[-1])  # dropout drew as many numbers
    assert calls == [stack]


@dropouts
def test_on_a_bf16_base_the_adapter_drops_out_and_multiplies_in_its_own_fp32(dropout: float, calls: list[int]) -> None:
    model = adapted(torch.bfloat16, lora_dropout=dropout)
    peft, lean = both(model, lambda one: outcome(one, torch.bfloat16))
    for index in (0, 2, 3):  # the values, and the gradients of A and B
        assert distance([lean[index]], [peft[index]]) < 1e-6
    assert calls == [1]


@pytest.mark.parametrize("autocast", [False, True])
def test_in_bf16_it_is_as_near_to_the_exact_gradients_as_peft(autocast: bool, calls: list[int]) -> None:
    model = adapted(torch.bfloat16)
    exact = copy.deepcopy(model).double()
    truth = outcome(exact, torch.float64)[1:-1]

    def error(found: list[Tensor]) -> float:
        return max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found[1:-1], truth, strict=True))

    peft, lean = both(model, lambda one: outcome(one, torch.bfloat16, autocast))
    assert calls
    assert error(lean) < 1.1 * error(peft)


def test_where_b_is_zero_the_result_is_the_bases_to_the_bit(calls: list[int]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = adapted(dtype)
        use_lean_forward(model)
        layer = model.base_model.model.layer
        nn.init.zeros_(layer.lora_B["0"].weight)
        x = torch.randn(ROWS, IN, dtype=dtype)
        for autocast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                y, bare = model(x), layer.base_layer(x)
            assert torch.equal(y, bare)
            assert y.dtype == bare.dtype
    assert len(calls) == 4


def test_without_gradient_the_values_are_the_same(calls: list[int]) -> None:
    model = adapted(stack=2)
    use_lean_forward(model)
    x = torch.randn(ROWS, IN)
    graded = model(x)
    with torch.no_grad():
        assert torch.equal(model(x), graded)
    assert graded.requires_grad
    assert calls == [2, 2]


def test_rows_may_be_none_at_all(calls: list[int]) -> None:
    model = adapted()
    use_lean_forward(model)
    x = torch.zeros(1, 0, IN, requires_grad=True)
    y = model(x)
    y.sum().backward()
    assert y.shape == (1, 0, OUT)
    assert x.grad is not None
    assert calls
    assert all(bool((p.grad == 0).all()) for p in model.parameters() if p.requires_grad)


# ------------------------------------------------------------------------------------------------ PEFT's own way


def merged(model: Any) -> None:
    model.merge_adapter()


def switched_off(model: Any) -> None:
    model.base_model.model.layer._disable_adapters = True


def trained_base(model: Any) -> None:
    model.base_model.model.layer.base_layer.weight.requires_grad_(True)


def without_casting(model: Any) -> None:
    model.base_model.model.layer.cast_input_dtype_enabled = False


def of_another_format(model: Any) -> None:
    layer = model.base_model.model.layer
    layer.lora_A["1"].double()
    layer.lora_B["1"].double()


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"use_dora": True}, None),
        ({"lora_bias": True, "bias": True}, None),
        ({}, merged),
        ({}, switched_off),
        ({}, trained_base),
        ({}, without_casting),
        ({"stack": 2}, of_another_format),
    ],
    ids=["dora", "bias", "merged", "switched off", "trained base", "without casting", "of another format"],
)
def test_what_is_not_known_goes_pefts_own_way(
    options: dict[str, Any], change: Callable[[Any], None] | None, calls: list[int]
) -> None:
    model = adapted(**options)
    if change:
        change(model)
    x = torch.randn(ROWS, IN)
    peft, lean = both(model, lambda one: [one(x).detach()])
    assert torch.equal(peft[0], lean[0])
    assert not calls


def test_four_bit_layers_keep_pefts_forward(random_qwen3: str, calls: list[int]) -> None:
    policy = Policy(random_qwen3, Weights(dtype="float32", quantization="nf4"), LoRA(rank=4), "tree_sdpa")
    policy.hidden(a_forest()).sum().backward()  # type: ignore[no-untyped-call]
    assert policy.adapter_parameters()
    assert not calls


def test_a_linear_layer_of_another_class_keeps_pefts_forward() -> None:
    from peft import LoraConfig, get_peft_model

    class Other(nn.Linear):
        """A linear layer that may compute something else."""

    model = Model(False)
    model.layer = Other(IN, OUT)
    peft = get_peft_model(model, LoraConfig(r=4, target_modules=["layer"]))
    use_lean_forward(peft)
    assert not any("forward" in vars(part) for part in peft.modules())


# ------------------------------------------------------------------------------------------------ the whole policy


def a_forest() -> TokenForest:
    rng = np.random.default_rng(0)
    start = rng.integers(3, 61, 6)
    tokens = [np.concatenate([start, rng.integers(3, 61, length)]).astype(np.int32) for length in (4, 9, 2)]
    return TokenForest.build([[TokenPath(t, (np.arange(len(t)) > 5).astype(np.uint8), "x") for t in tokens]])


def test_the_layers_of_a_policy_are_lean_and_still_pefts(random_llama: str, calls: list[int]) -> None:
    from peft.tuners.lora import Linear

    policy = Policy(random_llama, Weights(dtype="float32"), LoRA(rank=4), "tree_sdpa")
    layers = [part for part in policy.modules() if type(part) is Linear]
    policy.hidden(a_forest())
    assert len(calls) == len(layers) == 14
    model = policy.peft.merge_and_unload()  # type: ignore[operator]
    assert type(model.model.layers[0].self_attn.q_proj) is nn.Linear


def test_a_copy_computes_with_its_own_weights(calls: list[int]) -> None:
    model = adapted()
    use_lean_forward(model)
    other, x = copy.deepcopy(model), torch.randn(ROWS, IN)
    before = model(x)
    nn.init.zeros_(model.base_model.model.layer.base_layer.weight)
    assert torch.equal(other(x), before)
    assert not torch.equal(model(x), before)
    assert len(calls) == 3


def kept_bytes(model: Any, x: Tensor, autocast: bool) -> int:
    """What is kept for backward beside the weights and the input itself, which other layers keep too."""
    weights = {x.untyped_storage().data_ptr()} | {
        parameter.untyped_storage().data_ptr() for parameter in model.parameters()
    }
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model(x)
    return sum(storage.nbytes() for place, storage in kept.items() if place not in weights)


@pytest.mark.parametrize("autocast", [False, True])
def test_in_bf16_the_low_rank_output_alone_is_kept_beside_the_input(autocast: bool) -> None:
    x = torch.randn(ROWS, IN, dtype=torch.bfloat16, requires_grad=True)
    peft, lean = both(adapted(torch.bfloat16), lambda one: [torch.tensor(kept_bytes(one, x, autocast))])
    assert lean[0] == ROWS * 4 * (2 if autocast else 4)
    assert peft[0] > 6 * lean[0]

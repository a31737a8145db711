"""Adapters on one another are one adapter of their ranks together, exactly, whatever their shapes and scalings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_adapters import save_adapter, save_peft_adapter
from torch import Tensor

from lit_align.checkpoint import write_adapter
from lit_align.models.adapter_folder import AdapterFolder
from lit_align.models.adapter_sum import Factors, peft_files, put_into, summed
from lit_align.models.loading import Weights, empty_base, plain_base, quiet_peft

FP32 = Weights(dtype="float32")
TOKENS = torch.tensor([[3, 17, 44, 9, 60, 21, 8, 30]])


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory, random_qwen3: str) -> dict[str, str]:
    """Adapters of one base by what is special about them."""
    folder = tmp_path_factory.mktemp("shapes")
    base = random_qwen3
    return {
        "plain": save_adapter(folder / "plain", 1, base, rank=3, alpha=5.0),
        "two projections": save_adapter(folder / "two", 2, base, rank=2, alpha=1, target_modules=["q_proj", "v_proj"]),
        "rank-stabilised": save_peft_adapter(
            folder / "rs", 3, base, r=3, lora_alpha=7, use_rslora=True, target_modules="all-linear"
        ),
        "patterns": save_peft_adapter(
            folder / "patterns", 4, base, r=2, lora_alpha=3, target_modules=["q_proj", "up_proj"],
            rank_pattern={"up_proj": 5}, alpha_pattern={r"layers.1.self_attn.q_proj": 11},
        ),
        "one layer": save_peft_adapter(
            folder / "one", 5, base, r=2, lora_alpha=4, target_modules=["down_proj"], layers_to_transform=[1]
        ),
    }  # fmt: skip


def opened(base: str, folders: list[str]) -> Any:
    """The base with adapters of some folders, by PEFT alone."""
    from peft import PeftModel

    with quiet_peft():
        model: Any = PeftModel.from_pretrained(plain_base(base, FP32), folders[0], "0")
        for number, folder in enumerate(folders[1:], start=1):
            model.load_adapter(folder, str(number))
    model.base_model.set_adapter([str(number) for number in range(len(folders))])
    return model.eval()


@torch.no_grad()
def logps(model: Any) -> Tensor:
    return torch.log_softmax(model(input_ids=TOKENS).logits.double(), dim=-1)


def written(base: str, factors: dict[str, Factors], folder: Path) -> str:
    tensors, config = peft_files(factors, [name for name, _ in empty_base(base).named_modules()])
    write_adapter(folder, tensors, config)
    return str(folder)


STACKS = [
    ["plain", "two projections"],
    ["two projections", "rank-stabilised"],
    ["patterns", "plain"],
    ["one layer"],
    ["one layer", "two projections", "patterns"],
]


def test_the_sum_is_exact_in_float64_for_every_shape() -> None:
    generator = torch.Generator().manual_seed(0)

    def part(rank: int, scaling: float) -> Factors:
        a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((rank, 13), (7, rank)))
        return Factors(a, b, scaling)

    adapters = [
        {"q": part(3, 5 / 3), "v": part(2, 0.1)},
        {"q": part(4, 7 / 3**0.5), "k": part(1, 2.0)},
        {"q": part(1, 1e-3)},
    ]
    found = summed(adapters)
    assert {name: one.a.shape[0] for name, one in found.items()} == {"q": 8, "v": 2, "k": 1}
    for name, one in found.items():
        assert one.scaling == 1.0
        naive = sum(
            adapter[name].scaling * adapter[name].b @ adapter[name].a for adapter in adapters if name in adapter
        )
        assert isinstance(naive, Tensor)
        assert float((one.delta() - naive).abs().max()) < 1e-12


@pytest.mark.parametrize("names", STACKS, ids=" + ".join)
def test_peft_opens_the_sum_as_what_it_opens_the_adapters_as_together(
    names: list[str], shapes: dict[str, str], random_qwen3: str, tmp_path: Path
) -> None:
    stack = [shapes[name] for name in names]
    one = written(random_qwen3, summed([AdapterFolder(path).factors(random_qwen3) for path in stack]), tmp_path / "one")
    before, after = logps(opened(random_qwen3, stack)), logps(opened(random_qwen3, [one]))
    assert float((before - after).abs().max()) < 1e-5
    assert float((before - logps(plain_base(random_qwen3, FP32))).abs().max()) > 1e-2, "they change something"
    AdapterFolder(one).check(random_qwen3)


@pytest.mark.parametrize("name", ["plain", "rank-stabilised", "patterns", "one layer"])
def test_factors_are_what_peft_adds_to_a_weight(name: str, shapes: dict[str, str], random_qwen3: str) -> None:
    factors = AdapterFolder(shapes[name]).factors(random_qwen3)
    model = opened(random_qwen3, [shapes[name]])
    adapted = {key: layer for key, layer in model.get_base_model().named_modules() if hasattr(layer, "lora_A")}
    assert {*factors} == {key for key, layer in adapted.items() if "0" in layer.lora_A}
    for key, one in factors.items():
        torch.testing.assert_close(one.delta(), adapted[key].get_delta_weight("0"), rtol=1e-6, atol=1e-9)


def test_alpha_is_the_rank_in_every_layer_and_other_ranks_stand_in_patterns(
    shapes: dict[str, str], random_qwen3: str, tmp_path: Path
) -> None:
    stack = [AdapterFolder(shapes[name]).factors(random_qwen3) for name in ("plain", "two projections", "one layer")]
    folder = written(random_qwen3, summed(stack), tmp_path / "one")
    config = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["r"] == config["lora_alpha"] == 5
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert config["rank_pattern"] == {
        "k_proj": 3, "o_proj": 3, "gate_proj": 3, "up_proj": 3, "model.layers.0.mlp.down_proj": 3,
    }  # fmt: skip
    assert config["target_modules"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    only = written(random_qwen3, summed(stack[2:]), tmp_path / "only")
    config = json.loads((Path(only) / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == ["model.layers.1.mlp.down_proj"], "not that of layer 0"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_merged_weight_is_rounded_once(dtype: torch.dtype, shapes: dict[str, str], random_qwen3: str) -> None:
    factors = AdapterFolder(shapes["plain"]).factors(random_qwen3)
    model: Any = plain_base(random_qwen3, FP32)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    put_into(model, factors, dtype)
    twice = 0
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        one = factors.get(name.removesuffix(".weight"))
        delta = torch.zeros_like(before[name]) if one is None else 5 / 3 * (one.b @ one.a)
        tolerance = 0.0 if one is None else torch.finfo(dtype).eps
        torch.testing.assert_close(
            parameter.float(), (before[name] + delta).to(dtype).float(), rtol=tolerance, atol=tolerance / 100
        )
        twice += int((parameter != (before[name].to(dtype).float() + delta).to(dtype)).sum())
    assert (twice > 100) == (dtype == torch.bfloat16), "the base was not rounded before the sum"
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_numbers_that_a_format_cannot_hold_are_refused(random_qwen3: str) -> None:
    model: Any = plain_base(random_qwen3, FP32)
    name = "model.layers.0.mlp.up_proj"
    big = Factors(torch.full((1, 32), 300.0), torch.full((48, 1), 300.0))
    with pytest.raises(ValueError, match=r"`model\.layers\.0\.mlp\.up_proj\.weight` holds numbers .* bfloat16"):
        put_into(model, {name: big}, torch.float16)
    put_into(plain_base(random_qwen3, FP32), {name: big}, torch.bfloat16)


def test_an_adapter_of_another_kind_is_refused_by_name(random_qwen3: str, tmp_path: Path) -> None:
    dora = save_peft_adapter(tmp_path / "dora", 1, random_qwen3, r=2, use_dora=True, target_modules=["q_proj"])
    with pytest.raises(ValueError, match=r"is no plain LoRA adapter \(use_dora"):
        AdapterFolder(dora).factors(random_qwen3)


def test_an_adapted_head_is_refused(random_llama: str, tmp_path: Path) -> None:
    path = save_peft_adapter(tmp_path / "head", 1, random_llama, r=2, target_modules=["q_proj", "lm_head"])
    with pytest.raises(ValueError, match="adapts `lm_head`, the output head; that is not supported"):
        AdapterFolder(path).factors(random_llama)


def test_an_adapted_embedding_is_refused(random_llama: str, tmp_path: Path) -> None:
    path = save_peft_adapter(tmp_path / "embedding", 1, random_llama, r=2, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(ValueError, match="lora_embedding_A` is in the adapter alone"):
        AdapterFolder(path).factors(random_llama)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")  # of the adapter beside it
def test_an_adapted_layer_that_is_not_linear_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    base = str(tmp_path / "gpt2")
    GPT2LMHeadModel(
        GPT2Config(vocab_size=61, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    ).save_pretrained(base)
    path = save_peft_adapter(tmp_path / "a", 1, base, r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    with pytest.raises(ValueError, match=r"adapts `transformer\.h\.0\.attn\.c_attn`, a Conv1D, no linear layer"):
        AdapterFolder(path).factors(base)

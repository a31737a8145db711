"""A policy refuses heads that would be read wrongly, and says what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lit_align.models.loading import LoRA, Weights, load_base, weights_fingerprint
from lit_align.models.policy import Policy, _refuse_unknown_head

FP32 = Weights(dtype="float32")


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # PEFT's own doubt, before the refusal
@pytest.mark.parametrize("base", ["random_qwen3", "random_llama"])  # with a tied head, and with one of its own
def test_an_adapted_head_is_refused_by_name(request: pytest.FixtureRequest, base: str) -> None:
    with pytest.raises(
        ValueError, match=r"output head is adapted \(`lora_A.*take the head out of `lora.target_modules`"
    ):
        Policy(request.getfixturevalue(base), FP32, LoRA(rank=2, target_modules=["q_proj", "lm_head"]), "tree_sdpa")


def test_all_linear_layers_do_not_include_the_head(random_llama: str) -> None:
    policy = Policy(random_llama, FP32, LoRA(rank=2), "tree_sdpa")
    assert not any("lm_head" in name for name in policy.adapter_parameters())
    assert policy.head.weight.shape == (61, 32)


def test_a_head_that_becomes_trainable_is_refused(random_qwen3: str) -> None:
    policy = Policy(random_qwen3, FP32, LoRA(rank=2), "tree_sdpa")
    policy.causal_lm.get_output_embeddings().weight.requires_grad_(True)
    with pytest.raises(ValueError, match="head weight is trainable"):
        _ = policy.head


@pytest.mark.parametrize(
    ("name", "value"), [("final_logit_softcapping", 30.0), ("logit_scale", 0.5), ("logits_scaling", 8.0)]
)
def test_logits_that_are_scaled_or_capped_are_refused_by_name(random_qwen3: str, name: str, value: float) -> None:
    model = load_base(random_qwen3, FP32)
    setattr(model.config, name, value)
    with pytest.raises(ValueError, match=f"qwen3: `{name}` = {value} changes the logits"):
        _refuse_unknown_head(model)


def test_a_head_that_is_no_linear_layer_is_refused(random_qwen3: str) -> None:
    model = load_base(random_qwen3, FP32)
    model.set_output_embeddings(torch.nn.Sequential(torch.nn.Linear(32, 61)))
    with pytest.raises(ValueError, match="the output head is Sequential; a plain linear head is needed"):
        _refuse_unknown_head(model)


def test_the_fingerprint_is_the_bases_whatever_the_adapter(random_qwen3: str) -> None:
    base = weights_fingerprint(load_base(random_qwen3, FP32))
    for lora in (LoRA(rank=2), LoRA(rank=5, target_modules=["q_proj"])):
        policy = Policy(random_qwen3, FP32, lora, "tree_sdpa")
        for parameter in policy.adapter_parameters().values():
            parameter.data.fill_(0.5)
        assert policy.base_fingerprint == base


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21 reads it
def test_adapter_parameters_and_configuration_open_with_peft(random_qwen3: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    policy = Policy(random_qwen3, FP32, LoRA(rank=3, alpha=9, target_modules=["q_proj", "up_proj"]), "tree_sdpa").eval()
    parameters = policy.adapter_parameters()
    for parameter in parameters.values():
        torch.nn.init.normal_(parameter, std=0.2)
    names = {name: name.removeprefix("peft.").replace(".default.", ".") for name in parameters}
    save_file({names[name]: p.detach() for name, p in parameters.items()}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(policy.adapter_config()), encoding="utf-8")
    plain = AutoModelForCausalLM.from_pretrained(random_qwen3, dtype=torch.float32)
    opened = PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    ids = torch.randint(3, 61, (1, 9))
    with torch.no_grad():
        ours = policy.causal_lm(input_ids=ids).logits
        assert torch.allclose(opened(input_ids=ids).logits, ours, atol=1e-5)
        assert not torch.allclose(load_base(random_qwen3, FP32)(input_ids=ids).logits, ours, atol=1e-2)

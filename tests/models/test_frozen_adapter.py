"""A trained adapter lies frozen under the live one: the policy starts as it, and is compared with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_models import save_random_model
from torch import Tensor

from lit_align.checkpoint import write_adapter
from lit_align.forest import TokenForest, TokenPath
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import FrozenAdapterReference

FP32 = Weights(dtype="float32")


@pytest.fixture
def trained(random_qwen3: str, tmp_path: Path) -> str:
    """An adapter with dropout that is not that of step 0, as a run leaves it."""
    torch.manual_seed(2)
    policy = Policy(random_qwen3, FP32, LoRA(rank=4, dropout=0.5), "tree_sdpa")
    for parameter in policy.adapter_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    write_adapter(tmp_path / "adapter", policy.adapter_parameters(), policy.adapter_config())
    return str(tmp_path / "adapter")


def stacked(base: str, path: str, **lora: Any) -> Policy:
    policy = Policy(base, FP32, LoRA(rank=2, **lora), "tree_sdpa")
    FrozenAdapterReference(path).attach(policy)
    return policy


def a_path() -> TokenPath:
    tokens = np.random.default_rng(0).integers(3, 61, 12).astype(np.int32)
    return TokenPath(tokens, (np.arange(12) > 5).astype(np.uint8), "x")


def logits(policy: Policy) -> Tensor:
    return policy.hidden(TokenForest.build([[a_path()]])) @ policy.head.weight.T


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_reference_is_the_adapter_as_peft_opens_it(random_qwen3: str, trained: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    policy = stacked(random_qwen3, trained).train()
    with FrozenAdapterReference(trained).active(policy):
        reference = logits(policy)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(random_qwen3, dtype=torch.float32), trained)
    with torch.no_grad():
        expected = plain.eval()(input_ids=torch.from_numpy(a_path().tokens.astype(np.int64))[None]).logits[0]
    assert torch.allclose(reference, expected, atol=1e-4)


@pytest.mark.parametrize("modules", ["all-linear", ["q_proj", "v_proj"], ["down_proj"]], ids=str)
def test_a_fresh_policy_equals_its_reference_to_the_bit_in_train_mode(
    random_qwen3: str, trained: str, modules: Any
) -> None:
    policy = stacked(random_qwen3, trained, target_modules=modules, dropout=0.5).train()
    with FrozenAdapterReference(trained).active(policy):
        reference = logits(policy)
    assert torch.equal(logits(policy), reference), "the frozen adapter drops out, or is not active below the live one"
    with torch.no_grad(), policy.peft.disable_adapter():
        base = logits(policy)
    assert (base - reference).abs().max() > 0.1


def test_the_live_adapter_alone_is_trained_and_the_frozen_one_stays(random_qwen3: str, trained: str) -> None:
    policy = stacked(random_qwen3, trained).train()
    assert policy.adapter_parameters()
    assert all(".default." in name for name in policy.adapter_parameters())
    frozen = {name: p.detach().clone() for name, p in policy.named_parameters() if ".frozen." in name}
    assert frozen
    optimizer = torch.optim.SGD(policy.adapter_parameters().values(), lr=0.1)
    with FrozenAdapterReference(trained).active(policy):
        before = logits(policy)
    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(logits(policy).square().mean())
        optimizer.step()
    with FrozenAdapterReference(trained).active(policy):
        assert torch.equal(logits(policy), before)
    assert all(torch.equal(p, frozen[name]) for name, p in policy.named_parameters() if name in frozen)
    assert all(p.requires_grad == (".default." in n and ".lora_" in n) for n, p in policy.named_parameters())
    assert (logits(policy) - before).abs().max() > 1e-4


def test_identity_is_that_of_the_weights_and_not_of_the_place(random_qwen3: str, trained: str, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "copy")
    first, copy = FrozenAdapterReference(trained), FrozenAdapterReference(str(tmp_path / "copy"))
    assert first.identity() == copy.identity()
    policy = Policy(random_qwen3, FP32, LoRA(rank=4), "tree_sdpa")
    write_adapter(tmp_path / "copy", policy.adapter_parameters(), policy.adapter_config())
    assert first.identity() != copy.identity()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_missing_file_is_named(random_qwen3: str, trained: str, name: str) -> None:
    (Path(trained) / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no file {name} there; name the folder `adapter/` of a finished run"):
        stacked(random_qwen3, trained)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"hidden_size": 48},
            r"does not fit this base: `.*` is \[32, 4\] in the adapter, and this base has \[48, 4\]",
        ),
        ({"num_hidden_layers": 3}, r"does not fit this base: `.*layers\.2\..*` is in this base alone"),
        ({"num_hidden_layers": 1}, r"does not fit this base: `.*layers\.1\..*` is in the adapter alone"),
    ],
    ids=str,
)
def test_an_adapter_that_does_not_fit_the_base_is_refused(
    change: dict[str, int], says: str, trained: str, tmp_path: Path
) -> None:
    # Named by their last parts, as most adapters are; full names would fit a deeper base as well.
    config = Path(trained) / "adapter_config.json"
    plain = {name.rpartition(".")[2] for name in json.loads(config.read_text())["target_modules"]}
    config.write_text(json.dumps({**json.loads(config.read_text()), "target_modules": sorted(plain)}))
    other = save_random_model(tmp_path / "other", "qwen3", **change)
    with pytest.raises(ValueError, match=says):
        stacked(other, trained)
    with pytest.raises(ValueError, match=says):
        FrozenAdapterReference(trained).check(other, LoRA())


@pytest.mark.parametrize("change", [{"bias": "all"}, {"modules_to_save": ["lm_head"]}], ids=str)
def test_an_adapter_with_more_than_lora_is_refused(change: dict[str, Any], random_qwen3: str, trained: str) -> None:
    config = Path(trained) / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(ValueError, match="is no plain LoRA adapter"):
        stacked(random_qwen3, trained)

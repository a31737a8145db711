"""A trained adapter lies frozen under the live one: the policy starts as it, and is compared with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import contents
from random_models import save_random_model
from torch import Tensor

from lit_align.checkpoint import write_adapter
from lit_align.forest import TokenForest, TokenPath
from lit_align.models.loading import LoRA, Weights, quiet_peft
from lit_align.models.policy import Policy
from lit_align.models.reference import FrozenAdapterReference, live_dropout_off

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


def continued(base: str, path: str, **lora: Any) -> Policy:
    policy = Policy(base, FP32, LoRA(**{"rank": 4, **lora}), "tree_sdpa")
    FrozenAdapterReference(path, init="continue").attach(policy)
    return policy


def a_path() -> TokenPath:
    tokens = np.random.default_rng(0).integers(3, 61, 12).astype(np.int32)
    return TokenPath(tokens, (np.arange(12) > 5).astype(np.uint8), "x")


def logits(policy: Policy) -> Tensor:
    return policy.hidden(TokenForest.build([[a_path()]])) @ policy.head.weight.T


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("start", [stacked, continued])
def test_the_reference_is_the_adapter_as_peft_opens_it(
    random_qwen3: str, trained: str, start: Callable[[str, str], Policy]
) -> None:
    policy = start(random_qwen3, trained).train()
    with FrozenAdapterReference(trained).active(policy):
        reference = logits(policy)
    assert torch.allclose(reference, opened_by_peft(random_qwen3, trained), atol=1e-4)


def opened_by_peft(base: str, adapter: str) -> Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    with torch.no_grad():
        expected: Tensor = plain.eval()(input_ids=torch.from_numpy(a_path().tokens.astype(np.int64))[None]).logits[0]
    return expected


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


def test_a_continued_policy_equals_its_reference_to_the_bit_where_its_own_dropout_is_off(
    random_qwen3: str, trained: str
) -> None:
    reference = FrozenAdapterReference(trained, init="continue")
    plain = continued(random_qwen3, trained).train()  # the folder's own dropout, 0.5, is not the live one's
    with reference.active(plain):
        expected = logits(plain)
    assert torch.equal(logits(plain), expected)
    policy = continued(random_qwen3, trained, dropout=0.5).train()
    with reference.active(policy):
        assert torch.equal(logits(policy), expected)
    assert not torch.equal(logits(policy), expected)
    with live_dropout_off(policy):
        assert torch.equal(logits(policy), expected)
    assert not torch.equal(logits(policy), logits(policy)), "dropout was not taken up again"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_continued_adapter_is_complete_by_itself(random_qwen3: str, trained: str, tmp_path: Path) -> None:
    policy = continued(random_qwen3, trained)
    torch.manual_seed(3)
    for parameter in policy.adapter_parameters().values():
        parameter.data.add_(torch.randn(parameter.shape), alpha=0.1)
    write_adapter(tmp_path / "own", policy.adapter_parameters(), policy.adapter_config())
    own = opened_by_peft(random_qwen3, str(tmp_path / "own"))
    assert torch.allclose(logits(policy), own, atol=1e-4)
    assert (own - opened_by_peft(random_qwen3, trained)).abs().max() > 0.1
    again = continued(random_qwen3, str(tmp_path / "own"))  # and is the start of a third stage
    assert torch.equal(logits(again), logits(policy))


OTHER_SHAPES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"rank": 2}, r"its rank is 4, and that of `model.lora` 2; set `model.lora.rank: 4`, or `init: stack`"),
    ({}, {"alpha": 8.0}, r"its alpha is 32.0, and that of `model.lora` 8.0; set `model.lora.alpha: 32.0`, or `init"),
    (
        {},
        {"target_modules": ["q_proj", "v_proj"]},
        r"its target_modules is \[down_proj, gate_proj, .*\], and that of `model.lora` \[q_proj, v_proj\]; "
        r"set `model.lora.target_modules: \[down_proj, ",
    ),
    ({"use_rslora": True}, {}, r"its scaling is 16.0, and that of `model.lora` 8.0; set `init: stack` for a new"),
    ({"rank_pattern": {"q_proj": 3}}, {}, r"its rank is 3, 4, and that of `model.lora` 4; set `init: stack` for a"),
    ({"alpha_pattern": {"q_proj": 3}}, {}, r"its alpha is 3.0, 32.0, and that of `model.lora` 32.0; set `init: st"),
    (
        {"layers_to_transform": [1]},
        {},
        r"its set of layers is 7 from .*, and that of `model.lora` 14 from .*; set `ini",
    ),
]


@pytest.mark.parametrize(("folder", "lora", "says"), OTHER_SHAPES, ids=str)
def test_an_adapter_of_another_shape_is_not_continued(
    folder: dict[str, Any], lora: dict[str, Any], says: str, random_qwen3: str, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(**{"r": 4, "lora_alpha": 32, "target_modules": modules, "task_type": "CAUSAL_LM", **folder})
    with quiet_peft():
        get_peft_model(AutoModelForCausalLM.from_pretrained(random_qwen3), config).save_pretrained(tmp_path / "other")
    path = str(tmp_path / "other")
    with pytest.raises(ValueError, match=f"adapter .*other cannot be continued: {says}"):
        continued(random_qwen3, path, **lora)
    reference = FrozenAdapterReference(path, init="continue")
    with pytest.raises(ValueError, match=f"adapter .*other cannot be continued: {says}"):
        reference.check(random_qwen3, LoRA(**{"rank": 4, **lora}))
    FrozenAdapterReference(path).check(random_qwen3, LoRA(**{"rank": 4, **lora}))


def test_an_adapter_of_the_same_shape_is_continued_whatever_its_dropout(random_qwen3: str, trained: str) -> None:
    config = Path(trained) / "adapter_config.json"
    assert json.loads(config.read_text())["lora_dropout"] == 0.5
    for dropout in (0.0, 0.5, 0.1):
        FrozenAdapterReference(trained, init="continue").check(random_qwen3, LoRA(rank=4, dropout=dropout))


@pytest.mark.parametrize("start", [stacked, continued])
def test_the_live_adapter_alone_is_trained_and_the_frozen_one_stays(
    random_qwen3: str, trained: str, start: Callable[[str, str], Policy]
) -> None:
    files = contents(Path(trained))
    policy = start(random_qwen3, trained).train()
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
    assert contents(Path(trained)) == files


def test_identity_is_that_of_the_weights_and_not_of_the_place(random_qwen3: str, trained: str, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "copy")
    first, copy = FrozenAdapterReference(trained), FrozenAdapterReference(str(tmp_path / "copy"))
    assert first.identity() == copy.identity()
    assert first.identity() != FrozenAdapterReference(trained, init="continue").identity()
    policy = Policy(random_qwen3, FP32, LoRA(rank=4), "tree_sdpa")
    write_adapter(tmp_path / "copy", policy.adapter_parameters(), policy.adapter_config())
    assert first.identity() != copy.identity()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"lora_alpha": 8}, False),
        ({"r": 8}, False),
        ({"use_rslora": True}, False),
        ({"target_modules": ["q_proj"]}, False),
        ({"rank_pattern": {"q_proj": 2}}, False),
        ({"lora_dropout": 0.1}, True),
        ({"base_model_name_or_path": "elsewhere", "inference_mode": False, "peft_version": "0.1"}, True),
    ],
    ids=str,
)
def test_identity_holds_the_settings_that_change_the_model(trained: str, change: dict[str, Any], same: bool) -> None:
    before = FrozenAdapterReference(trained).identity()
    file = Path(trained) / "adapter_config.json"
    config = json.loads(file.read_text())
    modules = config["target_modules"]
    file.write_text(json.dumps({**config, "target_modules": modules[::-1]}))  # PEFT writes a set, in any order
    assert FrozenAdapterReference(trained).identity() == before
    file.write_text(json.dumps({**config, **change}))
    assert (FrozenAdapterReference(trained).identity() == before) == same


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


@pytest.mark.parametrize(
    "change", [{"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}, {"lora_bias": True}], ids=str
)
def test_an_adapter_with_more_than_lora_is_refused(change: dict[str, Any], random_qwen3: str, trained: str) -> None:
    config = Path(trained) / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(ValueError, match=rf"is no plain LoRA adapter \({next(iter(change))}: "):
        stacked(random_qwen3, trained)


@pytest.mark.parametrize("init", ["stack", "continue"])
def test_several_folders_are_one_policy_each_on_those_before_it(
    random_qwen3: str, trained: str, tmp_path: Path, init: Any
) -> None:
    first = stacked(random_qwen3, trained)
    torch.manual_seed(5)
    for parameter in first.adapter_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    write_adapter(tmp_path / "second", first.adapter_parameters(), first.adapter_config())
    expected = logits(first)

    reference = FrozenAdapterReference([trained, str(tmp_path / "second")], init=init)
    reference.check(random_qwen3, LoRA(rank=2))
    policy = Policy(random_qwen3, FP32, LoRA(rank=2), "tree_sdpa").train()
    reference.attach(policy)
    with reference.active(policy):
        assert torch.equal(logits(policy), expected)
    assert torch.equal(logits(policy), expected)
    assert reference.below == (("frozen", "frozen-2") if init == "stack" else ("frozen",))
    assert " + " in reference.identity()
    with pytest.raises(ValueError, match="is not the one under the policy"):
        FrozenAdapterReference(trained).active(policy)


def test_no_folder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reference\.path is empty"):
        FrozenAdapterReference([])

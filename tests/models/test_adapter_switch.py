"""Finished adapters answer in place of the live one, one after another, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_align.checkpoint import write_adapter
from lit_align.forest import TokenForest, TokenPath
from lit_align.models.adapter_folder import AdapterFolder
from lit_align.models.adapter_switch import AdapterSwitch, put_in_place_of_live
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, EMAReference, FrozenAdapterReference, Reference

FP32 = Weights(dtype="float32")


def hidden(policy: Policy) -> Tensor:
    tokens = np.random.default_rng(0).integers(3, 61, 12).astype(np.int32)
    forest = TokenForest.build([[TokenPath(tokens, (np.arange(12) > 5).astype(np.uint8), "x")]])
    with torch.no_grad():
        return policy.hidden(forest)


def trained(base: str, folder: Path, seed: int, **lora: Any) -> tuple[str, Tensor]:
    """An adapter on disk, and the hidden states of the policy that wrote it."""
    torch.manual_seed(seed)
    policy = Policy(base, FP32, LoRA(**{"rank": 3, "alpha": 6, **lora}), "tree_sdpa")
    for parameter in policy.adapter_parameters().values():
        parameter.data.add_(torch.randn(parameter.shape), alpha=0.3)
    write_adapter(folder, policy.adapter_parameters(), policy.adapter_config())
    return str(folder), hidden(policy)


def test_each_adapter_answers_as_itself_and_none_stays(random_qwen3: str, tmp_path: Path) -> None:
    one, of_one = trained(random_qwen3, tmp_path / "one", 1)
    two, of_two = trained(random_qwen3, tmp_path / "two", 2, rank=2)
    policy = Policy(random_qwen3, FP32, LoRA(rank=2, dropout=0.5), "tree_sdpa").train()
    before, live = list(policy.state_dict()), list(policy.adapter_parameters())
    modes = [module.training for module in policy.modules()]

    for path, expected in ((one, of_one), (two, of_two), (one, of_one)):
        with AdapterSwitch(path).active(policy):
            assert torch.equal(hidden(policy), expected)
    with pytest.raises(RuntimeError, match="planted"), AdapterSwitch(one).active(policy):
        raise RuntimeError("planted")

    assert list(policy.state_dict()) == before
    assert list(policy.adapter_parameters()) == live
    assert [module.training for module in policy.modules()] == modes
    policy.eval()
    with AdapterSwitch("base").active(policy):
        assert torch.equal(hidden(policy), hidden(Policy(random_qwen3, FP32, LoRA(), "tree_sdpa")))


@pytest.mark.parametrize("kind", ["base", "continue", "average"])
def test_an_adapter_takes_the_place_of_the_live_one_beside_any_reference(
    random_qwen3: str, tmp_path: Path, kind: str
) -> None:
    one, of_one = trained(random_qwen3, tmp_path / "one", 1)
    two, of_two = trained(random_qwen3, tmp_path / "two", 2, rank=2)
    reference: Reference = {
        "base": BaseReference(),
        "continue": FrozenAdapterReference(one, init="continue"),
        "average": EMAReference(start=FrozenAdapterReference(one, init="continue")),
    }[kind]
    policy = Policy(random_qwen3, FP32, LoRA(rank=3, alpha=6), "tree_sdpa")
    reference.attach(policy)

    with torch.inference_mode():  # as in trainer.validate; a warning of PEFT's would be an error here
        put_in_place_of_live(policy, AdapterFolder(two))
        assert torch.equal(hidden(policy), of_two)
        with AdapterSwitch(one).active(policy):
            assert torch.equal(hidden(policy), of_one)
        if kind != "base":
            with reference.active(policy):
                assert torch.equal(hidden(policy), of_one)
        assert torch.equal(hidden(policy), of_two)

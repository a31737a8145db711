"""Shared fixtures: tiny random models on disk, a clean working directory, quiet arguments."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_arguments_and_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # LightningCLI warns when it is given arguments while sys.argv holds pytest's; runs write into the working folder.
    monkeypatch.setattr("sys.argv", ["lit-align"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Tiny matrices: a second thread costs more than it brings, and tests run beside one another.
    torch.set_num_threads(1)


def save_random_model(folder: Path, family: str, **changes: object) -> str:
    """Write a tiny random model of a family in transformers' format; return its folder."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(7)
    shape: dict[str, object] = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": family == "qwen3",
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }
    model = Qwen3ForCausalLM(Qwen3Config(**shape)) if family == "qwen3" else LlamaForCausalLM(LlamaConfig(**shape))
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def random_qwen3(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_random_model(tmp_path_factory.mktemp("qwen3"), "qwen3")


@pytest.fixture(scope="session")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_random_model(tmp_path_factory.mktemp("llama"), "llama")

"""Shared fixtures: tiny random models on disk, a clean working directory, quiet arguments."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_models import save_random_model


@pytest.fixture(autouse=True)
def _own_arguments_and_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # LightningCLI warns when it is given arguments while sys.argv holds pytest's; runs write into the working folder.
    monkeypatch.setattr("sys.argv", ["lit-align"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Tiny matrices: a second thread costs more than it brings, and tests run beside one another.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_qwen3(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_random_model(tmp_path_factory.mktemp("qwen3"), "qwen3")


@pytest.fixture(scope="session")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_random_model(tmp_path_factory.mktemp("llama"), "llama")

"""Shared fixtures: tiny random models on disk, a clean working directory, quiet arguments; how many workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# torch is imported inside of the fixtures: the process that hands tests out to the workers does without it.

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start; our own: see _one_thread


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process for one file, for a GPU and where output is wanted; else one for each core, each of 1 to 2 GB."""
    paths = [Path(argument.partition("::")[0]) for argument in config.args]
    one_file = len(paths) == 1 and paths[0].is_file()
    if one_file or config.option.capture == "no" or config.option.markexpr in {"gpu", "benchmark"}:
        return 0
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4)


@pytest.fixture(autouse=True)
def _own_arguments_and_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # LightningCLI warns when it is given arguments while sys.argv holds pytest's; runs write into the working folder.
    monkeypatch.setattr("sys.argv", ["lit-align"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    # Tiny matrices: a second thread costs more than it brings, and tests run beside one another.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_qwen3(tmp_path_factory: pytest.TempPathFactory) -> str:
    from random_models import save_random_model

    return save_random_model(tmp_path_factory.mktemp("qwen3"), "qwen3")


@pytest.fixture(scope="session")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    from random_models import save_random_model

    return save_random_model(tmp_path_factory.mktemp("llama"), "llama")

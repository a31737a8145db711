"""Ctrl-C: the first ends the window and saves, the second stops at once."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from command import adapter, complete, life, small

pytestmark = pytest.mark.slow


def test_an_interrupted_run_says_how_to_go_on_and_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    # Windows of half a second and more: the signal falls into one of them, while the workers build the next ones.
    settings = small(
        data={"workers": 2, "window": 16},
        trainer={"max_steps": 9, "val_check_interval": 2},
        checkpoint={"every_n_windows": 3},
    )
    expected = adapter(complete(tmp_path / "undisturbed", settings))
    folder = tmp_path / "interrupted"
    with life(folder, settings) as process:
        assert process.saves(1), process.errors
        assert process.checkpoint is not None
        before = process.checkpoint.read_bytes()
        time.sleep(0.1)
        process.interrupt()
        assert process.wait() == 1, process.errors
        told = process.errors
    assert told.count("Ctrl-C: ending") == 1, "workers must leave Ctrl-C to the main process"
    assert "Traceback" not in told
    assert "DataLoader worker" not in told
    found = re.search(r"--ckpt_path (\S+)", told)
    assert found, told
    saved = folder / found[1]
    assert saved.read_bytes() != before, "the window that was being computed is lost"
    assert saved.with_suffix("").joinpath("adapter_model.safetensors").exists()
    assert not (saved.parent.parent / "adapter").exists(), "an interrupted run must not look like a finished one"
    assert adapter(complete(folder, settings, Path(found[1]))) == expected


def test_a_second_interrupt_stops_at_once_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    settings = small(
        data={"workers": 2, "window": 54, "token_budget": 4096, "val_fraction": 0.0},
        trainer={"max_steps": 50, "val_check_interval": 1},
        checkpoint={"every_n_windows": 1},
    )
    with life(tmp_path, settings) as process:
        assert process.saves(1), process.errors
        time.sleep(0.1)
        assert process.checkpoint is not None
        before = process.checkpoint.read_bytes()
        process.interrupt()
        assert process.wait_until(lambda: "Ctrl-C: ending this window" in process.errors), process.errors
        process.interrupt()
        assert process.wait() == 1, process.errors
        assert "saved" not in process.errors
        assert process.checkpoint.read_bytes() == before
        assert not list(process.checkpoint.parent.glob("**/*.part"))

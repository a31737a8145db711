"""Runs on streams by the command: exact after kills, refused where the length of a stream would have to be known."""

from __future__ import annotations

import csv
import json
import re
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from command import Settings, adapter, complete, life, newest_checkpoint, small, versions
from in_process import fit, shown_line

KILLS = 3
WINDOWS = 30


def _rows(path: Path, number: int, word: str) -> str:
    """Questions and answers; every ninth answer is too long, every eleventh row blank."""
    answers = ["" if i % 11 == 7 else f"{word} " * (60 if i % 9 == 4 else 1 + i % 4) for i in range(number)]
    rows = [{"prompt": f"What comes after {word} {i}?", "completion": answer} for i, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _stream(folder: Path, workers: int = 2, **trainer: Any) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    settings = small(
        model={"anchor": {"coef": 1.0, "text": "trained"}},
        trainer={"max_steps": WINDOWS, "val_check_interval": 7, **trainer},
        checkpoint={"every_n_windows": 1},
    )
    files = [_rows(folder / f"{word}.jsonl", number, word) for word, number in (("red", 40), ("blue", 60))]
    settings["data"] = {
        "class_path": "SFTStream",
        "init_args": {
            "sources": [{"class_path": "PromptCompletionFile", "init_args": {"path": path}} for path in files],
            "mix": {"weights": {"red.jsonl": 1, "blue.jsonl": 3}},  # nine windows an epoch
            "val_sources": [{"class_path": "PromptCompletionFile", "init_args": {"path": files[0], "limit": 3}}],
            "window": 8,
            "token_budget": 256,
            "lengths": {"max_length": 100},
            "bad_rows": "drop",
            "shuffle_buffer": 10,
            "workers": workers,
        },
    }
    return settings


def _step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


@pytest.mark.slow
def test_kills_at_random_moments_leave_the_bytes_of_an_undisturbed_run_on_two_streams(tmp_path: Path) -> None:
    # Two workers, dropout, validation between windows, several epochs.
    settings, chain = _stream(tmp_path), tmp_path / "chain"
    expected = adapter(complete(tmp_path / "undisturbed", settings))
    random = Random(0)
    kills: list[str] = []
    while len(kills) < KILLS:
        resume = newest_checkpoint(chain)
        with life(chain, settings, resume) as process:
            assert process.saves(random.choice((1, 2, 3, 4))), f"kill {len(kills)}: {process.errors}"
            time.sleep(random.uniform(0.0, 0.1))
            if process.process.poll() is None:
                process.kill()
        newest = newest_checkpoint(chain)
        assert newest is not None
        kills.append(f"{_step(resume) if resume else 0}->{_step(newest)}")
        if _step(newest) == WINDOWS:
            break
    last = complete(chain, settings, newest_checkpoint(chain))
    print(f"kills: {', '.join(kills)}")  # noqa: T201  the measured numbers, shown with -s
    assert adapter(last) == expected


@pytest.mark.slow
def test_a_run_stopped_around_the_end_of_an_epoch_goes_on_to_the_same_bytes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = _stream(tmp_path, workers=0, max_steps=11)
    settings["checkpoint"] = {"every_n_windows": 1, "keep": "all"}
    caplog.set_level("INFO")
    assert fit(settings) == 0
    assert [line for line in caplog.messages if "epoch 0 of the stream: 9 windows" in line]
    whole, *_ = versions(tmp_path)
    for step in (8, 9, 10):
        assert fit(settings, "--ckpt_path", str(whole / "checkpoints" / f"step-{step:06d}.ckpt")) == 0
        assert adapter(versions(tmp_path)[-1]) == adapter(whole), step


def test_a_run_tells_what_became_of_the_rows_and_has_curves_by_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(_stream(tmp_path, workers=0, max_steps=3, val_check_interval=2)) == 0
    told = capsys.readouterr().err
    assert "training, beginning of the stream: red.jsonl: 3 rows passed over, being held out" in told
    assert "training, epoch 0 of the stream, so far: mix: blue.jsonl: " in told
    assert "4 refused, 4 too long; first refusal: " in told
    rows = list(csv.DictReader(Path("lightning_logs/run/version_0/metrics.csv").read_text("utf-8").splitlines()))
    trained = [row for row in rows if row["train/loss"]]
    assert len(trained) == 3
    assert all(0 < float(row["train/by_source/red.jsonl/share"]) < 0.5 for row in trained)
    assert [row for row in rows if row["val/nll"]]


def _line(config: Settings, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert fit(config, *words) == 1
    assert not Path("lightning_logs").exists()
    return shown_line(capsys)


def test_epochs_of_unknown_length_are_refused_with_what_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _line(_stream(tmp_path, workers=0), capsys, "--trainer.max_epochs=1")
    assert "the length of a stream is not known before it is read" in line
    assert "set `trainer.max_steps` and `trainer.max_epochs: null`, or `data.mix.size`" in line


def test_an_epoch_of_a_known_size_ends_a_run(tmp_path: Path) -> None:
    settings = _stream(tmp_path, workers=0, max_steps=-1, max_epochs=2)
    settings["data"]["init_args"]["mix"] |= {"size": 20, "by": "repeat"}
    assert fit(settings) == 0
    assert _step(Path("lightning_logs/run/version_0/checkpoints/last.ckpt")) == 6


def test_a_trial_run_needs_no_length(tmp_path: Path) -> None:
    assert fit(_stream(tmp_path, workers=0), "--trainer.fast_dev_run=true") == 0


@pytest.mark.slow
def test_a_resume_on_other_data_or_another_order_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = _stream(tmp_path, workers=0, max_steps=2)
    assert fit(settings) == 0
    last = "lightning_logs/run/version_0/checkpoints/last.ckpt"
    capsys.readouterr()
    assert fit(settings, "--ckpt_path", last, "--data.shuffle_buffer=9") == 1
    assert "data.shuffle_buffer: 10 in the checkpoint, 9 now" in capsys.readouterr().err
    with (tmp_path / "blue.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"prompt": "One more?", "completion": "yes"}\n')
    assert fit(settings, "--ckpt_path", last) == 1
    told = capsys.readouterr().err
    assert re.search(r"\bdata: [0-9a-f]{16} in the checkpoint, [0-9a-f]{16} now", told), told

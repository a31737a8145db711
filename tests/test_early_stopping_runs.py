"""A run that overfits stops early by the real command, killed or not."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from command import Settings, adapter, complete, killed_and_resumed, small
from in_process import fit

from lit_align.cli import main

pytestmark = pytest.mark.slow


def _settings() -> Settings:
    held_out = {
        "class_path": "PairAccuracyBenchmark",
        "init_args": {
            "name": "held out",
            "source": {"class_path": "ScalePairs", "init_args": {"split": "eval", "n": 16}},
            "val_fraction": 1.0,
        },
    }
    stopping = {
        "class_path": "MTBenchEarlyStopping",
        "init_args": {
            "benchmark": held_out, "measure": "logps/chosen", "every_n_windows": 2, "patience": 2, "max_drop": 50.0,
        },
    }  # fmt: skip
    # Eight answers again and again, at six times a sound rate.
    source = {"class_path": "TableSkills", "init_args": {"skills": ["scale"], "n": 8, "seed": 1}}
    return small(
        model={
            "anchor": {"coef": 0.0},
            "lora": {"rank": 8, "alpha": 16, "dropout": 0.0},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 6e-3, "weight_decay": 0.0}},
            "schedule": {"class_path": "ConstantSchedule"},
        },
        data={"sources": [source], "val_fraction": 0.0, "replay": [], "replay_share": 0.0},
        trainer={"max_steps": 60, "val_check_interval": None, "callbacks": [stopping]},
        checkpoint={"every_n_windows": 1},
    )


def test_an_overfitting_run_stops_restores_its_best_and_says_why_also_if_it_is_killed(tmp_path: Path) -> None:
    settings = _settings()
    whole = complete(tmp_path / "whole", settings)
    killed = killed_and_resumed(tmp_path / "killed", settings, 2, seed=3)

    state = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["MTBenchEarlyStopping"]
    means, best = state["means"], state["best_step"]
    last = max(means)
    assert 0 < best == last - 4 < 56
    assert means[best] > means[0] + 10
    assert means[last] < means[best]
    for folder in (tmp_path / "whole", tmp_path / "killed"):
        newest = max(folder.glob("stderr-*.txt"), key=lambda path: path.stat().st_mtime_ns)
        told = newest.read_text(encoding="utf-8")
        assert f"stopped at step {last}: logps/chosen of held out gained no 0.05 over" in told
        assert f"at step {best}, whose adapter is kept" in told
    assert adapter(killed) == adapter(whole)
    resumed = torch.load(killed / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["MTBenchEarlyStopping"]
    assert resumed["means"] == means
    best_adapter = state["best_adapter"]
    assert any(
        not torch.equal(best_adapter[name], tensor)
        for name, tensor in torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"].items()
        for name in [name.removeprefix("policy.")]
    )


def test_validate_marks_the_questions_that_chose_the_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    settings = _settings()
    [stopping] = settings["trainer"]["callbacks"]
    rest = deepcopy(stopping["init_args"]["benchmark"])
    rest["init_args"]["name"] = "the rest"
    rest["init_args"]["source"]["init_args"]["seed"] = 7
    benchmarks = [stopping["init_args"]["benchmark"], rest]
    evaluation = {"class_path": "BenchmarkEvaluation", "init_args": {"benchmarks": benchmarks}}
    settings["trainer"] |= {"max_steps": 2, "callbacks": [stopping, evaluation], "enable_progress_bar": False}
    settings["data"]["init_args"]["val_fraction"] = 0.3
    assert not fit(settings)
    trained = capsys.readouterr().out

    assert not main(["validate", "-c", "run.yaml", "--ckpt_path=lightning_logs/run/version_0/checkpoints/last.ckpt"])
    measured = capsys.readouterr().out
    for table in (trained, measured):
        assert "| held out (selected) " in table
        assert "| the rest " in table

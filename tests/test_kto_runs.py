"""KTO by the real command: killed and resumed to the same bytes, two ranks as one, other data refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Settings, adapter, complete, killed_and_resumed, small
from in_process import fit, shown_line
from safetensors.torch import load

TWO = {"strategy": "ddp", "devices": 2}


def _votes(folder: Path, tables: int = 9) -> Path:
    """Answers about tables, one to four questions each, of which some are good."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "votes.jsonl"
    rows = [
        {
            "prompt": f"profit 2019 {table}7 , 2020 {table}1 . Give profit {year} .",
            "completion": f"See profit {year} {table}7 in million." if good else "See profit.",
            "label": good,
            "table": f"table {table}",
        }
        for table in range(tables)
        for year in range(2019, 2020 + table % 4)
        for good in ((True,) if year % 3 == 0 else (True, False))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _settings(folder: Path, model: Settings | None = None, data: Settings | None = None, **trainer: Any) -> Settings:
    source = {"class_path": "UnpairedPreferenceFile", "init_args": {"path": str(_votes(folder)), "group": "table"}}
    settings = small(trainer={"max_steps": 8, **trainer}, checkpoint={"every_n_windows": 1})
    settings["model"]["class_path"] = "KTOModule"
    settings["model"]["init_args"].pop("anchor")
    settings["model"]["init_args"].update({"lora": {"rank": 4, "alpha": 8}, **(model or {})})
    settings["data"] = {
        "class_path": "UnpairedDataModule",
        "init_args": {"sources": [source], "window": 7, "token_budget": 200, **(data or {})},
    }
    return settings


@pytest.mark.slow
def test_kills_at_random_moments_leave_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    # With dropout, workers, validation and a mix that repeats: whatever a resume must keep is in use.
    file = {"class_path": "UnpairedPreferenceFile", "init_args": {"path": str(_votes(tmp_path)), "group": "table"}}
    pairs = {"class_path": "SkillPairs", "init_args": {"skills": ["rise"], "n": 8}}
    skills = {"class_path": "UnpairedPairs", "init_args": {"source": pairs}}
    mix = {"weights": {"votes.jsonl": 2, "skill_pairs": 1}, "by": "repeat", "size": 30}
    settings = _settings(
        tmp_path, {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}},
        {"sources": [file, skills], "mix": mix, "workers": 1, "val_fraction": 0.3},
        max_steps=8, val_check_interval=None, check_val_every_n_epoch=1,
    )  # fmt: skip
    expected = adapter(complete(tmp_path / "undisturbed", settings))
    assert adapter(killed_and_resumed(tmp_path / "chain", settings, 2, seed=0)) == expected


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    # Gradient descent: Adam would turn a gradient's rounding around zero into steps of full size. A beta at which the
    # reference point tells, and a rate at which it leaves 0.
    plain = {
        "loss": {"class_path": "KTOLoss", "init_args": {"beta": 0.5}},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0}},
        "schedule": {"class_path": "ConstantSchedule"},
    }
    runs = [
        complete(tmp_path / name, _settings(tmp_path, plain, log_every_n_steps=1, **trainer))
        for name, trainer in (("one", {}), ("two", TWO))
    ]
    alone, together = (load(adapter(run)["adapter_model.safetensors"]) for run in runs)
    assert max(float(tensor.abs().max()) for name, tensor in alone.items() if "lora_B" in name) > 1e-3
    assert max(float((alone[k] - together[k]).abs().max() / alone[k].abs().max()) for k in alone) < 1e-5
    metrics = [(run / "metrics.csv").read_text(encoding="utf-8").splitlines() for run in runs]
    at = metrics[0][0].split(",").index("train/kl")
    points = [float(line.split(",")[at] or 0) for line in metrics[0][1:]]
    assert max(points) > 1e-3, "at a point of 0 a rank's share of it would not be missed"


def test_pairs_of_another_data_module_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = _settings(tmp_path, max_steps=1)
    settings["data"] = {
        "class_path": "PreferenceDataModule",
        "init_args": {"sources": [{"class_path": "ScalePairs", "init_args": {"n": 8}}]},
    }
    assert fit(settings) == 2
    said = shown_line(capsys)
    assert "PreferenceDataModule holds pairs, but `model` KTOModule trains on rated answers" in said
    assert "KTOModule with UnpairedDataModule" in said


def test_a_loss_of_pairs_is_refused_for_single_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = _settings(tmp_path, {"loss": {"class_path": "SigmoidLoss"}}, max_steps=1)
    assert fit(settings) == 2
    assert "SigmoidLoss" in shown_line(capsys)

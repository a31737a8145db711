"""Preference training by the real command: killed and resumed to the same bytes, two ranks as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Settings, adapter, complete, killed_and_resumed, life, newest_checkpoint, small
from safetensors.torch import load

pytestmark = pytest.mark.slow

KILLS = 5
TWO = {"strategy": "ddp", "devices": 2}


def _pairs(folder: Path, tables: int = 9) -> Path:
    """Pairs about tables, one to four questions each."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pairs.jsonl"
    rows = [
        {
            "prompt": f"profit 2019 {table}7 , 2020 {table}1 . Give profit {year} .",
            "chosen": f"See profit {year} {table}7 in million.",
            "rejected": f"See profit {year} {table}7." if year % 2 else "See profit.",
            "table": f"table {table}",
        }
        for table in range(tables)
        for year in range(2019, 2020 + table % 4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _settings(folder: Path, model: Settings | None = None, data: Settings | None = None, **trainer: Any) -> Settings:
    source = {"class_path": "PreferenceFile", "init_args": {"path": str(_pairs(folder)), "group": "table"}}
    settings = small(trainer={"max_steps": 8, **trainer}, checkpoint={"every_n_windows": 1})
    settings["model"]["class_path"] = "DPOModule"
    settings["model"]["init_args"].pop("anchor")
    settings["model"]["init_args"].update({"lora": {"rank": 4, "alpha": 8}, **(model or {})})
    settings["data"] = {
        "class_path": "PreferenceDataModule",
        "init_args": {"sources": [source], "window": 5, "token_budget": 160, **(data or {})},
    }
    return settings


def test_kills_at_random_moments_leave_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    # With dropout, workers, validation and a mix that repeats: whatever a resume must keep is in use.
    file = {"class_path": "PreferenceFile", "init_args": {"path": str(_pairs(tmp_path)), "group": "table"}}
    skills = {"class_path": "SkillPairs", "init_args": {"skills": ["rise", "chat"], "n": 12}}
    mix = {"weights": {"pairs.jsonl": 2, "skill_pairs": 1}, "by": "repeat", "size": 30}
    settings = _settings(
        tmp_path, {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}},
        {"sources": [file, skills], "mix": mix, "workers": 1, "val_fraction": 0.3},
        max_steps=16, val_check_interval=None, check_val_every_n_epoch=1,
    )  # fmt: skip
    expected = adapter(complete(tmp_path / "undisturbed", settings))
    assert adapter(killed_and_resumed(tmp_path / "chain", settings, KILLS, seed=0)) == expected


ANCHORED: Settings = {
    "replay": [{"class_path": "TableSkills", "init_args": {"skills": ["lookup"], "n": 6, "seed": 2}}],
    "replay_share": 0.5,
}


@pytest.mark.parametrize(
    ("loss", "data", "steps"),
    # Rounding grows faster under the anchor: 2e-7 after two steps, 3e-6 after four, 2e-5 after eight.
    [("SigmoidLoss", {}, 8), ("UnpairedAOTLoss", {}, 8), ("SimPOLoss", {}, 8), ("UnpairedAOTLoss", ANCHORED, 4)],
    ids=["SigmoidLoss", "UnpairedAOTLoss", "SimPOLoss", "anchored"],
)
def test_two_ranks_train_as_one(tmp_path: Path, loss: str, data: Settings, steps: int) -> None:
    # Gradient descent: Adam would turn a gradient's rounding around zero into steps of full size.
    plain = {
        "loss": {"class_path": loss},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.3}},
        "schedule": {"class_path": "ConstantSchedule"},
        **({"anchor": {"coef": 1.0, "text": "both"}} if data else {}),
    }
    runs = [
        complete(tmp_path / name, _settings(tmp_path, plain, data, max_steps=steps, **trainer))
        for name, trainer in (("one", {}), ("two", TWO))
    ]
    alone, together = (load(adapter(run)["adapter_model.safetensors"]) for run in runs)
    moved = max(float(tensor.abs().max()) for name, tensor in alone.items() if "lora_B" in name)
    assert moved > 1e-3
    assert max(float((alone[k] - together[k]).abs().max() / alone[k].abs().max()) for k in alone) < 1e-5


def test_a_resume_with_another_loss_is_refused(tmp_path: Path) -> None:
    settings = _settings(tmp_path, max_steps=1)
    complete(tmp_path / "run", settings)
    other = _settings(tmp_path, {"loss": {"class_path": "IPOLoss"}}, max_steps=1)
    with life(tmp_path / "run", other, newest_checkpoint(tmp_path / "run")) as process:
        assert process.wait() == 1
        assert "loss: SigmoidLoss(beta=0.1, label_smoothing=0.0) in the checkpoint, IPOLoss(" in process.errors

"""An anchor beside preferences, through the command: refused where it holds on to nothing, resumed to the same bits."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from in_process import fit, shown_line

LOGS = Path("lightning_logs/lit_align")
REPLAY = {
    "replay": [{"class_path": "TableSkills", "init_args": {"skills": ["lookup"], "n": 6, "seed": 2}}],
    "replay_share": 0.5,
}


def _settings(model: dict[str, Any], **data: Any) -> dict[str, Any]:
    rows = [
        {"prompt": f"Give profit {year} .", "chosen": f"{year}7 in million.", "rejected": f"{year}7."}
        for year in range(2014, 2023)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"class_path": "PreferenceFile", "init_args": {"path": "pairs.jsonl"}}
    return {
        "cpu_threads": 1,
        "model": {
            "class_path": "DPOModule",
            "init_args": {
                "weights": {"dtype": "float32"},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
                **model,
            },
        },
        "data": {
            "class_path": "PreferenceDataModule",
            "init_args": {"sources": [source], "window": 3, "token_budget": 160, **data},
        },
        "trainer": {"accelerator": "cpu", "max_steps": 5, "enable_progress_bar": False},
        "checkpoint": {"every_n_windows": 2, "keep": "all"},
    }


@pytest.mark.parametrize(
    ("anchor", "data", "says"),
    [
        ({"coef": 0.1, "text": "replayed"}, {}, "`model.anchor.text` = replayed, but nothing is replayed"),
        ({"coef": 0.1, "text": "both"}, {}, "`model.anchor.text` = both, but nothing is replayed"),
        ({"coef": 0.1, "text": "trained"}, REPLAY, "`data.replay_share` = 0.5: replayed conversations carry"),
        ({"coef": 0.0, "text": "replayed"}, REPLAY, "`model.anchor` (coef 0.0, text replayed) is not on them"),
    ],
)
def test_an_anchor_and_its_text_go_together(
    anchor: dict[str, Any], data: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(_settings({"anchor": anchor}, **data)) == 2
    assert says in shown_line(capsys)
    assert not LOGS.exists()


def _column(version: str, key: str) -> list[float]:
    with (LOGS / version / "metrics.csv").open(encoding="utf-8") as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


def test_a_run_with_replay_and_anchor_resumes_to_the_same_bits() -> None:
    anchor = {"coef": 0.5, "text": "both", "start_step": 1}
    settings = _settings({"anchor": anchor, "loss": {"class_path": "AOTLoss"}}, **REPLAY)
    assert fit(settings) == 0
    assert fit(settings, "--ckpt_path", f"{LOGS}/version_0/checkpoints/step-000002.ckpt") == 0
    one, two = (LOGS / f"version_{i}" / "adapter/adapter_model.safetensors" for i in (0, 1))
    assert one.read_bytes() == two.read_bytes()
    assert _column("version_0", "train/kl_coef") == [0.0, 0.5, 0.5, 0.5, 0.5]
    assert len(_column("version_0", "train/kl")) == 4
    assert min(_column("version_0", "train/kl")) > 0
    assert _column("version_1", "train/kl") == _column("version_0", "train/kl")[1:]

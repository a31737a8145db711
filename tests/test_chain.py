"""From SFT to DPO by the folder of its adapter, and the progressive quickstart, by the command."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import contents
from in_process import fit, shown_line
from staged_runs import weights

CONFIGS = Path(__file__).parent.parent / "configs"
SFT = Path("lightning_logs/quickstart/version_0")
DPO = Path("lightning_logs/quickstart-sft-dpo/version_0")


def _config(name: str) -> dict[str, Any]:
    """A configuration without its benchmarks, which take most of the time."""
    config: dict[str, Any] = yaml.safe_load((CONFIGS / name).read_text("utf-8"))
    config["trainer"].pop("callbacks")
    return {**config, "trainer": {**config["trainer"], "enable_progress_bar": False}}


@pytest.mark.slow
def test_dpo_starts_as_the_adapter_that_sft_has_trained(capsys: pytest.CaptureFixture[str]) -> None:
    chain = _config("chain/quickstart-sft-dpo.yaml")
    assert fit(chain) in (1, 2)
    assert f"adapter {SFT / 'adapter'}: no file adapter_config.json there" in shown_line(capsys).replace("\\", "/")

    assert fit(_config("quickstart.yaml"), "--trainer.max_steps=40") == 0
    before = contents(SFT)
    assert fit(chain, "--trainer.max_steps=4") == 0
    assert contents(SFT) == before
    lines = (DPO / "metrics.csv").read_text("utf-8").splitlines()
    rows = [row for row in csv.DictReader(lines) if row["train/loss"]]
    assert len(rows) == 4
    assert float(rows[0]["train/loss"]) == pytest.approx(math.log(2), abs=1e-6)  # it starts as its reference
    assert float(rows[0]["train/logps/chosen"]) > -30, "the reference is the bare base, to which the skill is new"
    assert weights(DPO / "adapter") != weights(SFT / "adapter")
    shapes = [json.loads((run / "adapter" / "adapter_config.json").read_text("utf-8")) for run in (SFT, DPO)]
    assert all(shapes[0][key] == shapes[1][key] for key in ("r", "lora_alpha"))
    assert sorted(shapes[0]["target_modules"]) == sorted(shapes[1]["target_modules"])


@pytest.mark.slow
def test_the_progressive_quickstart_goes_through_its_stages() -> None:
    config = yaml.safe_load((CONFIGS / "dpo" / "quickstart-progressive.yaml").read_text("utf-8"))
    for stage in config["data"]["init_args"]["stages"]:
        for length in ("pairs", "windows"):
            if length in stage:
                stage[length] = {"pairs": 64, "windows": 4}[length]
    for one in config["trainer"]["callbacks"][0]["init_args"]["benchmarks"]:
        one["init_args"]["source"]["init_args"]["n"] = 12
    for stage in config["trainer"]["callbacks"][1]["init_args"]["stages"]:
        for gate in stage["gates"]:
            gate["on_failure"] = "go_on"  # four windows are too few
    assert fit(config) == 0
    run = Path("lightning_logs/quickstart-progressive/version_0")
    stages = json.loads((run / "stages.json").read_text("utf-8"))["stages"]
    assert [(one["name"], one["first_window"], one["last_window"]) for one in stages] == [
        ("general", 0, 3), ("finance", 4, 7), ("social", 8, 11),
    ]  # fmt: skip
    assert stages[-1]["policy"] == ["adapter-general", "adapter-finance", "adapter-social"]
    assert [len(one["gates"]) for one in stages] == [1, 2, 3]
    phases = [json.loads(line) for line in (run / "benchmarks.jsonl").read_text("utf-8").splitlines()]
    assert {(row["phase"], row["step"]) for row in phases} == {
        ("before", 0), ("stage", 4), ("stage", 8), ("stage", 12), ("after", 12),
    }  # fmt: skip

"""``lit-align audit`` and the start of ``fit`` on one file: exit status 1 with the reason, 0 on clean data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import fit, shown_line

from lit_align.cli import main

ROOT = Path(__file__).parent.parent


def _quickstart(**data: Any) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text("utf-8"))
    config["data"]["init_args"]["sources"][0]["init_args"]["n"] = 24
    config["data"]["init_args"]["replay"][0]["init_args"]["n"] = 10
    config["data"]["init_args"].update(data)
    config["trainer"]["callbacks"] = []
    return config


def _audit(config: dict[str, Any], *words: str) -> int | str | None:
    Path("run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        return main(["audit", "-c", "run.yaml", *words])
    except SystemExit as leave:
        return leave.code


def _leaky() -> dict[str, Any]:
    """Validation that is what is trained."""
    config = _quickstart()
    source = config["data"]["init_args"]["sources"][0]
    config["data"]["init_args"]["val_sources"] = [source]
    return config


def test_clean_data_end_with_0_and_a_report_of_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert _audit(_quickstart()) == 0
    shown = capsys.readouterr()
    assert "limits hold" in shown.out.splitlines()[-1]
    assert "failed" not in shown.out
    assert str(Path("lightning_logs/audit/quickstart/audit.html")) in shown.err
    assert {path.name for path in Path("lightning_logs/audit/quickstart").iterdir()} == {"audit.json", "audit.html"}


def test_a_broken_limit_ends_with_1_its_number_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert _audit(_leaky(), "--out=report") == 1
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed")]
    assert told[0].startswith("failed `audit.max_leaked` = 0: validation: table_skills: found 1; 24 of 24 validation")
    assert "take them out of `data.val_sources`" in told[0]
    assert len(json.loads(Path("report/audit.json").read_text("utf-8"))["failed"]) == len(told) == 2


def test_a_limit_of_the_file_or_of_the_command_line_is_the_one_that_counts() -> None:
    config = {**_leaky(), "audit": {"max_leaked": 1.0}}
    assert _audit(config) == 1
    assert _audit(config, "--audit.max_near_leaked=null") == 0


def test_fit_stops_at_the_start_before_a_folder_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(_leaky(), "--trainer.max_steps=1") == 1
    line = shown_line(capsys)
    assert "`audit.max_leaked` = 0: validation: table_skills: found 1; 24 of 24 validation examples are trained" in line
    assert "`lit-align audit` with the same file shows more" in line
    assert not Path("lightning_logs").exists()


def test_fit_takes_the_limit_from_the_same_file() -> None:
    config = {**_leaky(), "audit": {"max_leaked": None}}
    assert fit(config, "--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.fast_dev_run=true") == 0


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ({"max_leaked": 2}, "`audit.max_leaked` must be in [0, 1] or null, got 2"),
        ({"max_leakd": 0}, "unknown key `audit.max_leakd` in run.yaml; did you mean `audit.max_leaked`?"),
        ({"sample": 0}, "`audit.sample` must be >= 1, got 0"),
    ],
)
@pytest.mark.parametrize("command", [_audit, fit])
def test_a_wrong_limit_is_a_mistake_in_the_arguments(
    audit: dict[str, Any], said: str, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command({**_quickstart(), "audit": audit}) == 2
    assert said in shown_line(capsys)


def test_data_of_another_objective_are_refused_as_by_fit(capsys: pytest.CaptureFixture[str]) -> None:
    config = _quickstart()
    config["model"] = {"class_path": "DPOModule", "init_args": {"base": "tiny-qwen3"}}
    assert _audit(config) == 2
    assert "holds conversations, but `model` DPOModule trains on pairs" in shown_line(capsys)


def test_the_record_of_a_run_can_be_audited() -> None:
    assert fit(_quickstart(), "--trainer.max_steps=1") == 0
    assert main(["audit", "-c", "lightning_logs/quickstart/version_0/config.yaml", "--out=report"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart.yaml", "quickstart-dpo.yaml", "dpo/quickstart-mix.yaml"])
def test_a_quickstart_holds_its_limits(name: str) -> None:
    assert main(["audit", "-c", str(ROOT / "configs" / name), "--out=report"]) == 0

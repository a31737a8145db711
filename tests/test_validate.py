"""``lit-align validate`` measures a checkpoint as the fit that wrote it did at its end."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import shown_line

from lit_align.cli import main

RUN = Path("lightning_logs/run")
LOGPS = ("logps/chosen", "logps/rejected")
CONFIG: dict[str, Any] = {
    "name": "run",
    "seed_everything": 0,
    "cpu_threads": 1,
    "model": {
        "class_path": "DPOModule",
        "init_args": {
            "weights": {"dtype": "float32"},
            "lora": {"rank": 4, "alpha": 8},
            "reference": {
                "class_path": "FrozenAdapterReference",
                "init_args": {"path": "package:lit_align/assets/tiny_qwen3_undecided"},
            },
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
        },
    },
    "data": {
        "class_path": "PreferenceDataModule",
        "init_args": {
            "sources": [{"class_path": "ScalePairs", "init_args": {"n": 24}}],
            "val_fraction": 0.3,
            "window": 4,
            "token_budget": 1024,
        },
    },
    "trainer": {
        "accelerator": "cpu",
        "max_steps": 2,
        "enable_progress_bar": False,
        "callbacks": [
            {
                "class_path": "BenchmarkEvaluation",
                "init_args": {
                    "benchmarks": [
                        {
                            "class_path": "PairAccuracyBenchmark",
                            "init_args": {
                                "source": {"class_path": "ScalePairs", "init_args": {"split": "eval", "n": 8}},
                                "val_fraction": 1.0,
                                "reference": {
                                    "class_path": "FrozenAdapterReference",
                                    "init_args": {"path": "package:lit_align/assets/tiny_qwen3_undecided"},
                                },
                            },
                        }
                    ]
                },
            }
        ],
    },
}


CONTINUED = {
    "class_path": "FrozenAdapterReference",
    "init_args": {"path": "package:lit_align/assets/tiny_qwen3_undecided", "init": "continue"},
}
AVERAGE = {"class_path": "EMAReference", "init_args": {"every_n_windows": 1, "start": CONTINUED}}


@pytest.fixture
def fitted(request: pytest.FixtureRequest) -> str:
    """Name of the configuration of a finished run, whose folder is the current one."""
    config = deepcopy(CONFIG)
    if reference := getattr(request, "param", None):
        [benchmark] = config["trainer"]["callbacks"][0]["init_args"]["benchmarks"]
        config["model"]["init_args"].update(reference=reference, lora={"rank": 8, "alpha": 16})
        benchmark["init_args"]["reference"] = reference
    Path("run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    main(["fit", "-c", "run.yaml"])
    return "run.yaml"


def _scores(version: int, phase: str) -> dict[str, dict[str, float]]:
    lines = (RUN / f"version_{version}" / "benchmarks.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["id"]: row["scores"] for row in rows if row["phase"] == phase}


@pytest.mark.parametrize("fitted", [None, CONTINUED, AVERAGE], ids=["stack", "continue", "average"], indirect=True)
def test_validate_measures_what_the_fit_measured_at_its_end(fitted: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert not main(["validate", "-c", fitted, f"--ckpt_path={RUN}/version_0/checkpoints/last.ckpt"])
    assert re.search(r"\| pairs +\| +8 \|", capsys.readouterr().out)
    measured = _scores(1, "validate")
    assert len(measured) == 8
    assert measured == _scores(0, "after")
    assert measured != _scores(0, "before")


def test_a_fit_that_was_killed_after_its_last_window_ends_as_the_whole_one(
    fitted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert not main(["fit", "-c", fitted, f"--ckpt_path={RUN}/version_0/checkpoints/last.ckpt"])
    assert "difference [95% CI]" in capsys.readouterr().out
    whole, ended = (RUN / f"version_{number}" / "adapter" / "adapter_model.safetensors" for number in (0, 1))
    assert ended.read_bytes() == whole.read_bytes()
    assert _scores(1, "before") == _scores(0, "before")
    assert _scores(1, "after") == _scores(0, "after")


def test_validate_without_validation_data_is_refused_and_not_passed_over(
    fitted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = deepcopy(CONFIG)
    config["data"]["init_args"]["val_fraction"] = 0.0
    Path(fitted).write_text(yaml.safe_dump(config), encoding="utf-8")
    capsys.readouterr()
    assert main(["validate", "-c", fitted]) == 1
    assert "`validate` needs validation data, and there are none: set `data.val_fraction`" in shown_line(capsys)


def test_an_adapter_that_belongs_on_another_one_is_not_measured_without_it(
    fitted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = deepcopy(CONFIG)
    config["model"]["init_args"]["reference"] = {"class_path": "BaseReference"}
    config["trainer"]["callbacks"] = None
    Path(fitted).write_text(yaml.safe_dump(config), encoding="utf-8")
    capsys.readouterr()
    assert main(["validate", "-c", fitted, f"--ckpt_path={RUN}/version_0/checkpoints/last.ckpt"]) == 1
    told = shown_line(capsys)
    assert re.search(r"trained on other adapters below \(\w{16}, here none\); set `model.reference` to that of", told)


def _compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by phase and item of a validation that compares."""
    capsys.readouterr()
    assert not main(["validate", *arguments])
    assert "before [95% CI]" in capsys.readouterr().out
    newest = max(RUN.glob("version_*"), key=lambda path: int(path.name.removeprefix("version_")))
    version = int(newest.name.removeprefix("version_"))
    return {phase: _scores(version, phase) for phase in ("against", "validate")}


def test_validate_compares_an_adapter_with_another_and_with_the_base(
    fitted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, folder = f"{RUN}/version_0/checkpoints/last.ckpt", f"{RUN}/version_0/adapter"
    after, before = _scores(0, "after"), _scores(0, "before")

    with_base = _compared(capsys, "-c", fitted, f"--ckpt_path={checkpoint}", "--against=base")
    of_folder = _compared(capsys, "-c", fitted, f"--ckpt_path={folder}", f"--against={checkpoint}")
    start = _compared(capsys, "-c", fitted, f"--against={folder}")

    assert with_base["validate"] == of_folder["validate"] == of_folder["against"] == start["against"] == after
    assert start["validate"] == before
    # The reference of this run is an adapter under the live one, which the bare base is without.
    assert with_base["against"] != before
    bare = deepcopy(CONFIG)
    bare["model"]["init_args"]["reference"] = {"class_path": "BaseReference"}
    [benchmark] = bare["trainer"]["callbacks"][0]["init_args"]["benchmarks"]
    del benchmark["init_args"]["reference"]
    Path("bare.yaml").write_text(yaml.safe_dump(bare), encoding="utf-8")
    assert not main(["validate", "-c", "bare.yaml"])
    fresh = _scores(4, "validate")
    assert with_base["against"].keys() == fresh.keys()
    for id_, scores in fresh.items():
        assert [scores[key] for key in LOGPS] == [with_base["against"][id_][key] for key in LOGPS]
    record = json.loads((RUN / "version_3" / "environment.json").read_text(encoding="utf-8"))
    assert record["data"] == json.loads((RUN / "version_0" / "environment.json").read_text(encoding="utf-8"))["data"]


def test_validate_opens_an_adapter_of_another_shape(fitted: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = "package:lit_align/assets/tiny_qwen3_undecided"
    config = deepcopy(CONFIG)
    config["model"]["init_args"].update(lora={"rank": 2, "alpha": 2, "target_modules": ["q_proj"]})
    Path(fitted).write_text(yaml.safe_dump(config), encoding="utf-8")
    same = _compared(capsys, "-c", fitted, f"--ckpt_path={folder}", f"--against={folder}")

    assert same["validate"] == same["against"] != _scores(0, "before")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--against=nowhere"], "adapter nowhere: no file adapter_config.json there"),
        (["--ckpt_path=."], "adapter .: no file adapter_config.json there"),
        (["--against=gone.ckpt"], "checkpoint gone.ckpt: no folder gone beside it"),
        (["--trainer.limit_val_batches=0"], "`validate` measures nothing with `trainer.limit_val_batches` = 0"),
        (["--against=base", "--trainer.callbacks=null"], "`trainer.callbacks` has no BenchmarkEvaluation"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_data_are_read(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    try:
        status = main(["validate", "-c", "run.yaml", *arguments])
    except SystemExit as error:
        status = int(str(error.code))
    shown = capsys.readouterr()
    assert status
    assert told in shown.err
    assert "reading preference pairs" not in shown.err
    assert not RUN.exists()

"""The guard acts once a crossing, from a full span of windows on, and a resumed one as an unbroken one."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from in_process import fit, shown_line
from safetensors.torch import load_file

from lit_align.callbacks import displacement_guard
from lit_align.callbacks.displacement_guard import DisplacementGuard
from lit_align.losses.preference import SigmoidLoss, SimPOLoss

KEY = "train/displacement/chosen"


def watch(guard: DisplacementGuard, shares: Sequence[float], start: int = 0) -> list[bool]:
    """Show a guard the shares of windows; whether it asked to stop after each."""
    asked = []
    for step, share in enumerate(shares, start=start + 1):
        trainer: Any = SimpleNamespace(callback_metrics={KEY: torch.tensor(share)}, should_stop=False, global_step=step)
        guard.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
        asked.append(trainer.should_stop)
    return asked


SHARES = [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.5, 1.0, 1.0]  # means of two: 0.5 0.5 1 1 0.5 0 0.25 0.75 1


def test_it_warns_once_a_crossing_and_says_what_helps(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", displacement_guard.logger.name)
    assert watch(DisplacementGuard(0.5, over_windows=2), SHARES) == [False] * 10
    assert [message.split(":")[0] for message in caplog.messages] == ["step 4", "step 9"]
    assert "100% of the pairs" in caplog.messages[0]
    assert "75% of the pairs" in caplog.messages[1]
    assert all(word in caplog.messages[0] for word in ("RPOLoss", "DPOPLoss", "model.anchor.coef", "learning rate"))


def test_it_waits_for_a_full_span_of_windows() -> None:
    guard = DisplacementGuard(0.5, over_windows=4, action="stop")
    assert watch(guard, [1.0] * 5) == [False, False, False, True, False]
    assert guard.stopped.startswith("stopped at step 4: over the last 4 windows")


def test_a_window_before_the_first_good_answer_is_not_counted() -> None:
    guard = DisplacementGuard(0.5, over_windows=2, action="stop")
    trainer: Any = SimpleNamespace(callback_metrics={}, should_stop=False, global_step=1)
    guard.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
    assert watch(guard, [1.0, 1.0], start=1) == [False, True]


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_resumed_guard_acts_as_an_unbroken_one(cut: int) -> None:
    options: dict[str, Any] = {"max_share": 0.5, "over_windows": 3, "action": "stop"}
    whole = watch(DisplacementGuard(**options), SHARES)
    assert any(whole)
    first, second = DisplacementGuard(**options), DisplacementGuard(**options)
    before = watch(first, SHARES[:cut])
    second.load_state_dict(first.state_dict())
    assert before + watch(second, SHARES[cut:], start=cut) == whole


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_share": 1.0}, r"max_share must be in \[0, 1\), got 1.0"),
        ({"max_share": float("nan")}, r"max_share must be in \[0, 1\), got nan"),
        ({"over_windows": 0}, "over_windows must be at least 1, got 0"),
        ({"action": "halt"}, "action must be warn or stop, got halt"),
    ],
)
def test_values_outside_their_range_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DisplacementGuard(**options)


@pytest.mark.parametrize(("module", "named"), [({"loss": SimPOLoss()}, "SimPOLoss has none"), ({}, "SimpleNamespace")])
def test_a_module_that_compares_with_no_reference_is_refused(module: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DisplacementGuard().setup(None, SimpleNamespace(**module), "fit")  # type: ignore[arg-type]
    DisplacementGuard().setup(None, SimpleNamespace(**module), "validate")  # type: ignore[arg-type]
    DisplacementGuard().setup(None, SimpleNamespace(loss=SigmoidLoss()), "fit")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ the command

RUN = Path("lightning_logs/lit_align/version_0")


def _settings(guard: dict[str, Any], loss: str = "SigmoidLoss") -> dict[str, Any]:
    # The answers of a pair begin alike and the rejected one is short: a high rate soon makes both less likely.
    rows = [
        {"prompt": f"Give profit {year} .", "chosen": f"{year}7 in million.", "rejected": f"{year}7."}
        for year in range(2015, 2023)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"class_path": "PreferenceFile", "init_args": {"path": "pairs.jsonl"}}
    item = {"class_path": "TableSkillItems", "init_args": {"skills": ["rise"], "n_per_skill": 2}}
    exact = {
        "class_path": "ExactMatchBenchmark",
        "init_args": {"name": "rise", "items": item, "generation": {"max_new_tokens": 2}},
    }
    return {
        "cpu_threads": 1,
        "model": {
            "class_path": "DPOModule",
            "init_args": {
                "weights": {"dtype": "float32"},
                "loss": {"class_path": loss},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 30.0}},
                "schedule": {"class_path": "ConstantSchedule"},
                "max_grad_norm": 0.0,
            },
        },
        "data": {"class_path": "PreferenceDataModule", "init_args": {"sources": [source], "window": 4}},
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 12,
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "DisplacementGuard", "init_args": guard},
                {"class_path": "BenchmarkEvaluation", "init_args": {"benchmarks": [exact]}},
            ],
        },
    }


def _shares(run: Path) -> list[float]:
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return [float(row[KEY]) for row in csv.DictReader(file) if row[KEY]]


def test_a_stop_ends_the_run_in_good_order_and_a_resume_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    settings = _settings({"max_share": 0.0, "over_windows": 2, "action": "stop"})
    assert fit(settings) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    shares = _shares(RUN)
    assert len(shares) < 12
    assert sum(shares[-2:]) > 0 == sum(shares[:-2])
    assert lines[-1].startswith(f"stopped at step {len(shares)}: over the last 2 windows")
    assert "RPOLoss" in lines[-1]
    saved = torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == len(shares)
    adapter = load_file(RUN / "adapter" / "adapter_model.safetensors")
    beside = load_file(RUN / "checkpoints" / "last" / "adapter_model.safetensors")
    assert all(torch.equal(adapter[name], beside[name]) for name in adapter)
    phases = [json.loads(line)["phase"] for line in (RUN / "benchmarks.jsonl").read_text("utf-8").splitlines()]
    assert phases == ["before"] * 2 + ["after"] * 2
    assert fit(settings, "--ckpt_path", f"{RUN}/checkpoints/last.ckpt") == 0
    assert len(_shares(RUN.with_name("version_1"))) > 1


def test_a_loss_without_reference_is_refused_before_weights_are_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(_settings({}, "SimPOLoss")) == 1
    told = capsys.readouterr().err
    assert "DisplacementGuard watches `train/displacement/chosen`" in told
    assert "loading" not in told


def test_a_value_outside_its_range_is_a_mistake_in_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(_settings({"max_share": 2.0})) == 2
    assert "max_share must be in [0, 1), got 2.0" in shown_line(capsys)

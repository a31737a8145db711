from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lit_align.callbacks.benchmark import BenchmarkEvaluation
from lit_align.callbacks.early_stopping import MTBenchEarlyStopping
from lit_align.evals.benchmark import Benchmark, Bounds, ItemResult


class Walker(pl.LightningModule):
    """A policy whose one weight is the number of steps that it was trained."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.policy.weight)
        self.policy.causal_lm = SimpleNamespace()  # type: ignore[assignment]
        self.policy.adapter_parameters = lambda: {"w": self.policy.weight}  # type: ignore[assignment]

    @property
    def steps(self) -> int:
        return round(float(self.policy.weight.detach()))

    def training_step(self, batch: Any) -> torch.Tensor:
        return -self.policy.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Steps(pl.LightningDataModule):
    chat = object()

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(range(100), batch_size=1)


@dataclass(frozen=True)
class Scripted(Benchmark):
    """Scores of four questions as a script has them for the number of steps that the policy was trained."""

    measures: ClassVar[Mapping[str, Bounds]] = {"score": (1.0, 10.0), "length": (0.0, float("inf"))}

    script: Sequence[float | tuple[float, ...]]
    name: str = "mt-bench"
    cap: int = 512
    ask: str = "question"

    def conditions(self) -> dict[str, str | int]:
        return {"n": 4, "max_new_tokens": self.cap}

    def run(self, policy: Any, chat: Any, *, progress: str | None = None) -> list[ItemResult]:
        said = self.script[min(round(float(policy.weight.detach())), len(self.script) - 1)]
        scores = said if isinstance(said, tuple) else (said - 0.3, said - 0.1, said + 0.1, said + 0.3)
        return [
            ItemResult(str(i), str(i), "all", f"{self.ask} {i}", "", "", {"score": one, "length": -i + 9.0}, False, 1)
            for i, one in enumerate(scores)
        ]


def fit(
    folder: Path, callbacks: list[Any], max_steps: int = 20, ckpt_path: Path | None = None
) -> tuple[Walker, pl.Trainer]:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        logger=CSVLogger(folder, name="run"),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=callbacks,
    )
    module = Walker()
    trainer.fit(module, Steps(), ckpt_path=ckpt_path, weights_only=True)
    return module, trainer


def stopping(script: Sequence[float | tuple[float, ...]], **options: Any) -> MTBenchEarlyStopping:
    return MTBenchEarlyStopping(Scripted(script), **{"every_n_windows": 1, "patience": 2, **options})


def test_stops_once_patience_is_out_and_restores_the_best_adapter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = stopping([5.0, 5.2, 5.6, 5.62, 5.5, 9.0])
    with caplog.at_level(logging.INFO):
        module, trainer = fit(tmp_path, [callback])

    assert trainer.global_step == 4
    assert module.steps == 2, "a gain of 0.02 is none"
    assert callback.stopped == (
        "stopped at step 4: score of mt-bench gained no 0.05 over 5.6 of step 2 in 2 measurements"
    )
    assert "mt-bench (selected): score 5 at the start, 5.6 at step 2, whose adapter is kept" in caplog.text
    assert "on the 4 prompts that chose it" in caplog.text


def test_a_gain_starts_patience_anew(tmp_path: Path) -> None:
    module, trainer = fit(tmp_path, [stopping([5.0, 5.0, 5.1, 5.1, 5.2, 5.2, 5.2])])

    assert (trainer.global_step, module.steps) == (6, 4)


def test_a_deep_fall_below_the_start_stops_at_once(tmp_path: Path) -> None:
    callback = stopping([5.0, 5.5, 4.69], patience=9)
    module, trainer = fit(tmp_path, [callback])

    assert (trainer.global_step, module.steps) == (2, 1)
    assert callback.stopped == "stopped at step 2: score of mt-bench is 4.69, more than 0.3 below 5 at the start"


def test_where_nothing_gains_the_start_is_kept(tmp_path: Path) -> None:
    module, trainer = fit(tmp_path, [stopping([5.0, 4.9, 4.9])])

    assert (trainer.global_step, module.steps) == (2, 0)


def test_the_last_policy_is_measured_and_may_be_the_best(tmp_path: Path) -> None:
    callback = stopping([5.0, 2.0, 5.1, 2.0, 2.0, 5.5], every_n_windows=2, patience=9, max_drop=9.0)
    module, _ = fit(tmp_path, [callback], max_steps=5)

    assert (module.steps, callback.stopped) == (5, "")


def test_a_run_that_ends_by_itself_is_not_told_to_have_been_stopped(tmp_path: Path) -> None:
    callback = stopping([5.0, 5.2, 5.1, 5.1, 5.0], every_n_windows=2, patience=1)
    _, trainer = fit(tmp_path, [callback], max_steps=3)

    assert (trainer.global_step, list(callback.state_dict()["means"])) == (3, [0, 2, 3])
    assert callback.stopped == ""


def test_with_significance_a_gain_must_clear_its_interval(tmp_path: Path) -> None:
    start, doubtful, clear = (5.0, 5.0, 5.0, 5.0), (7.0, 5.0, 4.0, 5.0), (5.3, 5.3, 5.2, 5.2)
    without, _ = fit(tmp_path, [stopping([start, doubtful, clear, start, start, start])])
    callback = stopping([start, doubtful, clear, start, start, start], significance=0.05)
    with_it, _ = fit(tmp_path, [callback])

    assert (without.steps, with_it.steps) == (1, 2)
    assert "gained no 0.05 beyond doubt over" in callback.stopped


def test_any_of_the_measures_may_decide(tmp_path: Path) -> None:
    module, _ = fit(tmp_path, [stopping([5.0, 6.0, 7.0], measure="length")])

    assert module.steps == 0, "the length never changes"
    with pytest.raises(ValueError, match="measure 'reward' is none of benchmark 'mt-bench', which has: score, length"):
        stopping([5.0], measure="reward")


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 6])
def test_a_run_that_is_cut_and_resumed_decides_the_same(tmp_path: Path, cut: int) -> None:
    script = [5.0, 5.3, 5.2, 5.6, 5.4, 5.5, 5.5, 9.0]
    whole, _ = fit(tmp_path, [one := stopping(script, patience=3)])
    _, first = fit(tmp_path, [stopping(script, patience=3), Saves(cut, tmp_path / "cut.ckpt")])
    torch.load(tmp_path / "cut.ckpt", weights_only=True)
    resumed, trainer = fit(tmp_path, [two := stopping(script, patience=3)], ckpt_path=tmp_path / "cut.ckpt")

    assert (one.stopped, whole.steps) == (two.stopped, resumed.steps)
    assert trainer.global_step == first.global_step == 6
    assert one.state_dict()["means"] == two.state_dict()["means"]


class Saves(pl.Callback):
    """Saves a checkpoint after a window, as ours does: after the other callbacks."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (stopping([5.0], patience=7), "patience was 2 in the run and is now 7, so it would decide otherwise"),
        (
            MTBenchEarlyStopping(replace(Scripted([5.0]), cap=256), every_n_windows=1, patience=2),
            "max_new_tokens of benchmark 'mt-bench' was 512 in the run and is now 256",
        ),
    ],
)
def test_a_resume_that_would_decide_otherwise_is_refused(
    tmp_path: Path, changed: MTBenchEarlyStopping, message: str
) -> None:
    fit(tmp_path, [stopping([5.0]), Saves(1, tmp_path / "cut.ckpt")], max_steps=1)

    with pytest.raises(ValueError, match=message):
        fit(tmp_path, [changed], ckpt_path=tmp_path / "cut.ckpt")


def test_the_table_tells_the_questions_that_chose_from_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = [5.0, 5.5, 5.0, 5.0]
    rest = Scripted([4.0, 4.5, 4.0, 4.0], name="mt-bench, the rest", ask="another question")
    again = Scripted(script, name="mt-bench again")
    fit(tmp_path, [stopping(script), BenchmarkEvaluation([rest, again])])

    printed = capsys.readouterr().out
    assert "| mt-bench, the rest " in printed
    assert "| mt-bench again (selected) " in printed
    assert "+0.500" in printed, "the best adapter is what the table reports"


def test_the_table_is_not_made_before_the_best_adapter_is_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must come before BenchmarkEvaluation in `trainer.callbacks`: swap the two"):
        fit(tmp_path, [BenchmarkEvaluation([Scripted([5.0])]), stopping([5.0])])


@pytest.mark.parametrize(
    "options",
    [{"every_n_windows": 0}, {"patience": 0}, {"min_gain": -0.1}, {"max_drop": 0.0}, {"significance": 1.0}],
)
def test_unusable_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"MTBenchEarlyStopping: {next(iter(options))} must be"):
        stopping([5.0], **options)

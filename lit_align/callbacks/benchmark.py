"""Benchmarks before the first step and after the last one, and the table that compares them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from lit_align.data.chat import ChatFormat
from lit_align.evals.benchmark import Benchmark, ItemResult, check_scores
from lit_align.evals.generate import preserved_rng
from lit_align.evals.report import comparison_table, means, score_table
from lit_align.models.policy import Policy

Phase = Literal["before", "after", "validate"]

_SAMPLES = 5  # texts a phase and benchmark in TensorBoard; benchmarks.jsonl has all of them


class BenchmarkEvaluation(pl.Callback):
    """Run benchmarks before and after training, on the same items under the same settings, and compare.

    The first measurement is of the policy that training starts from, before the first step; the second one of the
    policy at the end of a completed fit, and is followed by a table with paired intervals. An interrupted fit has no
    second measurement and no table. Checkpoints hold the first measurement, so that a resumed fit compares with the
    start of the run, not with the policy that it resumes from. ``trainer.validate`` measures once.

    Training is bit for bit the same with and without this callback. Global rank 0 measures, the other ranks wait,
    so the timeout of the process group must exceed the time that the benchmarks take.

    The folder of the run receives ``benchmarks.jsonl`` (a line an item and phase) and ``benchmarks.md`` (the table);
    loggers receive ``val/benchmark/<name>`` and ``val/benchmark/<name>/<skill>`` (with the measure after the name where
    a benchmark has several), TensorBoard a few answers too.

    Note:
        A callback that changes the weights when training ends, such as one that restores the best ones, must come
        before this one in the list of callbacks.

    Args:
        benchmarks: What to run; names are unique.

    Raises:
        ValueError: No benchmark, or two of one name; at the start: a benchmark has items that training sees; at the
            start of a resumed fit: the benchmarks are not those of the checkpoint.
        TypeError: The module has no ``policy`` or the data module no ``chat`` (at the start of fit or validate).

    Example:
        >>> BenchmarkEvaluation(benchmarks=[])
        Traceback (most recent call last):
        ValueError: BenchmarkEvaluation: benchmarks must not be empty
    """

    def __init__(self, benchmarks: list[Benchmark]) -> None:
        names = [benchmark.name for benchmark in benchmarks]
        if not names:
            raise ValueError("BenchmarkEvaluation: benchmarks must not be empty")
        if len(set(names)) < len(names):
            raise ValueError(f"BenchmarkEvaluation: names of benchmarks must be unique, got {names}")
        self.benchmarks = benchmarks
        self._measures = {benchmark.name: benchmark.measures for benchmark in benchmarks}
        self._baseline: dict[str, list[ItemResult]] | None = None
        self._baseline_step = 0
        self._baseline_conditions: dict[str, dict[str, str | int]] = {}
        self._table: str | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the policy that the run starts from, or take over the measurement of the run that is resumed."""
        self._refuse_trained_items(trainer)
        if trainer.global_step > 0:
            self._check_resumed(trainer)
            # Every rank takes this way, since `_record` talks to the others; the results are those of rank 0.
            self._record(trainer, "before", self._baseline_step, self._baseline or {}, restored=True)
            return
        results = self._measure(trainer, "before")
        if trainer.is_global_zero:
            self._baseline = results
            self._baseline_step = trainer.global_step
            self._baseline_conditions = {benchmark.name: benchmark.conditions() for benchmark in self.benchmarks}
        self._record(trainer, "before", trainer.global_step, results)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the trained policy; Lightning calls this only if training was not interrupted."""
        # Not on_fit_end: the strategy has moved the model back to the CPU by then.
        results = self._measure(trainer, "after")
        self._record(trainer, "after", trainer.global_step, results)
        if trainer.is_global_zero and self._baseline is not None:
            self._table = comparison_table(self._baseline, results, self._measures)
        self._write_table(trainer)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure once in ``trainer.validate``; the validation loop inside of a fit is none of our concern."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        self._refuse_trained_items(trainer)
        results = self._measure(trainer, "validate")
        self._record(trainer, "validate", trainer.global_step, results)
        if trainer.is_global_zero:
            self._table = score_table(results, self._measures)
        self._write_table(trainer)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Print the table, now that the progress bar is closed."""
        if self._table is not None:
            print(f"\n{self._table}", flush=True)  # noqa: T201 - the result that the run was made for
            self._table = None

    @override
    def state_dict(self) -> dict[str, Any]:
        """The first measurement, in plain Python types that ``weights_only=True`` loads."""
        if self._baseline is None:
            return {}
        results = {name: [asdict(item) for item in items] for name, items in self._baseline.items()}
        return {"baseline": results, "step": self._baseline_step, "conditions": self._baseline_conditions}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the first measurement of the run that is resumed."""
        self._baseline = {
            name: [ItemResult(**item) for item in items] for name, items in state_dict["baseline"].items()
        }
        self._baseline_step = state_dict["step"]
        self._baseline_conditions = state_dict["conditions"]

    def _refuse_trained_items(self, trainer: pl.Trainer) -> None:
        """Refuse items of groups that are on the training side of the data's split."""
        data = getattr(trainer, "datamodule", None)
        trained: frozenset[str] = getattr(data, "trained_groups", frozenset())
        for benchmark in self.benchmarks:
            if both := sorted(trained & benchmark.groups()):
                split = ", ".join(f"`{key}` = {getattr(data, key, None)}" for key in ("val_fraction", "split_seed"))
                raise ValueError(
                    f"benchmark {benchmark.name!r}: training sees {len(both)} of its groups, such as {both[0]!r}; "
                    f"give it the split of the data ({split}), or other items"
                )

    def _check_resumed(self, trainer: pl.Trainer) -> None:
        """Refuse to compare with a baseline that was measured otherwise, or was not measured."""
        if not trainer.is_global_zero:
            return
        where = f"BenchmarkEvaluation: this run resumes at step {trainer.global_step}"
        if self._baseline is None:
            raise ValueError(
                f"{where}, and the checkpoint holds no baseline; the policy before the first step can no longer be "
                "measured. Remove the callback, or start a new run from the weights"
            )
        now = {benchmark.name: benchmark.conditions() for benchmark in self.benchmarks}
        if now.keys() != self._baseline_conditions.keys():
            raise ValueError(f"{where} with benchmarks {sorted(self._baseline_conditions)}, but has {sorted(now)}")
        for name, conditions in now.items():
            saved = self._baseline_conditions[name]
            for key in saved.keys() | conditions.keys():
                if saved.get(key) != conditions.get(key):
                    raise ValueError(
                        f"{where}; {key} of benchmark {name!r} was {saved.get(key)!r} in the run and is now "
                        f"{conditions.get(key)!r}, so before and after could not be compared"
                    )

    def _measure(self, trainer: pl.Trainer, phase: Phase) -> dict[str, list[ItemResult]]:
        """Results by benchmark on global rank 0, nothing on the others."""
        policy, chat = _policy(trainer), _chat(trainer)
        results: dict[str, list[ItemResult]] = {}
        if trainer.is_global_zero:
            shows_progress = trainer.progress_bar_callback is not None
            # Lightning runs callbacks outside of the precision plugin's context: bf16-mixed would generate in fp32.
            with preserved_rng(), trainer.precision_plugin.forward_context():
                for benchmark in self.benchmarks:
                    label = f"{benchmark.name} ({phase})" if shows_progress else None
                    results[benchmark.name] = benchmark.run(policy, chat, progress=label)
                    check_scores(benchmark, results[benchmark.name])
        trainer.strategy.barrier(f"benchmarks {phase}")
        return results

    def _record(
        self,
        trainer: pl.Trainer,
        phase: Phase,
        step: int,
        results: Mapping[str, Sequence[ItemResult]],
        *,
        restored: bool = False,
    ) -> None:
        """Write and log one measurement."""
        folder = _folder(trainer)
        if folder is None or not trainer.is_global_zero:
            return
        path = folder / "benchmarks.jsonl"
        if restored and path.exists():
            return  # resumed in the same folder: the lines are there
        _append(path, [_line(name, phase, step, item) for name, items in results.items() for item in items])
        scalars = {f"val/benchmark/{key}": value for key, value in means(results).items()}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=step)
            add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
            if callable(add_text):
                for name, items in results.items():
                    add_text(f"benchmark/{name}/{phase}", _samples(items), step)

    def _write_table(self, trainer: pl.Trainer) -> None:
        folder = _folder(trainer)
        if folder is not None and self._table is not None:
            (folder / "benchmarks.md").write_text(self._table + "\n", encoding="utf-8")


def _policy(trainer: pl.Trainer) -> Policy:
    policy = getattr(trainer.lightning_module, "policy", None)
    if not hasattr(policy, "causal_lm"):
        raise TypeError(
            f"BenchmarkEvaluation needs a LightningModule with `policy.causal_lm`; {type(trainer.lightning_module)} "
            "has none"
        )
    return cast("Policy", policy)


def _chat(trainer: pl.Trainer) -> ChatFormat:
    # `trainer.datamodule` exists only after a fit or validate with a data module.
    chat = getattr(getattr(trainer, "datamodule", None), "chat", None)
    if chat is None:
        raise TypeError("BenchmarkEvaluation needs a LightningDataModule with `chat`, which renders the prompts")
    return cast("ChatFormat", chat)


def _folder(trainer: pl.Trainer) -> Path | None:
    """The folder of the run; ``None`` in a `fast_dev_run`, which leaves nothing behind. Call it on all ranks."""
    if getattr(trainer, "fast_dev_run", False):  # set by Lightning, but not declared
        return None
    log_dir = trainer.log_dir
    return None if log_dir is None else Path(log_dir)


def _line(name: str, phase: Phase, step: int, item: ItemResult) -> str:
    return json.dumps({"benchmark": name, "phase": phase, "step": step, **asdict(item)}, ensure_ascii=False) + "\n"


def _append(path: Path, lines: Sequence[str]) -> None:
    """Append whole lines at once, and have them on disk before training goes on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))
        file.flush()
        os.fsync(file.fileno())


def _samples(items: Sequence[ItemResult]) -> str:
    """The first items as Markdown, as code so that the texts' own markup shows as written."""
    blocks = []
    for item in items[:_SAMPLES]:
        scores = ", ".join(f"{measure} {score:g}" for measure, score in item.scores.items())
        text = f"{item.prompt}\n--- answer ({scores}; gold {item.gold!r})\n{item.answer}"
        blocks.append(f"{item.id}\n\n" + "\n".join(f"    {line}" for line in text.splitlines()))
    return "\n\n".join(blocks)

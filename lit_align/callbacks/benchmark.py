"""Benchmarks before, during and after training, and the table that compares the ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from lit_align.callbacks.measurement import (
    Conditions,
    Phase,
    conditions,
    data_of,
    measure,
    policy_of,
    record,
    refuse_other_conditions,
    refuse_trained_items,
    run_folder,
)
from lit_align.evals.benchmark import Benchmark, Bounds, ItemResult
from lit_align.evals.curves import curves
from lit_align.evals.report import comparison_table, score_table
from lit_align.evals.win_table import win_table
from lit_align.models.adapter_switch import AdapterSwitch

Results = dict[str, list[ItemResult]]
_Trained = Sequence[tuple[Tensor, int]]  # parameters, each with how often it was changed in place


class BenchmarkEvaluation(pl.Callback):
    """Run benchmarks before, during and after training, on the same items under the same settings, and compare.

    The first measurement is of the policy that training starts from, before the first step; its answers are kept, and
    every later measurement is compared with them. The last one is of the policy at the end of a completed fit, and is
    followed by a table with paired intervals. An interrupted fit has no last measurement and no table. Checkpoints hold
    the first measurement, so that a resumed fit compares with the start of the run, not with the policy that it resumes
    from. ``trainer.validate`` measures once, or twice where it is given something to compare ``against``.

    Training is bit for bit the same with and without this callback. All ranks measure, each its share.

    The folder of the run receives ``benchmarks.jsonl`` (a line an item and phase) and ``benchmarks.md`` (the table);
    loggers receive means, intervals and paired differences (:func:`~lit_align.evals.curves.curves`), TensorBoard a few
    answers too. Items whose prompts have chosen the checkpoint, see
    :class:`~lit_align.callbacks.early_stopping.MTBenchEarlyStopping`, are marked ``selected`` in the table.

    Args:
        benchmarks: What to run; names are unique.
        every_n_windows: Measure after each so many windows too, >= 0; 0 does not.
        on_validation: Measure after each run over the validation data too.

    Attributes:
        baseline: The first measurement, by benchmark; None before it.
        against: What ``validate`` compares with, an adapter or the bare base; None for nothing.

    Raises:
        ValueError: No benchmark, two of one name, or ``every_n_windows`` below 0; at the start: a benchmark has items
            that training sees; at the start of a resumed fit: the benchmarks are not those of the checkpoint.
        ImportError: At the start: a benchmark needs a package that is not there.
        TypeError: The module has no ``policy`` or the data module no ``chat`` (at the start of fit or validate).

    Example:
        >>> BenchmarkEvaluation(benchmarks=[])
        Traceback (most recent call last):
        ValueError: BenchmarkEvaluation: benchmarks must not be empty
    """

    def __init__(self, benchmarks: list[Benchmark], every_n_windows: int = 0, on_validation: bool = False) -> None:
        names = [benchmark.name for benchmark in benchmarks]
        if not names:
            raise ValueError("BenchmarkEvaluation: benchmarks must not be empty")
        if len(set(names)) < len(names):
            raise ValueError(f"BenchmarkEvaluation: names of benchmarks must be unique, got {names}")
        if every_n_windows < 0:
            raise ValueError(f"BenchmarkEvaluation: every_n_windows must be >= 0, got {every_n_windows}")
        self.benchmarks = benchmarks
        self.every_n_windows, self.on_validation = every_n_windows, on_validation
        self.against: AdapterSwitch | None = None
        self._measures = {benchmark.name: benchmark.measures for benchmark in benchmarks}
        self.baseline: Results | None = None
        self._baseline_step = 0
        self._baseline_conditions: Conditions = {}
        self._latest: tuple[int, _Trained, Results] | None = None
        self._table: str | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the policy that the run starts from, or take over the measurement of the run that is resumed."""
        refuse_trained_items(data_of(trainer), self.benchmarks)
        if trainer.global_step > 0:
            self._check_resumed(trainer)
            folder = run_folder(trainer)
            written = folder is not None and (folder / "benchmarks.jsonl").exists()  # resumed in the same folder
            # As rank 0 finds it: it may write the file before another rank looks, and recording takes all ranks.
            if not trainer.strategy.broadcast(written):
                self._record(trainer, "before", self._baseline_step, self.baseline or {})
            return
        self.baseline = self.measured(trainer, "before")
        self._baseline_step = trainer.global_step
        self._baseline_conditions = conditions(self.benchmarks)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure if it is time; the last window is measured when training has ended."""
        if self.every_n_windows and trainer.global_step % self.every_n_windows == 0:
            self.measured(trainer, "during")

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse in ``trainer.validate`` what cannot be measured, before the validation data take their time."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            refuse_trained_items(data_of(trainer), self.benchmarks)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure inside of a fit if it is asked for, and in ``trainer.validate``."""
        if trainer.state.fn == TrainerFn.FITTING and self.on_validation and not trainer.sanity_checking:
            self.measured(trainer, "during")
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        earlier: Results | None = None
        if self.against is not None:
            with self.against.active(policy_of(trainer)):
                earlier = measure(trainer, self.benchmarks, "against")
            self._record(trainer, "against", trainer.global_step, earlier)
        results = measure(trainer, self.benchmarks, "validate")
        self._record(trainer, "validate", trainer.global_step, results)
        self._make_table(trainer, earlier, results)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the trained policy; Lightning calls this only if training was not interrupted."""
        # Not on_fit_end: the strategy has moved the model back to the CPU by then.
        results = self.measured(trainer, "after")
        if self.baseline is not None:
            self._make_table(trainer, self.baseline, results)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Print the table, now that the progress bar is closed."""
        if self._table is not None:
            print(f"\n{self._table}", flush=True)  # noqa: T201 - the result that the run was made for
            self._table = None

    @override
    def state_dict(self) -> dict[str, Any]:
        """The first measurement, in plain Python types that ``weights_only=True`` loads."""
        if self.baseline is None:
            return {}
        results = {name: [asdict(item) for item in items] for name, items in self.baseline.items()}
        return {"baseline": results, "step": self._baseline_step, "conditions": self._baseline_conditions}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the first measurement of the run that is resumed."""
        self.baseline = {name: [ItemResult(**item) for item in items] for name, items in state_dict["baseline"].items()}
        self._baseline_step = state_dict["step"]
        self._baseline_conditions = state_dict["conditions"]

    def _check_resumed(self, trainer: pl.Trainer) -> None:
        """Refuse to compare with a baseline that was measured otherwise, or was not measured."""
        where = f"BenchmarkEvaluation: this run resumes at step {trainer.global_step}"
        if self.baseline is None:
            raise ValueError(
                f"{where}, and the checkpoint holds no baseline; the policy before the first step can no longer be "
                "measured. Remove the callback, or start a new run from the weights"
            )
        refuse_other_conditions(where, self._baseline_conditions, conditions(self.benchmarks))

    def measured(self, trainer: pl.Trainer, phase: Phase) -> Results:
        """Measure and record, or record once more what the policy as it is was measured to be.

        Args:
            trainer: Of the run; call it on all ranks.
            phase: Names the measurement.

        Returns:
            Results by benchmark, on every rank.
        """
        # A change of a tensor in place counts its version up: another callback may have restored other weights.
        trained = [(one, one._version) for one in trainer.lightning_module.parameters() if one.requires_grad]
        if self._latest is None or not _is_same(self._latest, trainer.global_step, trained):
            self._latest = trainer.global_step, trained, measure(trainer, self.benchmarks, phase)
        elif phase == "during":
            return self._latest[2]
        self._record(trainer, phase, trainer.global_step, self._latest[2])
        return self._latest[2]

    def _record(self, trainer: pl.Trainer, phase: Phase, step: int, results: Results) -> None:
        # The curves are of one policy, and begin with the baseline itself.
        later = self.baseline if phase in ("during", "stage", "after") else None
        scalars = {} if phase == "against" else curves(results, self._measures, later)
        record(trainer, phase, step, results, scalars)

    def _make_table(self, trainer: pl.Trainer, earlier: Results | None, results: Results) -> None:
        """The table, for the end of the run and for its folder; on rank 0."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        marked = {name: self._marked(trainer, name, items) for name, items in results.items()}

        def shown(by_name: Mapping[str, Any]) -> dict[str, Any]:
            return {marked[name]: value for name, value in by_name.items()}

        measures: Mapping[str, Mapping[str, Bounds]] = shown(self._measures)
        if earlier is None:
            self._table = score_table(shown(results), measures)
        else:
            self._table = comparison_table(shown(earlier), shown(results), measures)
            wins = {one.name: one.won_by for one in self.benchmarks if one.won_by}
            if wins:
                self._table += f"\n\n{win_table(shown(earlier), shown(results), shown(wins))}"
        if folder is not None:
            (folder / "benchmarks.md").write_text(self._table + "\n", encoding="utf-8")

    @staticmethod
    def _marked(trainer: pl.Trainer, name: str, items: list[ItemResult]) -> str:
        """The name of a benchmark in the table, which tells whether one of its items chose the checkpoint."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        chose = {prompt for one in callbacks for prompt in getattr(one, "selected_prompts", ())}
        return f"{name} (selected)" if any(item.prompt in chose for item in items) else name


def _is_same(latest: tuple[int, _Trained, Results], step: int, trained: _Trained) -> bool:
    """Whether the policy is the one that was measured: the same tensors, none of them changed since."""
    return (latest[0], len(latest[1])) == (step, len(trained)) and all(
        one is other and version == later for (one, version), (other, later) in zip(latest[1], trained, strict=True)
    )

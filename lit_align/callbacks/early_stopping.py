"""Stop when a benchmark no longer gains, and keep the best adapter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from lit_align.callbacks.benchmark import BenchmarkEvaluation
from lit_align.callbacks.measurement import (
    Conditions,
    conditions,
    data_of,
    measure,
    policy_of,
    record,
    refuse_other_conditions,
    refuse_trained_items,
)
from lit_align.evals.benchmark import Benchmark, ItemResult
from lit_align.metrics.statistics import is_better

logger = logging.getLogger(__name__)


class MTBenchEarlyStopping(pl.Callback):
    """Measure a benchmark such as MT-Bench now and then, stop when it no longer gains, and restore the best adapter.

    The policy at the start is the first best one. A later measurement takes its place when its mean is larger by more
    than ``min_gain`` and, with ``significance``, when the interval of the paired difference on the same questions lies
    above 0 too. The run stops after ``patience`` measurements in a row that do not, and at once where the mean falls
    more than ``max_drop`` below that of the start. However the run ends, the last policy is measured, and the best
    adapter is put back before ``adapter/`` is written and the last benchmarks are run; the last checkpoint holds the
    last weights, for a resume.

    The best of several measurements looks better than it is. So the numbers on these questions are named ``selected``,
    and what is to be believed is a ``BenchmarkEvaluation``, after this callback in the list, on questions that chose
    nothing: give this one ``questions: {part: drawn}`` and that one ``questions: {part: rest}``.

    All that it knows is in the checkpoints: a run that is killed and resumed decides the same, and one that had stopped
    stays so.

    Args:
        benchmark: What is measured, with one cap on the answers for all measurements.
        measure: Which of its measures decides, a larger one being better; empty for its main one.
        every_n_windows: Windows between two measurements, at least 1.
        patience: Measurements in a row without a gain before the run stops, at least 1.
        min_gain: Smallest gain over the best that counts, in units of the measure, >= 0.
        max_drop: Largest fall below the start that is let pass, in units of the measure, > 0.
        significance: Level of the two-sided interval that a gain must clear, in (0, 1), such as 0.05; null asks for
            ``min_gain`` alone.

    Attributes:
        stopped: Why the run was stopped; empty where it was not.

    Raises:
        ValueError: A value is out of its range, or the benchmark has no such measure; at the start: a
            ``BenchmarkEvaluation`` comes before this callback, training sees some of the items, or the run that is
            resumed measured otherwise.

    Example:
        >>> from lit_align.data.sources.table_skills import TableSkillItems
        >>> from lit_align.evals.exact_match import ExactMatchBenchmark
        >>> MTBenchEarlyStopping(ExactMatchBenchmark(TableSkillItems()), measure="score")
        Traceback (most recent call last):
        ValueError: MTBenchEarlyStopping: measure 'score' is none of benchmark 'exact_match', which has: exact_match
    """

    def __init__(
        self,
        benchmark: Benchmark,
        measure: str = "",
        every_n_windows: int = 200,
        patience: int = 3,
        min_gain: float = 0.05,
        max_drop: float = 0.3,
        significance: float | None = None,
    ) -> None:
        for option, value, holds, rule in (
            ("every_n_windows", every_n_windows, every_n_windows >= 1, "at least 1"),
            ("patience", patience, patience >= 1, "at least 1"),
            ("min_gain", min_gain, min_gain >= 0, ">= 0"),
            ("max_drop", max_drop, max_drop > 0, "> 0"),
            ("significance", significance, significance is None or 0 < significance < 1, "in (0, 1) or null"),
        ):
            if not holds:
                raise ValueError(f"MTBenchEarlyStopping: {option} must be {rule}, got {value}")
        if measure and measure not in benchmark.measures:
            raise ValueError(
                f"MTBenchEarlyStopping: measure {measure!r} is none of benchmark {benchmark.name!r}, which has: "
                f"{', '.join(benchmark.measures)}"
            )
        self.benchmark, self.measure = benchmark, measure or next(iter(benchmark.measures))
        self.every_n_windows, self.patience = every_n_windows, patience
        self.min_gain, self.max_drop, self.significance = min_gain, max_drop, significance
        self.stopped = ""
        self._means: dict[int, float] = {}  # by step; the start first
        self._best_step = 0
        self._best_items: list[ItemResult] = []
        self._best_adapter: dict[str, Tensor] = {}
        self._without_gain = 0
        self._conditions: Conditions = {}
        self._decided_by: dict[str, str] = {}
        self._summary = ""

    @property
    def selected_prompts(self) -> frozenset[str]:
        """The prompts that choose the adapter."""
        return frozenset(item.prompt for item in self._best_items)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse an order in which the last benchmarks would be run before the best adapter is back."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        before = callbacks[: callbacks.index(self)]
        if stage == "fit" and any(isinstance(one, BenchmarkEvaluation) for one in before):
            raise ValueError(
                "MTBenchEarlyStopping restores the best adapter when training ends, and must come before "
                "BenchmarkEvaluation in `trainer.callbacks`: swap the two"
            )

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the policy that the run starts from, unless it is resumed."""
        refuse_trained_items(data_of(trainer), [self.benchmark])
        if trainer.global_step == 0:
            self._conditions, self._decided_by = conditions([self.benchmark]), self._options()
            self._keep(trainer, self._measured(trainer))
            return
        where = f"MTBenchEarlyStopping: this run resumes at step {trainer.global_step}"
        if not self._means:
            raise ValueError(f"{where}, and the checkpoint holds no measurement of its start: start a new run")
        refuse_other_conditions(where, self._conditions, conditions([self.benchmark]))
        for option, value in self._options().items():
            if value != (saved := self._decided_by[option]):
                raise ValueError(
                    f"{where}; {option} was {saved} in the run and is now {value}, so it would decide otherwise: set "
                    "it back, or start a new run"
                )
        if self.stopped:  # killed after its last window, while it ended
            trainer.should_stop = True

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure if it is time; before the checkpoint of this window, which Lightning calls last."""
        if trainer.global_step % self.every_n_windows == 0:
            self._look(trainer)
            self._decide(trainer)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the last policy if it was not, and put the best adapter back."""
        if trainer.global_step not in self._means:
            self._look(trainer)  # the run ends anyway: there is nothing left to stop
        with torch.no_grad():
            for name, parameter in policy_of(trainer).adapter_parameters().items():
                parameter.copy_(self._best_adapter[name])
        start, best = next(iter(self._means.values())), self._means[self._best_step]
        self._summary = (
            f"{self.benchmark.name} (selected): {self.measure} {start:.4g} at the start, {best:.4g} at step "
            f"{self._best_step}, whose adapter is kept; on the {len(self.selected_prompts)} prompts that chose it, and "
            "so too good to be believed"
        )

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tell what was kept, now that the progress bar is closed."""
        if self._summary and trainer.is_global_zero:
            logger.info(self._summary)
            self._summary = ""

    @override
    def state_dict(self) -> dict[str, Any]:
        """All that decides, in tensors and plain types that ``weights_only=True`` loads."""
        return {
            "means": dict(self._means),
            "best_step": self._best_step,
            "best_items": [asdict(item) for item in self._best_items],
            "best_adapter": dict(self._best_adapter),
            "without_gain": self._without_gain,
            "stopped": self.stopped,
            "conditions": self._conditions,
            "options": self._decided_by,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the measurements before the checkpoint."""
        self._means, self._best_step = state_dict["means"], state_dict["best_step"]
        self._best_items = [ItemResult(**item) for item in state_dict["best_items"]]
        self._best_adapter = state_dict["best_adapter"]
        self._without_gain, self.stopped = state_dict["without_gain"], state_dict["stopped"]
        self._conditions, self._decided_by = state_dict["conditions"], state_dict["options"]

    def _look(self, trainer: pl.Trainer) -> None:
        """Measure, and keep the policy if it is the best one."""
        items = self._measured(trainer)
        if self._gains(items):
            self._keep(trainer, items)
        else:
            self._without_gain += 1

    def _decide(self, trainer: pl.Trainer) -> None:
        """Stop the run if it fell too far, or for too long without a gain."""
        mean, start = self._means[trainer.global_step], next(iter(self._means.values()))
        told = f"stopped at step {trainer.global_step}: {self.measure} of {self.benchmark.name}"
        if mean < start - self.max_drop:
            self.stopped = f"{told} is {mean:.4g}, more than {self.max_drop:g} below {start:.4g} at the start"
        elif self._without_gain >= self.patience:
            self.stopped = (
                f"{told} gained no {self.min_gain:g}{'' if self.significance is None else ' beyond doubt'} over "
                f"{self._means[self._best_step]:.4g} of step {self._best_step} in {self.patience} measurements"
            )
        if self.stopped:
            trainer.should_stop = True  # on all ranks, which hold the same results

    def _gains(self, items: Sequence[ItemResult]) -> bool:
        before, after = self._scores(self._best_items), self._scores(items)
        if not sum(after) - sum(before) > self.min_gain * len(after):
            return False
        if self.significance is None:
            return True
        clusters, bounds = [item.cluster for item in items], self.benchmark.measures[self.measure]
        return is_better(before, after, clusters, bounds=bounds, level=1 - self.significance)

    def _keep(self, trainer: pl.Trainer, items: list[ItemResult]) -> None:
        adapter = policy_of(trainer).adapter_parameters()
        self._best_step, self._best_items, self._without_gain = trainer.global_step, items, 0
        self._best_adapter = {name: one.detach().to("cpu", copy=True) for name, one in adapter.items()}

    def _measured(self, trainer: pl.Trainer) -> list[ItemResult]:
        results = measure(trainer, [self.benchmark], "selected")
        items = results[self.benchmark.name]
        mean = sum(self._scores(items)) / len(items)
        self._means[trainer.global_step] = mean
        key = f"val/selected/{self.benchmark.name}/{self.measure}"
        record(trainer, "selected", trainer.global_step, results, {key: mean})
        return items

    def _scores(self, items: Sequence[ItemResult]) -> list[float]:
        return [item.scores[self.measure] for item in items]

    def _options(self) -> dict[str, str]:
        names = ("measure", "every_n_windows", "patience", "min_gain", "max_drop", "significance")
        return {name: str(getattr(self, name)) for name in names}

"""From one stage of a progressive run to the next."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any, Protocol, cast

import lightning.pytorch as pl
import torch
from typing_extensions import override

from lit_align.callbacks.gates import Verdict, judged, outcome_of
from lit_align.callbacks.matrix_files import write_matrix
from lit_align.callbacks.measurement import measure, policy_of, record, run_folder
from lit_align.callbacks.stage_misfits import evaluations_of, measures_of, refuse_misfits
from lit_align.callbacks.stage_record import StageRecord, mark_stage, write_records, write_stage_adapters
from lit_align.data.staged import StagedPreferences
from lit_align.evals.item_scores import Scores, plain_scores, read_scores, scores_of
from lit_align.evals.matrix import matrix
from lit_align.models.adapter_switch import BASE, AdapterSwitch
from lit_align.models.reference import FrozenAdapterReference, below_live
from lit_align.stage import Earlier, Stage, refuse_stages

logger = logging.getLogger(__name__)


class _Stages(Protocol):
    """Where a module stands among its stages."""

    ends: list[tuple[str, ...]]

    @property
    def current(self) -> Stage: ...
    @property
    def windows(self) -> range: ...
    @property
    def is_over(self) -> bool: ...
    def keep(self, module: Any) -> None: ...
    def end(self, module: Any, back: bool) -> None: ...
    def go_on(self, module: Any) -> bool: ...
    def adapters_of(self, earlier: Earlier) -> tuple[str, ...]: ...


class StageTransition(pl.Callback):
    """Go through the stages of progressive preference training inside of one fit.

    A stage has its own pairs and length (``data: StagedPreferences``, under the same names in the same order), and here
    its loss, learning rate, schedule, adapter, reference and gates. At its end

    * the benchmarks of every ``BenchmarkEvaluation`` are run, and the gates are judged on them;
    * its adapter is kept in a folder of its own, ``adapter-NAME``, which ``PeftModel.from_pretrained`` opens;
    * the next stage trains a new adapter on top of all earlier ones, or a copy of the last one: it starts as exactly
      that policy, which is checked to the bit. What is frozen neither learns nor drops out;
    * optimizer and schedule start anew; new adapter, dropout and order of the pairs are drawn from the seed and the
      stage's name alone, and the largest forest is tried with the new adapters;
    * ``stages.json`` says what the stage ended with (see
      :class:`~lit_align.callbacks.stage_record.StageRecord`), TensorBoard marks it (``stage``), and one line of the log
      tells it;
    * the forgetting matrix (:func:`~lit_align.evals.matrix.matrix`) holds the policy so far against every benchmark:
      ``matrix.md``, ``matrix.json``, ``matrix.png`` and ``learning-vs-kl.png``, the table also at the end of the run. A
      benchmark with the name of a stage is that stage's own.

    After sDPO (Kim et al. 2024, arXiv 2403.19270), whose stages compare with the end of the stage before
    (``reference: previous``). The fit begins with the policy that ``model.reference`` starts from, the bare base or an
    ``FrozenAdapterReference``: so stages may also be run one by one, each from the folders of those before it, and end
    with the same adapters.

    A resumed run keeps the stages that have begun as they are; those that have not may be changed, added or left out.

    Args:
        stages: In their order; names are unique.

    Attributes:
        records: What each stage that has ended has ended with.
        scores: What the benchmarks measured at the start, and after each stage, item by item; after a stage that went
            back, what they measured at its start.
        stopped: Why the run was stopped; empty where it was not.

    Raises:
        ValueError: There is no stage, two have one name, or the first one names the stage before; at the start, before
            the data are read: the data have other stages, a gate asks for a metric that no benchmark has, the trainer
            does more than one epoch, ``model.reference`` cannot be the start of stages, or ``MTBenchEarlyStopping``
            would restore the adapter of another stage.
        TypeError: The model has no stages.

    Example:
        >>> StageTransition([Stage("a", reference="base"), Stage("a", reference="previous")])
        Traceback (most recent call last):
        ...
        ValueError: `stages`: 2 stages are named 'a'; give each a name of its own
    """

    def __init__(self, stages: list[Stage]) -> None:
        refuse_stages(stages)
        self.stages = tuple(stages)
        self.records: list[StageRecord] = []
        self.scores: list[Scores] = []
        self.stopped = ""
        self._base: Scores = {}
        self._table = ""
        self._folders: dict[str, str] = {}
        self._start: list[str] = []

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Hand the stages to the module, before its model is loaded and a checkpoint restored."""
        data = cast(Any, trainer).datamodule
        refuse_misfits(self.stages, trainer, pl_module, data)
        reference = pl_module.reference
        if isinstance(reference, FrozenAdapterReference):
            self._start = list(reference.paths)
            self._folders = dict(zip(reference.adapters, self._start, strict=True))
        self._folders |= {one.adapter: f"adapter-{one.name}" for one in self.stages}
        # That of `seed_everything`; a resumed run takes the one of its checkpoint.
        cast(Any, pl_module).take_stages(self.stages, data.stage_windows, torch.initial_seed())

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mark the first stage; a resumed run writes what its stages have left so far."""
        stages = cast(_Stages, pl_module.stages)
        if trainer.global_step == 0:
            self._mark(trainer, stages.current, 0)
        self._write(trainer, self.stages[: len(self.records)])
        self._write_matrix(trainer)
        if self.stopped:  # killed after its last window, while it ended
            trainer.should_stop = True

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a stage after its last window, and begin the next; before the checkpoint, which Lightning calls last."""
        stages = cast(_Stages, pl_module.stages)
        if trainer.global_step == stages.windows.stop and not stages.is_over:
            self._end(trainer, pl_module, stages)

    def _end(self, trainer: pl.Trainer, module: pl.LightningModule, stages: _Stages) -> None:
        stage, windows, below = stages.current, stages.windows, below_live(policy_of(trainer))
        verdicts = self._judged(trainer, stage)
        asked = outcome_of(verdicts)
        stages.keep(module)
        reference = stages.adapters_of(stage.reference)
        stages.end(module, back=asked == "back")
        one = StageRecord(
            name=stage.name,
            first_window=windows.start,
            last_window=windows[-1],
            adapter=self._folders[stage.adapter],
            below=self._named(below),
            policy=self._named(stages.ends[-1]),
            reference=self._named(reference),
            outcome=asked or "passed",
            gates=[verdict.plain() for verdict in verdicts],
        )
        self.records.append(one)
        self._write(trainer, [stage])
        self._write_matrix(trainer)
        self._mark(trainer, stage, windows[-1])
        told = f"stage {stage.name} ended with window {windows[-1]}: {'; '.join(map(str, verdicts)) or 'no gates'}"
        if asked == "stop":
            self.stopped = f"{told}; stopped (its adapter is in {one.adapter})"
            trainer.should_stop = True  # on all ranks, which hold the same scores
            return
        if asked is not None:
            told += "; went back to its start" if asked == "back" else "; went on all the same"
        told += f"; adapter in {one.adapter}"
        if stages.go_on(module):
            reference = stages.adapters_of(stages.current.reference)
            self._mark(trainer, stages.current, trainer.global_step)
            told += f"; now stage {stages.current.name}, reference {' + '.join(self._named(reference)) or 'base'}"
        logger.info(told)

    def _mark(self, trainer: pl.Trainer, stage: Stage, window: int) -> None:
        text = "\n\n".join(f"{key}: `{value}`" for key, value in stage.identity().items())
        if self.records and self.records[-1].name == stage.name:
            text = "\n\n".join(f"{key}: `{value}`" for key, value in asdict(self.records[-1]).items())
        mark_stage(trainer, self.stages.index(stage) + 1, window, stage.name, text)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where a run was ended inside of a stage, whose adapter then has no folder of its own."""
        stages = cast(_Stages, pl_module.stages)
        if not stages.is_over:
            logger.warning(
                f"the run ended at step {trainer.global_step}, inside of stage {stages.current.name} (windows "
                f"{stages.windows.start} to {stages.windows[-1]}): its gates were not judged"
            )

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Print the matrix, now that the progress bar is closed."""
        if self._table and trainer.is_global_zero:
            print(f"\n{self._table}", flush=True)  # noqa: T201 - the result that the run was made for
        self._table = ""

    @override
    def state_dict(self) -> dict[str, Any]:
        """All that later gates need, in plain types that ``weights_only=True`` loads."""
        return {
            "records": [asdict(one) for one in self.records],
            "scores": [plain_scores(one) for one in self.scores],
            "base": plain_scores(self._base),
            "stopped": self.stopped,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the stages that have ended."""
        self.records = [StageRecord(**one) for one in state_dict["records"]]
        self.scores = [read_scores(one) for one in state_dict["scores"]]
        self._base, self.stopped = read_scores(state_dict["base"]), state_dict["stopped"]

    def base_scores(self, trainer: pl.Trainer) -> Scores:
        """What the benchmarks measure of the bare base, where a stage has ended; measured once, on all ranks."""
        if not self._start:
            return self.scores[0]
        if not self._base:
            with AdapterSwitch(BASE).active(policy_of(trainer)):
                for one in evaluations_of(trainer):
                    results = measure(trainer, one.benchmarks, "base")
                    record(trainer, "base", trainer.global_step, results, {})
                    self._base |= scores_of(results)
        return self._base

    def _judged(self, trainer: pl.Trainer, stage: Stage) -> list[Verdict]:
        """Run the benchmarks on the policy as it is, and hold it against earlier ones."""
        evaluations = evaluations_of(trainer)
        if not self.scores:
            self.scores.append(scores_of(dict(chain(*((one.baseline or {}).items() for one in evaluations)))))
        now = scores_of(dict(chain(*(one.measured(trainer, "stage").items() for one in evaluations))))
        earlier: dict[Earlier, Scores] = {"start": self.scores[0], "previous": self.scores[-1]}
        if any(gate.against == "base" for gate in stage.gates):
            earlier["base"] = self.base_scores(trainer)
        verdicts = [judged(gate, earlier[gate.against], now, measures_of(trainer)) for gate in stage.gates]
        self.scores.append(self.scores[-1] if outcome_of(verdicts) == "back" else now)
        return verdicts

    def _write(self, trainer: pl.Trainer, ended: Sequence[Stage]) -> None:
        """What stages that have ended have left, on rank 0."""
        folder = run_folder(trainer)
        if folder is None or not ended or not trainer.is_global_zero:
            return
        adapters = {stage.adapter: self._folders[stage.adapter] for stage in ended}
        write_stage_adapters(folder, policy_of(trainer), adapters)
        write_records(folder, self._start, self.records)

    def _write_matrix(self, trainer: pl.Trainer) -> None:
        """The policies so far against all benchmarks of the run, where there are any."""
        if not self.records:
            return
        # A resumed run may have left out some; one that it has added is refused by the callback that measures it.
        there = set(self.scores[0]).intersection(*self.scores)
        measures = {name: own for name, own in measures_of(trainer).items() if name in there}
        if not measures:
            return
        policies = {"base": self.base_scores(trainer)} | ({"start": self.scores[0]} if self._start else {})
        names = [one.name for one in self.records]
        policies |= dict(zip(names, self.scores[1:], strict=True))
        outcomes = {"stop": "stopped", "back": "went back", "go_on": "gate failed"}
        told = {one.name: outcomes[one.outcome] for one in self.records if one.outcome in outcomes}
        unlearned = {"start", *(one.name for one in self.records if one.outcome == "back")}
        asked = {gate.metric for stage in self.stages for gate in stage.gates}
        self._table = write_matrix(trainer, matrix(policies, measures, unlearned), told, asked, trainer.global_step)

    def _named(self, adapters: Sequence[str]) -> list[str]:
        return [self._folders[name] for name in adapters]


def refuse_other_stages(trainer: pl.Trainer, module: pl.LightningModule, data: object) -> None:
    """Refuse stages that do not go with their data, and data of stages that nothing goes through.

    Args:
        trainer: With its callbacks.
        module: The model.
        data: The data module.

    Raises:
        ValueError: See :class:`StageTransition`.
        TypeError: The model has no stages.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    transitions = [one for one in callbacks if isinstance(one, StageTransition)]
    if isinstance(data, StagedPreferences) and len(transitions) != 1:
        raise ValueError(
            f"`data` {type(data).__name__} has stages, and `trainer.callbacks` {len(transitions)} StageTransition that "
            "go through them: name one"
        )
    for one in transitions:
        refuse_misfits(one.stages, trainer, module, data)

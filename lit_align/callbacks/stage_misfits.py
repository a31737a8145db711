"""Whether stages, trainer, model, data and benchmarks of a run go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast

import lightning.pytorch as pl

from lit_align.callbacks.benchmark import BenchmarkEvaluation
from lit_align.callbacks.early_stopping import MTBenchEarlyStopping
from lit_align.callbacks.gates import refuse_unmeasured
from lit_align.data.staged import StagedPreferences
from lit_align.evals.benchmark import Bounds
from lit_align.losses.preference.contract import PreferenceLoss
from lit_align.models.loading import LoRA
from lit_align.models.reference import BaseReference, FrozenAdapterReference
from lit_align.stage import Stage, refuse_coupled_dropout


def refuse_misfits(stages: Sequence[Stage], trainer: pl.Trainer, module: pl.LightningModule, data: object) -> None:
    """Refuse stages that do not go with the rest of a run; before the data are read.

    Args:
        stages: Of the run.
        trainer: With its callbacks.
        module: The model.
        data: The data module.

    Raises:
        ValueError: The data have other stages, a gate asks for a metric that no benchmark has, two benchmarks have one
            name, the trainer does more than one epoch, ``MTBenchEarlyStopping`` is there, ``model.reference`` moves or
            is a cache, or a loss couples pairs while the adapter of its stage has dropout.
        TypeError: The model has no stages.
    """
    if not hasattr(module, "take_stages"):
        raise TypeError(f"StageTransition: `model` {type(module).__name__} has no stages; DPOModule has")
    ours = [stage.name for stage in stages]
    theirs = [stage.name for stage in data.stages] if isinstance(data, StagedPreferences) else []
    if ours != theirs:
        raise ValueError(
            f"StageTransition has the stages {', '.join(ours)}, and `data` {type(data).__name__} "
            f"{', '.join(theirs) or 'none'}: they must be the same in the same order (StagedPreferences)"
        )
    if trainer.max_epochs != 1:
        raise ValueError(
            f"`trainer.max_epochs` = {trainer.max_epochs}: all stages together are one epoch, set it to 1; how long "
            "each of them is stands in `data.stages`"
        )
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(one, MTBenchEarlyStopping) for one in callbacks):
        raise ValueError(
            "MTBenchEarlyStopping restores the best adapter, which may be that of another stage: take gates instead"
        )
    names = [benchmark.name for one in evaluations_of(trainer) for benchmark in one.benchmarks]
    if len(set(names)) < len(names):
        raise ValueError(f"StageTransition: benchmarks must have names of their own, got {', '.join(names)}")
    if not isinstance(module.reference, BaseReference | FrozenAdapterReference):
        raise ValueError(
            f"`model.reference` {type(module.reference).__name__} cannot be the start of stages, which set the "
            "reference themselves: take BaseReference, or FrozenAdapterReference to start from an adapter"
        )
    lora = cast(LoRA, module.lora)
    for stage in stages:
        lora = stage.lora or lora
        refuse_coupled_dropout(stage.loss or cast(PreferenceLoss, module.loss), lora)
        refuse_unmeasured(stage.gates, measures_of(trainer), stage.name)


def evaluations_of(trainer: pl.Trainer) -> list[BenchmarkEvaluation]:
    """The callbacks whose benchmarks are run at the end of a stage."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [one for one in callbacks if isinstance(one, BenchmarkEvaluation)]


def measures_of(trainer: pl.Trainer) -> Mapping[str, Mapping[str, Bounds]]:
    """What these benchmarks measure, by name of the benchmark."""
    benchmarks = chain(*(one.benchmarks for one in evaluations_of(trainer)))
    return {benchmark.name: benchmark.measures for benchmark in benchmarks}

"""Benchmarks measured in the middle of a run, and where their results go."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, cast

import lightning.pytorch as pl

from lit_align.data.chat import ChatFormat
from lit_align.data.mixture import question_hash
from lit_align.evals.benchmark import Benchmark, ItemResult, check_scores
from lit_align.evals.no_trace import preserved_rng
from lit_align.models.policy import Policy

Phase = Literal["before", "during", "after", "validate", "against", "selected", "stage", "base"]
"""When a measurement was made.

``selected`` is one on the questions that chose the checkpoint, ``stage`` one at the end of a stage, ``base`` one of the
bare base, for the gates of stages.
"""

Conditions = dict[str, dict[str, str | int]]
"""What must be the same for two measurements to be compared, by name of the benchmark."""

_SAMPLES = 5  # texts a phase and benchmark in TensorBoard; benchmarks.jsonl has all of them


def measure(trainer: pl.Trainer, benchmarks: Sequence[Benchmark], phase: Phase) -> dict[str, list[ItemResult]]:
    """Run benchmarks on the policy as it is, all ranks together; leaves no trace in the training.

    Args:
        trainer: Holds the module with the policy and the data module with the chat format.
        benchmarks: What to run.
        phase: Names the measurement in progress bars.

    Returns:
        Results by benchmark, on every rank.

    Raises:
        TypeError: The module has no ``policy`` or the data module no ``chat``.
        ValueError: A benchmark returns other measures than it declares, or out of their bounds.
    """
    policy, chat = policy_of(trainer), _chat(trainer)
    shows_progress = trainer.progress_bar_callback is not None
    results: dict[str, list[ItemResult]] = {}
    # Lightning runs callbacks outside of the precision plugin's context: bf16-mixed would generate in fp32.
    with preserved_rng(), trainer.precision_plugin.forward_context():
        for benchmark in benchmarks:
            label = f"{benchmark.name} ({phase})" if shows_progress else None
            results[benchmark.name] = benchmark.run(policy, chat, progress=label)
            check_scores(benchmark, results[benchmark.name])
    return results


def record(
    trainer: pl.Trainer,
    phase: Phase,
    step: int,
    results: Mapping[str, Sequence[ItemResult]],
    scalars: Mapping[str, float],
) -> None:
    """Append the items to ``benchmarks.jsonl``, and send numbers and some answers to the loggers; on rank 0.

    Args:
        trainer: Of the run; call it on all ranks.
        phase: When it was measured.
        step: Windows completed then.
        results: By benchmark.
        scalars: Numbers for the loggers, by their whole key.
    """
    folder = run_folder(trainer)
    if folder is None or not trainer.is_global_zero:
        return
    _append(
        folder / "benchmarks.jsonl", [_line(name, phase, step, one) for name, own in results.items() for one in own]
    )
    for logger in trainer.loggers:
        logger.log_metrics(dict(scalars), step=step)
        add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
        if callable(add_text):
            for name, items in results.items():
                add_text(f"benchmark/{name}/{phase}", _samples(items), step)


def refuse_trained_items(data: object, benchmarks: Sequence[Benchmark]) -> None:
    """Refuse items that training sees, by group or by question, and what a benchmark lacks.

    Args:
        data: The data module, set up; one without ``trained_groups`` and ``trained_questions`` holds no item of any
            benchmark. One with ``keep_out`` does not know yet what it holds, and is told to pass over the items.
        benchmarks: What is to be run.

    Raises:
        ValueError: Training sees some of the items.
        ImportError: A package is missing that a benchmark needs.
    """
    trained: frozenset[str] = getattr(data, "trained_groups", frozenset())
    asked: frozenset[str] = getattr(data, "trained_questions", frozenset())
    for benchmark in benchmarks:
        benchmark.check()
        if hasattr(data, "keep_out"):
            data.keep_out(benchmark.groups(), map(question_hash, benchmark.published_questions()))
            continue
        if both := sorted(trained & benchmark.groups()):
            split = ", ".join(f"`{key}` = {getattr(data, key, None)}" for key in ("val_fraction", "split_seed"))
            raise ValueError(
                f"benchmark {benchmark.name!r}: training sees {len(both)} of its groups, such as {both[0]!r}; "
                f"give it the split of the data ({split}), or other items"
            )
        if seen := [text for text in benchmark.published_questions() if question_hash(text) in asked]:
            raise ValueError(
                f"benchmark {benchmark.name!r}: training holds {len(seen)} of its questions, such as {seen[0][:80]!r}; "
                "take the rows out of the training data"
            )


def conditions(benchmarks: Sequence[Benchmark]) -> Conditions:
    """The conditions of benchmarks, by name."""
    return {benchmark.name: benchmark.conditions() for benchmark in benchmarks}


def refuse_other_conditions(where: str, saved: Conditions, now: Conditions) -> None:
    """Refuse to compare with results that were measured otherwise.

    Args:
        where: How a message begins.
        saved: Of the run that is resumed.
        now: Of this one.

    Raises:
        ValueError: Names the benchmark, the condition and both values.
    """
    if now.keys() != saved.keys():
        raise ValueError(
            f"{where} with benchmarks {sorted(saved)}, but has {sorted(now)}: set them back, or start a new run"
        )
    for name, own in now.items():
        for key in saved[name].keys() | own.keys():
            if saved[name].get(key) != own.get(key):
                raise ValueError(
                    f"{where}; {key} of benchmark {name!r} was {saved[name].get(key)!r} in the run and is now "
                    f"{own.get(key)!r}, so before and after could not be compared: set it back, or start a new run"
                )


def run_folder(trainer: pl.Trainer) -> Path | None:
    """The folder of the run; ``None`` in a `fast_dev_run`, which leaves nothing behind. Call it on all ranks."""
    if getattr(trainer, "fast_dev_run", False):  # set by Lightning, but not declared
        return None
    log_dir = trainer.log_dir
    return None if log_dir is None else Path(log_dir)


def policy_of(trainer: pl.Trainer) -> Policy:
    """The policy of the run.

    Raises:
        TypeError: The module has none.
    """
    policy = getattr(trainer.lightning_module, "policy", None)
    if not hasattr(policy, "causal_lm"):
        raise TypeError(
            f"benchmarks need a LightningModule with `policy.causal_lm`; {type(trainer.lightning_module)} has none"
        )
    return cast("Policy", policy)


def data_of(trainer: pl.Trainer) -> object:
    """The data module of the run, or None."""
    # `trainer.datamodule` exists only after a fit or validate with a data module.
    return getattr(trainer, "datamodule", None)


def _chat(trainer: pl.Trainer) -> ChatFormat:
    chat = getattr(data_of(trainer), "chat", None)
    if chat is None:
        raise TypeError("benchmarks need a LightningDataModule with `chat`, which renders the prompts")
    return cast("ChatFormat", chat)


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

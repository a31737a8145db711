"""What each stage of a run ended with, for whoever reads the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl

from lit_align.checkpoint import write_adapter, write_whole
from lit_align.models.policy import Policy
from lit_align.models.reference.adapters import factors
from lit_align.stage import OnFailure

FILE = "stages.json"

Outcome = OnFailure | Literal["passed"]


@dataclass(frozen=True)
class StageRecord:
    """One stage that has ended. Folders are relative to that of the run, or as ``model.reference`` names them.

    Attributes:
        name: Of the stage.
        first_window: Number of its first window in the run, from 0.
        last_window: Number of its last one.
        adapter: Folder of the adapter that it trained, in PEFT's format.
        below: Folders of the adapters that this one lies on, the lowest first; empty for the bare base.
        policy: Folders of the adapters that make up the policy after the stage, the lowest first: those below and its
            own, or where it started if it went back.
        reference: Folders of the adapters that make up its reference; empty for the bare base.
        outcome: ``passed`` (also without gates), or what its failed gates asked for: ``stop``, ``back`` or ``go_on``.
        gates: What each gate asked for and found.
    """

    name: str
    first_window: int
    last_window: int
    adapter: str
    below: list[str]
    policy: list[str]
    reference: list[str]
    outcome: Outcome
    gates: list[dict[str, Any]]


def write_records(folder: Path, start: Sequence[str], records: Sequence[StageRecord]) -> None:
    """Write ``stages.json``, whole or not at all.

    Args:
        folder: Of the run.
        start: Folders of the adapters with which the fit began, the lowest first.
        records: Of the stages that have ended, in order.
    """
    plain = {"start": list(start), "stages": [asdict(record) for record in records]}
    text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / FILE, [text.encode()])


def read_records(folder: Path) -> tuple[list[str], list[StageRecord]]:
    """What :func:`write_records` has written: the start, and the stages that have ended.

    Raises:
        FileNotFoundError: The run has ended no stage.
    """
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; the run has no stages, or has ended none of them yet")
    plain: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return list(plain["start"]), [StageRecord(**one) for one in plain["stages"]]


def write_stage_adapters(folder: Path, policy: Policy, adapters: Mapping[str, str]) -> None:
    """Write adapters that the policy holds, each in a folder of its own in PEFT's format.

    Args:
        folder: Of the run.
        policy: The policy.
        adapters: Names of the folders, by that of the adapter in the policy.
    """
    for name, own in adapters.items():
        write_adapter(folder / own, factors(policy, name), policy.adapter_config(name))


def mark_stage(trainer: pl.Trainer, number: int, window: int, name: str, text: str) -> None:
    """Show in the loggers that a window is the first or the last one of a stage, on rank 0.

    Args:
        trainer: Of the run.
        number: Of the stage, from 1.
        window: Number of the window.
        name: Of the stage.
        text: What is to be read about it.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        logger.log_metrics({"stage": float(number)}, step=window)
        add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
        if callable(add_text):
            add_text(f"stage/{name}", text, window)

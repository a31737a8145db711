"""The body of ``lit-align audit``: read the data as a run does, measure them, write the report."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lit_align.checkpoint import write_whole
from lit_align.commands.audit.coloured import Coloured, coloured
from lit_align.commands.audit.page import page
from lit_align.data.audit.contamination import Asked, contamination
from lit_align.data.audit.counts import lengths, rows_kept
from lit_align.data.audit.examples import drawn, examples, read_texts
from lit_align.data.audit.language import languages
from lit_align.data.audit.load import epoch_load, realised_mix
from lit_align.data.audit.near import near_repeats
from lit_align.data.audit.personal import masked, personal_data
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.start import token_measures
from lit_align.data.audit.surface import surface_accuracy
from lit_align.data.audit.table import Cell, Check, Measured, Table, joined
from lit_align.data.staged import StagedPreferences
from lit_align.data.window_module import PlannedDataModule
from lit_align.environment import environment
from lit_align.evals.benchmark import Benchmark
from lit_align.models.memory import estimate_memory

logger = logging.getLogger(__name__)

_PACKAGES = ("datasketch", "py3langid", "sklearn")


@dataclass(frozen=True)
class Report:
    """What an audit found.

    Attributes:
        name: Of the configuration.
        measured: Tables and checks; no text in them holds an address or a secret.
        samples: Examples with the class of each token.
    """

    name: str
    measured: Measured
    samples: tuple[Coloured, ...]


def audit(
    name: str, module: Any, data: Any, benchmarks: Sequence[Benchmark], settings: AuditSettings, out: str, cuda: bool
) -> Report:
    """Measure the data of a run, and write ``audit.json`` and ``audit.html``; no weights are read.

    Args:
        name: Of the run.
        module: What would be trained, for its base, adapter and number formats.
        data: The data module, not set up.
        benchmarks: What the run would measure: their questions should not be trained.
        settings: The limits.
        out: Folder of the report; files of an earlier one are replaced.
        cuda: Whether the run would be on CUDA.

    Raises:
        FileNotFoundError: A file of a source is not there.
        ImportError: A package of the extra ``[audit]`` is missing.
        OSError: The hub cannot be reached, or ``out`` cannot be written.
        TypeError: The data module does not hold its examples.
        ValueError: A source cannot be read, or nothing is left of it.
    """
    refuse_missing_packages()
    if not isinstance(data, PlannedDataModule):
        raise TypeError(
            f"`data` {type(data).__name__} has no end that an audit could count to: give its sources to SFTDataModule, "
            "PreferenceDataModule or UnpairedDataModule in a config of their own (with their `limit`, where they are "
            "long) and audit that"
        )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    measured = _kept(data)
    every = drawn(examples(data), settings.sample)
    texts = read_texts(every, data.chat.tokenizer)
    asked = {one.name: Asked(one.asked(), bool(one.published_questions())) for one in benchmarks}
    measured = joined((
        measured,
        lengths(data),
        token_measures(data, settings),
        surface_accuracy(texts, settings),
        near_repeats(texts, settings),
        contamination(texts, asked, settings),
        languages(texts, settings),
        personal_data(texts, settings),
        epoch_load(data),
        _memory(module, data, settings, cuda),
    ))  # fmt: skip
    samples = coloured(drawn(every, settings.shown), data.chat.tokenizer) if settings.shown else ()
    report = Report(masked(name), _masked(measured), samples)
    write_whole(folder / "audit.json", [as_json(report).encode()])
    write_whole(folder / "audit.html", [page(report.name, report.measured, report.samples).encode()])
    return report


def refuse_missing_packages() -> None:
    """Refuse to begin what would fail for want of a package.

    Raises:
        ImportError: Names the packages and the extra that brings them.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ImportError(f'`lit-align audit` needs {", ".join(missing)}: pip install "lit_align[audit]"')


def as_json(report: Report) -> str:
    """The report for programs: all checks, those that failed, and each table as a list of objects.

    Args:
        report: The report.
    """
    held = {
        "name": report.name,
        "environment": environment(),
        "failed": [str(check) for check in report.measured.failed],
        "checks": [{**vars(check), "holds": check.holds} for check in report.measured.checks],
        "tables": {table.name: {"about": table.about, "rows": table.records()} for table in report.measured.tables},
    }
    return json.dumps(held, indent=1, ensure_ascii=False) + "\n"


def _kept(data: PlannedDataModule) -> Measured:
    """Set the data up with their own limits lifted, so that all is counted; they are held to here."""
    # Each of these reads rows; they agree on the names of their options.
    reading: Mapping[str, Any] = data.by_stage if isinstance(data, StagedPreferences) else {"": data}
    limits = {(one.bad_rows, one.lengths.max_dropped) for one in reading.values()}
    mixes = {stage: one.mix for stage, one in reading.items() if one.mix is not None}
    for one in reading.values():
        one.bad_rows, one.lengths = "drop", replace(one.lengths, max_dropped=1.0)
    unmet: tuple[Check, ...] = ()
    try:
        data.setup("fit")
    except ValueError as error:
        if not mixes:
            raise
        # If a mix is what fails, the data can be read without it.
        logger.info(f"{error}; reading on without the mix")
        for one in reading.values():
            one.mix = None
        data.setup("fit")
        unmet = (Check("data.mix", "training", 1, 0, str(error)),)
    [(bad_rows, max_dropped)] = limits
    return joined((rows_kept(data, bad_rows, max_dropped), realised_mix(data, mixes), Measured(checks=unmet)))


def _memory(module: Any, data: PlannedDataModule, settings: AuditSettings, cuda: bool) -> Measured:
    forest = data.largest_forest()
    found = estimate_memory(
        module.base, module.weights, module.lora, forest, checkpointing=module.activation_checkpointing, cuda=cuda
    )
    parts = (found.weights, found.adapter, found.activations, found.head, found.total)
    row: tuple[Cell, ...] = (len(forest), data.token_budget, *(round(part / 2**30, 3) for part in parts))
    about = (
        "An estimate from the shape of the model, GiB, of the largest forest that can occur; the program and its "
        "libraries, some 1 GiB, come on top. `fit` tries that forest before its first step."
    )
    columns = ("largest forest", "budget", "weights", "adapter", "activations", "head", "together")
    checks: tuple[Check, ...] = ()
    if settings.max_memory_gb is not None:
        advice = "lower `data.token_budget`, or set `model.activation_checkpointing: true`"
        checks = (Check("audit.max_memory_gb", "model", found.total / 2**30, settings.max_memory_gb, advice),)
    return Measured((Table("memory", about, columns, (row,)),), checks)


def _masked(measured: Measured) -> Measured:
    """No address and no secret leaves: whatever a measure quotes."""
    tables = tuple(
        replace(
            table,
            rows=tuple(tuple(masked(cell) if isinstance(cell, str) else cell for cell in row) for row in table.rows),
        )
        for table in measured.tables
    )
    checks = tuple(replace(one, where=masked(one.where), advice=masked(one.advice)) for one in measured.checks)
    return Measured(tables, checks)

"""All that reading, drawing and tokenising yields, in memory or in the files of a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import Lengths
from lit_align.data.prepared.columns import Column, ColumnFile, Columns, Place, TextColumn, Texts, refuse_damaged
from lit_align.data.prepared.examples import Examples

FORMAT = 3
"""Of the files."""

_MANIFEST = "prepared.json"  # written last: a folder without it is not finished


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a data module needs of its data.

    Attributes:
        examples: Of ``training``, ``validation`` and ``replay``.
        reports: What became of the rows of each of these parts that there are.
        trained_groups: Groups on the training side of the split.
        trained_questions: What these and the replayed conversations open with.
    """

    examples: Mapping[str, Examples]
    reports: Mapping[str, LengthReport]
    trained_groups: frozenset[str]
    trained_questions: frozenset[str]

    def write(self, folder: Path, made_by: Mapping[str, str]) -> None:
        """Finish a folder, in which the files of the examples are already.

        Args:
            folder: That of their preparation.
            made_by: What made them beside what was asked for: versions.

        Raises:
            OSError: The disk is full.
        """
        place = Place(folder)
        found: list[Column] = []
        for name in ("trained_groups", "trained_questions"):
            texts = TextColumn(place, name)
            for text in sorted(getattr(self, name)):
                texts.append(text)
            found += texts.columns
        for part, report in self.reports.items():
            for number, sizes in enumerate(report.sizes.values()):
                found.append(column := Column(place, _lengths(part, number), "<i8"))
                column.append(sizes.reshape(-1))
        files = Columns.finished(found, place).files
        for one in self.examples.values():
            files |= one.columns.files
        manifest = {
            "format": FORMAT,
            "made by": dict(made_by),
            "examples": {
                part: {"sources": one.source_names, "weight": one.weight} for part, one in self.examples.items()
            },
            "reports": {
                part: {"sources": list(report.sizes), "state": report.state()} for part, report in self.reports.items()
            },
            "files": {name: asdict(file) for name, file in files.items()},
        }
        (folder / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def read_prepared(folder: Path, made_by: Mapping[str, str], lengths: Lengths) -> Prepared:
    """Map what :meth:`Prepared.write` wrote.

    Args:
        folder: Where it lies.
        made_by: What must have made it.
        lengths: The limits that the examples were held to.

    Raises:
        ValueError: It is of another version, or not whole; the message says what is wrong.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{_MANIFEST} is missing or not whole") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{_MANIFEST} is not of format {FORMAT}")
    for name, made in made_by.items():
        if (other := manifest["made by"].get(name)) != made:
            raise ValueError(f"they were made by another version of {name} ({other}, not {made})")
    files = {name: ColumnFile(**file) for name, file in manifest["files"].items()}
    refuse_damaged(folder, files)
    columns = Columns.of_files(folder, files)
    reports = {}
    for part, told in manifest["reports"].items():
        sizes = {source: columns[_lengths(part, number)] for number, source in enumerate(told["sources"])}
        reports[part] = LengthReport.restored(part, lengths, told["state"], sizes)
    return Prepared(
        {
            part: Examples(part, columns, tuple(told["sources"]), told["weight"])
            for part, told in manifest["examples"].items()
        },
        reports,
        frozenset(Texts(columns, "trained_groups")),
        frozenset(Texts(columns, "trained_questions")),
    )


def _lengths(part: str, source: int) -> str:
    return f"{part}.lengths.{source}"

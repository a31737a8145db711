"""What a measurement depends on, and the two files that hold it beside what was found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine, versions

Facts = Mapping[str, Mapping[str, str]]
"""Lines by the title that they stand under."""


def facts_of(options: argparse.Namespace, packages: Sequence[str]) -> Facts:
    """Machine, versions and settings of a command.

    Args:
        options: Its options; ``output`` decides nothing.
        packages: Whose versions count.
    """
    settings = {key: str(value) for key, value in vars(options).items() if key != "output"}
    return {"machine": machine(), "versions": versions(packages), "settings": settings}


def sections(facts: Facts) -> list[str]:
    """A heading and a list of lines for each title, as Markdown.

    Example:
        >>> sections({"machine": {"cores": "2"}})
        ['## Machine', '- cores: 2']
    """
    listed = {title: "\n".join(f"- {key}: {value}" for key, value in lines.items()) for title, lines in facts.items()}
    return [part for title, lines in listed.items() for part in (f"## {title.capitalize()}", lines)]


def write_results(folder: Path, name: str, parts: Sequence[str], facts: Facts, found: Mapping[str, Any]) -> str:
    """Write ``NAME.md`` and ``NAME.json`` into a folder that is made if need be.

    Args:
        folder: The folder.
        name: Of the files.
        parts: What the text says before the facts.
        facts: What it depends on.
        found: What the file for programs holds beside the facts.

    Returns:
        The text.
    """
    text = "\n\n".join([*parts, *sections(facts)]) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps({**facts, **found}, indent=1) + "\n", encoding="utf-8")
    return text

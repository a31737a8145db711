"""The command inside of the test's process: what it returns, and the one line that it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_align.cli import main


def fit(config: dict[str, Any], *words: str) -> int | str | None:
    """Exit status of a run; the configuration is written to ``run.yaml``."""
    Path("run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        return main(["fit", "-c", "run.yaml", *words])
    except SystemExit as leave:
        return leave.code


def shown_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that is shown."""
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("lit-align: ")]
    assert len(lines) == 1, shown.err
    assert "Traceback" not in shown.err + shown.out
    return lines[0]

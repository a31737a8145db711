"""What ``lit-align audit`` does with a configuration that has been built."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import torch

from lit_align.callbacks.measured import benchmarks_of
from lit_align.cli_quiet import shows_colour
from lit_align.commands.audit import audit
from lit_align.commands.audit.terminal import report_lines

logger = logging.getLogger(__name__)


def run_audit(built: Any) -> int:
    """Measure the data, and show the report.

    Args:
        built: The arguments of ``fit``, its classes built but for the trainer, and ``out``.

    Returns:
        The exit status: 1 where a limit is broken.
    """
    trainer = built["trainer"]
    out = built["out"] or str(Path("lightning_logs") / "audit" / built["name"])
    cuda = trainer.accelerator in {"gpu", "cuda"} or (trainer.accelerator == "auto" and torch.cuda.is_available())
    report = audit(
        built["name"], built["model"], built["data"], benchmarks_of(trainer.callbacks or []), built["audit"], out, cuda
    )
    for line in report_lines(report.measured, report.samples, shows_colour(sys.stdout)):
        print(line)  # noqa: T201  the answer
    logger.info(f"{Path(out) / 'audit.html'}")
    return 1 if report.measured.failed else 0

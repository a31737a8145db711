"""What the terminal shows of a command: our own lines, and of libraries what a user can act upon."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TextIO

from lightning.fabric.utilities.rank_zero import rank_zero_only


def quiet_libraries() -> None:
    """Keep our lines on the terminal, and drop those of libraries that a user can do nothing about."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # "GPU available", tips for services, "Seed set to": said through a logger of its own.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # a 4-bit kernel that it can do without
    own = logging.getLogger("lit_align")
    own.setLevel(logging.INFO if getattr(rank_zero_only, "rank", 0) == 0 else logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)  # a new one, since a caller may have put another stream there
    handler.setFormatter(logging.Formatter("%(message)s"))
    own.handlers = [handler]
    for message, reason in _HARMLESS.items():
        del reason
        warnings.filterwarnings("ignore", message=message)


_HARMLESS = {
    r"\s*By default only one JsonargparseDeprecationWarning": "Lightning 2.6 calls jsonargparse by names of old",
    r"\s*``instantiate_classes`` was deprecated": "the same",
    r"\s*skip_none parameter was deprecated": "the same",
    r"\s*Config file paths as ``Path`` objects": "the same",
    r".*isinstance\(treespec, LeafSpec\)": "Lightning 2.6 uses a name that torch 2.13 has deprecated",
    r".*module\(s\) in eval mode at the start of training": "the frozen base is meant to be",
    r".*does not have many workers": "forests are built from tokens in memory; workers are an option of ours",
    r".*dataloader is\s+not resumable": "the sampler takes its position from the trainer's own count",
    r".*is smaller than the logging interval": "short runs are fine",
    r"Checkpoint directory .* exists and is not empty": "a resumed run writes into a new version",
    r".*lr_scheduler\.step\(\)` before `optimizer\.step": "the optimizer steps behind Lightning's wrapper",
    r"Experiment logs directory .* exists and is not empty": "both loggers share the run's folder; versions are fresh",
    r"Total length of `list` across ranks is zero": "no validation data were asked for",
    r".*does not support .*gemm_4bit": "bitsandbytes on CPU falls back to its plain kernel",
}


def shows_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and its user has not asked for none (https://no-color.org).

    Args:
        stream: Standard output, say.
    """
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

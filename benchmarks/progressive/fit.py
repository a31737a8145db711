"""One `lit-align fit` in a process of its own, which says what it cost: ``python fit.py FOLDER``."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from lit_align.checkpoint import write_whole
from lit_align.cli import main

COST = "cost.json"


def timed_fit() -> None:
    """Run ``lit-align fit -c config.yaml`` in the working folder; once it has ended well, write its seconds.

    Raises:
        SystemExit: The run failed.
    """
    start = time.perf_counter()
    if status := main(["fit", "-c", "config.yaml"]):
        raise SystemExit(status)
    cost = {"cpu_s": time.process_time(), "wall_s": time.perf_counter() - start}
    write_whole(Path(COST), [json.dumps(cost).encode()])


if __name__ == "__main__":
    os.chdir(sys.argv.pop())
    timed_fit()

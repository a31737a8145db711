"""The speed tables of README in one run: `dpo` and `sft-kl`, all their rows of time, and what is exact in float64.

Composed of the two commands at their defaults; what they say of shapes, peers and settings holds here. A target is met
where the interval of the ratios by round reaches it; where an interval is wider than 15 % of its median and the target
lies within it, the row is not settled. Some 35 minutes on a quiet machine of two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from benchmarks.dpo import command as dpo
from benchmarks.report import Report
from benchmarks.reruns import reruns, table
from benchmarks.sft_kl import command as sft_kl

NAME = "readme"


def main(arguments: list[str]) -> None:
    """Measure, print the tables, write them to ``readme.md`` and ``readme.json``; or compare two runs.

    Args:
        arguments: The command line after ``readme``; ``--help`` explains.

    Raises:
        SystemExit: As of the two commands; or there is no run to compare; or a settled row differs.
    """
    options = _parser().parse_args(arguments)
    if options.compare:
        _compare(options.output / f"{NAME}.json", options.compare)
        return
    start = time.perf_counter()
    rounds = ["--rounds", str(options.rounds)]
    pairs = ["--parts", "time", "cached", "exact", "--table-passes", str(options.table_passes)]
    for name in ("tatqa", "tokenizer"):
        if getattr(options, name):
            pairs += [f"--{name}", str(getattr(options, name))]
    both = [
        dpo.measured(dpo.parser().parse_args([*pairs, *rounds])),
        sft_kl.measured(sft_kl.parser().parse_args(["--parts", "time", "exact", *rounds])),
    ]
    report = joined(both)
    report.settings["minutes"] = f"{(time.perf_counter() - start) / 60:.1f}"
    report.write(options.output)
    print(report.markdown())


def joined(reports: list[Report]) -> Report:
    """Several reports as one, its settings with the name of each in front."""
    return Report(
        name=NAME,
        title="One training step: lit_align beside TRL",
        machine=reports[0].machine,
        versions=reports[0].versions,
        settings={
            f"{one.name.split('_time')[0]}, {key}": text for one in reports for key, text in one.settings.items()
        },
        shapes_of_targets=all(one.shapes_of_targets for one in reports),
        time=[row for one in reports for row in one.time],
        memory=[row for one in reports for row in one.memory],
        exactness=[row for one in reports for row in one.exactness],
        overview=True,
    )


def _compare(ours: Path, other: Path) -> None:
    for path in (ours, other):
        if not path.is_file():
            raise SystemExit(f"--compare: {path} does not exist; run `python -m benchmarks readme` first")
    rows = reruns(*(json.loads(path.read_text(encoding="utf-8")) for path in (ours, other)))
    print(table(rows))
    if any(row.verdict == "differs" for row in rows):
        raise SystemExit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks readme",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=9, help="counted rounds of time, at least 6; default %(default)s")
    add("--table-passes", type=int, default=2, help="passes over the windows of real tables; default %(default)s")
    add("--tatqa", type=Path, help="as for `dpo`: without it there is no row of real tables")
    add("--tokenizer", default=os.environ.get("LIT_ALIGN_QWEN3_TOKENIZER"), help="as for `dpo`")
    add(
        "--compare", type=Path, metavar="OTHER.json",
        help="measure nothing; say whether each settled ratio of readme.json in --output is within 10 %% of this run's",
    )  # fmt: skip
    add(
        "--output", type=Path, default=Path(__file__).parent / "results",
        help="folder of readme.md and readme.json; default: benchmarks/results",
    )  # fmt: skip
    return parser

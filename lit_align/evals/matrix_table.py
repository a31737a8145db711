"""The forgetting matrix as Markdown tables for people and as plain types for programs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from lit_align.evals.benchmark import SHARE
from lit_align.evals.matrix import KL, NLL, Line, Matrix
from lit_align.evals.report import align, interval_text
from lit_align.metrics.statistics import Interval

_NONE = "–"


def matrix_table(found: Matrix, outcomes: Mapping[str, str], asked: Collection[str] = ()) -> str:
    """A block a measure: for each benchmark a line of scores, and below it what they differ by, paired.

    The main measure of each benchmark is shown, likelihood and divergence where they are measured, and what gates ask
    for; the rest stands in the file for programs.

    Args:
        found: The matrix.
        outcomes: What became of a stage, by its name, where that is to be said at the head of its column.
        asked: Measures that gates ask for, ``tables/exact_match``.

    Example:
        >>> from lit_align.evals.item_scores import ItemScores
        >>> from lit_align.evals.matrix import matrix
        >>> ids = [str(i) for i in range(50)]
        >>> base, after = ({"a": ItemScores(ids, ids, ["sums"] * 50, {"right": [x] * 50})} for x in (0.0, 1.0))
        >>> found = matrix({"base": base, "a": after}, {"a": {"right": SHARE}})
        >>> print(*matrix_table(found, {}).splitlines()[2:5], sep=chr(10))
        | benchmark (n)  |                 base |                       a |
        | :------------- | -------------------: | ----------------------: |
        | a (50)         | 0.000 [0.000, 0.071] |    1.000 [0.929, 1.000] |
    """
    heads = [f"{name} ({outcomes[name]})" if name in outcomes else name for name in found.policies]
    blocks = []
    asked_for = {line.measure for line in found.lines if f"{line.benchmark}/{line.measure}" in asked}
    shown = [line for line in found.lines if line.main or line.measure in (*NLL, *KL, *asked_for)]
    for measure in dict.fromkeys(line.measure for line in shown):
        rows = [row for line in shown if line.measure == measure for row in _rows(line)]
        blocks.append(f"{measure}\n\n{align(['benchmark (n)', *heads], rows)}")
    caption = [
        "Columns are the policies after each stage, in order; 95 % intervals over clusters, differences paired by item "
        "against the base and against the column before."
    ]
    if any(line.cells[0].score.too_few for line in shown):
        caption.append("Too few: fewer than 10 clusters, with which the intervals' coverage is not known.")
    if found.transfers:
        rows = [
            [one.stage, one.measure, interval_text(one.backward, SHARE, signed=True), _share(one.retention)]
            for one in found.transfers
        ]
        if found.backward is not None:
            rows.append(["mean", "", interval_text(found.backward, SHARE, signed=True), ""])
        blocks.append(
            "kept at the end\n\n" + align(["stage", "measure", "backward transfer", "retention of its gain"], rows)
        )
        caption.append(
            "Backward transfer: score at the end less that after the stage itself (Lopez-Paz & Ranzato 2017). "
            "Retention: what is left of the stage's gain over the base; – where it gained nothing for sure."
        )
    return "\n\n".join([*blocks, " ".join(caption)])


def plain_matrix(found: Matrix, outcomes: Mapping[str, str]) -> dict[str, Any]:
    """All of the matrix in types that JSON has; ends that are infinite are None.

    Args:
        found: The matrix.
        outcomes: What became of each stage.
    """
    plain: dict[str, Any] = _finite({**asdict(found), "outcomes": dict(outcomes)})
    return plain


def _rows(line: Line) -> list[list[str]]:
    label = f"{line.benchmark} – {line.skill}" if line.skill else line.benchmark

    def texts(what: str, signed: bool) -> list[str]:
        parts = (getattr(cell, what) for cell in line.cells)
        return [_NONE if one is None else interval_text(one, line.bounds, signed=signed) for one in parts]

    few = ", too few" if line.cells[0].score.too_few else ""
    rows = [[f"{label} ({line.n}{few})", *texts("score", signed=False)]]
    if line.measure not in KL:  # which is 0 for the base
        rows.append(["– against base", *texts("against_base", signed=True)])
    if len(line.cells) > 2:
        rows.append(["– against before", *texts("against_previous", signed=True)])
    return rows


def _share(one: Interval | None) -> str:
    return _NONE if one is None else f"{one.mean:.0%} [{one.low:.0%}, {one.high:.0%}]"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

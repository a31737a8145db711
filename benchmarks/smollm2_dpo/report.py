"""The table of the study: each model on the held-out tables, beside the SFT model that all of them started from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.smollm2_dpo.runs import Run
from lit_align.metrics.statistics import Interval, mean_interval, paired_summary

Scores = Mapping[str, Sequence[Mapping[str, Any]]]
SHARE = (0.0, 1.0)
COLUMNS: tuple[tuple[str, str, str, tuple[float, float]], ...] = (
    ("answers", "exact_match", "exact match", SHARE),
    ("answers", "f1", "F1", SHARE),
    ("built", "rewards/accuracies", "reward accuracy, built", SHARE),
    ("on-policy", "rewards/accuracies", "reward accuracy, on-policy", SHARE),
    ("built", "displacement/chosen", "displaced", SHARE),
    ("built", "logps/chosen", "chosen, nats", (-math.inf, 0.0)),
    ("built", "logps/rejected", "rejected, nats", (-math.inf, 0.0)),
    ("built", "kl", "KL, nats a token", (0.0, math.inf)),
)


def table(scores: Mapping[Run | str, Scores]) -> str:
    """Means with intervals over tables, and below them differences to the SFT model, paired by item.

    Args:
        scores: By run; the base under ``base``, the SFT model under ``sft``.
    """
    head = [
        "| model | " + " | ".join(title for _, _, title, _ in COLUMNS) + " |",
        "|:--|" + "--:|" * len(COLUMNS),
    ]
    runs = [run for run in scores if isinstance(run, Run)]
    lines = [f"| {_name(run)} | " + " | ".join(_alone(scores[run], *column) for column in COLUMNS) + " |"
             for run in scores]  # fmt: skip
    differences = [
        f"| {_name(run)} | " + " | ".join(_less(scores["sft"], scores[run], *column) for column in COLUMNS) + " |"
        for run in runs
    ]
    return "\n".join(
        [*head, *lines, "", "After DPO less before (the SFT model), paired by item:", "", *head, *differences]
    )


def pairwise(scores: Mapping[Run | str, Scores], one: Run, other: Run) -> list[str]:
    """A row of differences between two runs, paired by item."""
    return [_less(scores[one], scores[other], *column) for column in COLUMNS]


def _name(run: Run | str) -> str:
    if isinstance(run, str):
        return {"base": "base", "sft": "**SFT**"}[run]
    return f"{run.loss}, {run.negatives}, by {run.group}" + (f", seed {run.seed}" if run.seed else "")


def _alone(scores: Scores, part: str, measure: str, title: str, bounds: tuple[float, float]) -> str:
    del title
    items = scores.get(part)
    if not items:
        return ""
    return _told(mean_interval(_values(items, measure), _clusters(items), bounds=bounds))


def _less(before: Scores, after: Scores, part: str, measure: str, title: str, bounds: tuple[float, float]) -> str:
    del title
    if not (before.get(part) and after.get(part)):
        return ""
    if [item["id"] for item in before[part]] != [item["id"] for item in after[part]]:
        raise ValueError(f"{part}: the models were measured on other items; remove their scores.json")
    summary = paired_summary(
        _values(before[part], measure), _values(after[part], measure), _clusters(before[part]), bounds=bounds
    )
    return _told(summary.difference, "+")


def _values(items: Sequence[Mapping[str, Any]], measure: str) -> list[float]:
    return [item["scores"][measure] for item in items]


def _clusters(items: Sequence[Mapping[str, Any]]) -> list[str]:
    return [item["cluster"] for item in items]


def _told(interval: Interval, sign: str = "") -> str:
    digits = 3 if abs(interval.mean) < 10 else 2
    return f"{interval.mean:{sign}.{digits}f} [{interval.low:{sign}.{digits}f}, {interval.high:{sign}.{digits}f}]"

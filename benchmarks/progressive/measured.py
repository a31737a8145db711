"""What finished runs have measured: the scores of each policy on the items of each domain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.progressive.runs import Run, stages_of
from benchmarks.resampling import Floats

MEASURES = ("accuracy", "kl", "displacement/chosen")


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        steps: Windows that it trained.
        clusters: Cluster of each item, by domain.
        policies: Scores of the items by policy, domain and measure: ``base``, then each stage of a run in stages, whose
            last one is the end of the run; ``end`` of a run without.
        outcomes: What the gates of each stage have said; empty for a run without stages.
    """

    steps: int
    clusters: dict[str, list[str]]
    policies: dict[str, dict[str, dict[str, Floats]]]
    outcomes: dict[str, str]

    @property
    def end(self) -> dict[str, dict[str, Floats]]:
        """Scores of the policy at the end."""
        return list(self.policies.values())[-1]


def measured(run: Run) -> Measured:
    """Read a finished run.

    A stage that went back to its start leaves the policy that it began with; after one that stopped the run, the policy
    stays as it is.

    Raises:
        ValueError: Items of a domain differ between two measurements of the run.
    """
    rows = list(_rows(run))
    domains = list(dict.fromkeys(row["benchmark"] for row in rows))
    last = max(row["step"] for row in rows)
    items = {domain: _ids(rows, domain, "before", 0) for domain in domains}

    def scores(phase: str, step: int) -> dict[str, dict[str, Floats]]:
        found = {}
        for domain in domains:
            if _ids(rows, domain, phase, step) != items[domain]:
                raise ValueError(
                    f"{run.record}: items of {domain!r} differ between step 0 and {phase!r} of step {step}"
                )
            own = _of(rows, domain, phase, step)
            found[domain] = {name: np.array([row["scores"][name] for row in own]) for name in MEASURES}
        return found

    policies = {"base": scores("before", 0)}
    outcomes: dict[str, str] = {}
    if run.arm == "joint":
        policies["end"] = scores("after", last)
    else:
        records = json.loads((run.record / "stages.json").read_text(encoding="utf-8"))["stages"]
        ended = {one["name"]: one for one in records}
        now = policies["base"]
        for stage in stages_of(run.config):
            record = ended.get(stage["name"])
            if record is not None and record["outcome"] != "back":
                now = scores("stage", record["last_window"] + 1)
            policies[stage["name"]] = now
            outcomes[stage["name"]] = record["outcome"] if record is not None else "not reached"
    clusters = {domain: [row["cluster"] for row in _of(rows, domain, "before", 0)] for domain in domains}
    return Measured(last, clusters, policies, outcomes)


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    for line in (run.record / "benchmarks.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _of(rows: list[dict[str, Any]], domain: str, phase: str, step: int) -> list[dict[str, Any]]:
    return [row for row in rows if (row["benchmark"], row["phase"], row["step"]) == (domain, phase, step)]


def _ids(rows: list[dict[str, Any]], domain: str, phase: str, step: int) -> list[str]:
    return [row["id"] for row in _of(rows, domain, phase, step)]

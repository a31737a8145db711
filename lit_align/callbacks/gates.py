"""Gates of a stage: paired differences of its end from an earlier policy, and whether they are what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lit_align.evals.benchmark import Bounds
from lit_align.evals.item_scores import Scores
from lit_align.metrics.statistics import Interval, paired_summary
from lit_align.stage import Gate, OnFailure


@dataclass(frozen=True)
class Verdict:
    """What a gate found.

    Attributes:
        gate: The gate.
        n: Number of items.
        difference: Of the stage's end from the earlier policy, with its interval.
        passed: Whether it is what was asked for.
    """

    gate: Gate
    n: int
    difference: Interval
    passed: bool

    def __str__(self) -> str:
        """Such as ``tables/exact_match +0.12 [0.05, 0.19] against base, at least 0 asked for: passed``."""
        gate, found = self.gate, self.difference
        least, bound = gate.min_difference is not None, gate.max_difference
        asked = f"at least {gate.min_difference:g}" if least else f"at most {bound:g}"
        return (
            f"{gate.metric} {found.mean:+.3g} [{found.low:.3g}, {found.high:.3g}] against {gate.against}, {asked} "
            f"asked for: {'passed' if self.passed else 'failed'}"
        )

    def plain(self) -> dict[str, Any]:
        """All of it in plain types."""
        return {
            **asdict(self.gate), "n": self.n, "difference": self.difference.mean, "low": self.difference.low,
            "high": self.difference.high, "passed": self.passed,
        }  # fmt: skip


def refuse_unmeasured(gates: Sequence[Gate], measures: Mapping[str, Mapping[str, Bounds]], stage: str) -> None:
    """Refuse a gate on a metric that no benchmark has.

    Args:
        gates: Of one stage.
        measures: By name of the benchmark.
        stage: Name of the stage.

    Raises:
        ValueError: Names the gate, and all metrics that there are.
    """
    there = [f"{name}/{measure}" for name, own in measures.items() for measure in own]
    for gate in gates:
        if gate.metric not in there:
            raise ValueError(
                f"stage {stage!r}: no benchmark measures its gate's {gate.metric!r}; "
                + (f"there are {', '.join(there)}" if there else "add a BenchmarkEvaluation to `trainer.callbacks`")
            )


def judged(gate: Gate, earlier: Scores, now: Scores, measures: Mapping[str, Mapping[str, Bounds]]) -> Verdict:
    """Hold a stage's end against an earlier policy.

    Args:
        gate: What is asked for.
        earlier: Scores of the policy that it names.
        now: Scores of the stage's end, on the same items.
        measures: By name of the benchmark.

    Raises:
        ValueError: The scores are of other items.

    Example:
        >>> gate = Gate("sums/right", against="base", on_failure="stop", min_difference=0.0)
        >>> ids = [str(i) for i in range(40)]
        >>> from lit_align.evals.item_scores import ItemScores
        >>> sums = ["sums"] * 40
        >>> before, after = ({"sums": ItemScores(ids, ids, sums, {"right": [x] * 20 + [0.0] * 20})} for x in (0.0, 1.0))
        >>> print(judged(gate, before, after, {"sums": {"right": (0.0, 1.0)}}))
        sums/right +0.5 [0.32, 0.657] against base, at least 0 asked for: passed
    """
    name, measure = next(
        (name, measure) for name, own in measures.items() for measure in own if gate.metric == f"{name}/{measure}"
    )
    before, after = earlier[name], now[name]
    if before.ids != after.ids:
        raise ValueError(f"gate on {gate.metric}: benchmark {name!r} had other items before; start a new run")
    difference = paired_summary(
        before.scores[measure],
        after.scores[measure],
        after.clusters,
        bounds=measures[name][measure],
        level=gate.confidence,
    ).difference
    passed = (
        difference.low >= gate.min_difference
        if gate.min_difference is not None
        else gate.max_difference is not None and difference.high <= gate.max_difference
    )
    return Verdict(gate, len(after.ids), difference, passed)


def outcome_of(verdicts: Sequence[Verdict]) -> OnFailure | None:
    """What gates ask for together: nothing, or what the sternest of those that failed does."""
    asked = {verdict.gate.on_failure for verdict in verdicts if not verdict.passed}
    order: tuple[OnFailure, ...] = ("stop", "back", "go_on")
    return next((one for one in order if one in asked), None)

"""The tables of the comparison, in Markdown: intervals over items and over seeds, differences paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.progressive.measured import Measured
from benchmarks.progressive.runs import ARMS, Run
from benchmarks.resampling import Change, Floats, Resampling, interval_of
from lit_align.metrics.statistics import Interval

Found = Mapping[str, Sequence[Measured]]
"""The runs of each arm, one a seed."""


class Comparison:
    """All arms on the same items.

    Args:
        found: The runs of each arm, one a seed, in the same order.

    Raises:
        ValueError: Two runs have other items, or are of unequal length.
    """

    def __init__(self, found: Found) -> None:
        runs = [run for own in found.values() for run in own]
        self.clusters = runs[0].clusters
        self.domains = list(self.clusters)
        self._found = found
        if any(run.clusters != self.clusters for run in runs):
            raise ValueError("the runs were not measured on the same items; start over in another --folder")
        if len(lengths := {run.steps for run in runs}) > 1:
            raise ValueError(f"the runs are to be equally long, and have trained {sorted(lengths)} windows")
        self.windows = runs[0].steps
        self._resampling = Resampling(list(self.clusters.values()), len(next(iter(found.values()))))

    def score(self, arm: str, policy: str, domain: str, measure: str = "accuracy") -> Change:
        """Mean of a policy; that of ``base`` is the same for all seeds."""
        after = self._rows(arm, policy, domain, measure)
        return self._resampling.change(self.domains.index(domain), np.zeros_like(after[:1]), after)

    def difference(self, first: tuple[str, str], second: tuple[str, str], domain: str) -> Change:
        """Accuracy of the first policy less that of the second, named by arm and policy; paired by item and seed."""
        rows = [self._rows(*one, domain, "accuracy") for one in (first, second)]
        return self._resampling.change(self.domains.index(domain), rows[1], rows[0])

    def end_of(self, arm: str) -> tuple[str, str]:
        """The policy at the end of an arm."""
        return arm, list(self._found[arm][0].policies)[-1]

    def stages_of(self, arm: str) -> list[str]:
        """Names of the stages; none for an arm without."""
        return list(self._found[arm][0].outcomes)

    def outcomes(self, arm: str, stage: str) -> str:
        """What the gates of a stage have said, by seed."""
        found = [run.outcomes[stage] for run in self._found[arm]]
        return found[0] if len(set(found)) == 1 else ", ".join(found)

    def _rows(self, arm: str, policy: str, domain: str, measure: str) -> Floats:
        return np.stack([run.policies[policy][domain][measure] for run in self._found[arm]])


def ends_table(comparison: Comparison, arms: Sequence[str]) -> str:
    """A line a domain: accuracy of the base and at the end of each arm, and by seed."""
    head = [f"domain (n = {len(next(iter(comparison.clusters.values())))})", "base", *(ARMS[arm] for arm in arms)]
    rows = []
    for domain in comparison.domains:
        cells = [_score(comparison.score(arms[0], "base", domain))]
        for arm in arms:
            change = comparison.score(*comparison.end_of(arm), domain)
            cells.append(f"{_score(change)} ({', '.join(f'{one:.2f}' for one in change.by_seed)})")
        rows.append([domain, *cells])
    return _table(head, rows)


def differences_table(comparison: Comparison, arms: Sequence[str]) -> str:
    """A line a domain: each arm's end less the base, and the first arm's end less that of the others."""
    first, *others = arms
    head = [
        "domain", *(f"{ARMS[arm]}, less the base" for arm in arms),
        *(f"{ARMS[first]}, less {ARMS[arm]}" for arm in others),
    ]  # fmt: skip
    ends = {arm: comparison.end_of(arm) for arm in arms}
    rows = []
    for domain in comparison.domains:
        found = [comparison.difference(ends[arm], (arm, "base"), domain) for arm in arms]
        found += [comparison.difference(ends[first], ends[arm], domain) for arm in others]
        rows.append([domain, *(_signed(one.interval) for one in found)])
    return _table(head, rows)


def stages_table(comparison: Comparison, arms: Sequence[str]) -> str:
    """A line a domain and arm in stages: accuracy after each stage, and what its gates have said."""
    arms = [arm for arm in arms if comparison.stages_of(arm)]
    stages = comparison.stages_of(arms[0])
    rows = []
    for arm in arms:
        for domain in comparison.domains:
            cells = [_score(comparison.score(arm, policy, domain)) for policy in ["base", *stages]]
            rows.append([ARMS[arm], domain, *cells])
        rows.append([ARMS[arm], "gates", "–", *(comparison.outcomes(arm, stage) for stage in stages)])
    return _table(["", "domain", "base", *(f"after {stage}" for stage in stages)], rows)


def transfer_table(comparison: Comparison, arms: Sequence[str]) -> str:
    """Backward transfer of each stage but the last: accuracy at the end less that after the stage itself, and mean."""
    arms = [arm for arm in arms if comparison.stages_of(arm)]
    stages = comparison.stages_of(arms[0])[:-1]
    changes = {
        arm: [comparison.difference(comparison.end_of(arm), (arm, stage), stage) for stage in stages] for arm in arms
    }
    rows = [[stage, *(_signed(changes[arm][number].interval) for arm in arms)] for number, stage in enumerate(stages)]
    means = []
    for own in changes.values():
        draws = np.mean([one.draws for one in own], axis=0)
        means.append(interval_of(float(np.mean([one.interval.mean for one in own])), draws))
    return _table(["stage", *(ARMS[arm] for arm in arms)], [*rows, ["mean", *map(_signed, means)]])


def costs_table(comparison: Comparison, arms: Sequence[str], runs: Sequence[Run]) -> str:
    """Exact KL to the base and displaced chosen answers at the end, by domain; CPU seconds of a run."""
    rows = []
    for what, measure in (("KL to the base, nats a token", "kl"), ("chosen less likely", "displacement/chosen")):
        for domain in comparison.domains:
            found = [comparison.score(*comparison.end_of(arm), domain, measure) for arm in arms]
            rows.append([f"{what}: {domain}", *map(_score, found)])
    seconds = [[run.cost["cpu_s"] for run in runs if run.arm == arm] for arm in arms]
    rows.append(["CPU seconds of a run, with all measurements", *(f"{np.mean(own):.0f}" for own in seconds)])
    return _table(["at the end", *(ARMS[arm] for arm in arms)], rows)


def verdict(comparison: Comparison, arms: Sequence[str]) -> str:
    """For each arm the domains on which its end is better and worse than the base, from the intervals alone."""
    told = []
    for arm in arms:
        signs: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
        for domain in comparison.domains:
            one = comparison.difference(comparison.end_of(arm), (arm, "base"), domain).interval
            signs["better" if one.low > 0 else "worse" if one.high < 0 else "not told apart"].append(domain)
        parts = [f"{what}: {', '.join(own)}" for what, own in signs.items() if own]
        told.append(f"- {ARMS[arm]}, against the base: {'; '.join(parts)}.")
    return "\n".join(told)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _score(change: Change) -> str:
    one = change.interval
    return f"{one.mean:.3f} [{max(one.low, 0.0):.3f}, {one.high:.3f}]"


def _signed(one: Interval) -> str:
    return f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"

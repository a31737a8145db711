"""Coverage, false alarms and power, each measured at one cell: a design and the truth that is drawn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.statistics_coverage import draws
from benchmarks.statistics_coverage.draws import Design
from benchmarks.statistics_coverage.methods import POSITIVE, SHARE, UNBOUNDED, Method, PairedMethod
from lit_align.metrics.statistics.clusters import Bounds, ClusterSums
from lit_align.metrics.statistics.decisions import mcnemar, sign_flip

DESIGNS = [
    Design(clusters, items, alike)
    for clusters, items in ((20, 50), (20, 100), (50, 50), (40, 80), (80, 80), (80, 280), (280, 280), (280, 1680))
    for alike in ((0.0,) if clusters == items else (0.0, 0.3))
]
MEANS = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98)
CHANGED = (0.02, 0.05, 0.1, 0.2, 0.4)
RISING = (0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Mean:
    """A cell of a single mean.

    Attributes:
        kind: ``right``, ``f1``, ``kl`` or ``log-ratio``.
        design: How the items fall into clusters.
        mean: True mean of shares and F1; None where the kind has one of its own.
    """

    kind: str
    design: Design
    mean: float | None = None

    @property
    def bounds(self) -> Bounds:
        """Of the scores."""
        return {"kl": POSITIVE, "log-ratio": UNBOUNDED}.get(self.kind, SHARE)

    @property
    def truth(self) -> float:
        """The true mean."""
        return self.mean if self.mean is not None else draws.divergence() if self.kind == "kl" else 0.0

    def samples(self, rng: np.random.Generator, count: int) -> Iterator[ClusterSums]:
        """Drawn benchmarks."""
        if self.kind == "kl":
            return draws.divergences(rng, self.design, count)
        if self.kind == "log-ratio":
            return draws.log_ratios(rng, self.design, count)
        draw = draws.right_answers if self.kind == "right" else draws.f1_scores
        return draw(rng, self.design, count, self.truth)

    def coverage(self, method: Method, count: int, seed: int) -> float:
        """Share of the drawn benchmarks whose interval holds the truth."""
        intervals = (method(data, self.bounds) for data in self.samples(np.random.default_rng(seed), count))
        return sum(one.low <= self.truth <= one.high for one in intervals) / count


@dataclass(frozen=True)
class Difference:
    """A cell of a paired difference.

    Attributes:
        design: How the items fall into clusters.
        changed: Share of the pairs that change.
        rising: Share of these that rise; the true difference is 0 at 0.5.
        partial: Whether they change by F1 instead of by 1.
    """

    design: Design
    changed: float
    rising: float
    partial: bool

    @property
    def truth(self) -> float:
        """The true difference."""
        return self.changed * (2 * self.rising - 1) * (draws.PARTIAL_MEAN if self.partial else 1.0)

    def samples(self, seed: int, count: int) -> Iterator[tuple[ClusterSums, ClusterSums]]:
        """Gains and losses of drawn benchmarks."""
        rng = np.random.default_rng(seed)
        return draws.changes(rng, self.design, count, self.changed, self.rising, partial=self.partial)

    def coverage(self, method: PairedMethod, count: int, seed: int) -> float:
        """Share of the drawn benchmarks whose interval holds the truth."""
        # Sums of changes are rounded; the truth at the edge of an interval is in it.
        slack = 1e-12
        intervals = (method(*sides) for sides in self.samples(seed, count))
        return sum(one.low - slack <= self.truth <= one.high + slack for one in intervals) / count

    def p_values(self, count: int, seed: int, *, flips: int = 2_000) -> list[float]:
        """P-values of the test that fits the items."""
        single = not self.partial and self.design.items == self.design.clusters
        return [
            mcnemar(int(gains.sums.sum()), int(losses.sums.sum()))
            if single
            else sign_flip(gains.sums - losses.sums, flips=flips)
            for gains, losses in self.samples(seed, count)
        ]


def means(kind: str) -> list[Mean]:
    """All cells of a kind of score."""
    if kind in {"kl", "log-ratio"}:
        return [Mean(kind, design) for design in DESIGNS]
    largest = 1.0 if kind == "right" else draws.PARTIAL_MEAN
    return [Mean(kind, design, mean) for design in DESIGNS for mean in MEANS if mean < largest]


def differences(*, partial: bool) -> list[Difference]:
    """All cells of a kind of change."""
    return [
        Difference(design, changed, rising, partial) for design in DESIGNS for changed in CHANGED for rising in RISING
    ]

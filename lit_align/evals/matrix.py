"""The forgetting matrix: every policy of a progressive run against every benchmark, and what of it was kept."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lit_align.evals.benchmark import Bounds
from lit_align.evals.item_scores import ItemScores, Scores
from lit_align.metrics.statistics import Interval, mean_interval, paired_summary

NLL = ("nll", "logps/chosen")
"""Measures that are the likelihood of given answers."""

KL = ("kl_policy_base", "kl")
"""Measures that are the exact divergence from the reference of the benchmark, the bare base by default."""

_BOX = 0.975  # of each of two intervals that hold together with 95 % at least (Bonferroni)


@dataclass(frozen=True)
class Cell:
    """One policy on one line of a benchmark.

    Attributes:
        score: Its mean.
        against_base: Paired difference from the base; None for the base itself.
        against_previous: Paired difference from the policy before; None for the base.
    """

    score: Interval
    against_base: Interval | None
    against_previous: Interval | None


@dataclass(frozen=True)
class Line:
    """One measure of a benchmark, or of a part of it, for all policies.

    Attributes:
        benchmark: Its name.
        skill: The part; empty for all items.
        measure: What is measured.
        bounds: Of the measure.
        main: Whether the measure is the benchmark's first one.
        n: Number of items.
        cells: One a policy.
    """

    benchmark: str
    skill: str
    measure: str
    bounds: Bounds
    main: bool
    n: int
    cells: tuple[Cell, ...]

    @property
    def scored(self) -> bool:
        """Whether it is a score that is the better the higher: the main measure, which that of a drift is not."""
        return self.main and self.measure not in (*NLL, *KL)

    @property
    def domain(self) -> str:
        """What it measures: the part's name, or that of the whole benchmark."""
        return self.skill or self.benchmark


@dataclass(frozen=True)
class Transfer:
    r"""What later stages did to what one stage had learned, on the domain that has the stage's name.

    Attributes:
        stage: The stage.
        measure: Main measure of its benchmark.
        backward: Score at the end less that after the stage itself, :math:`R_{T,i} - R_{i,i}`; below 0 is forgetting.
        retention: What is left of the stage's gain over the base, :math:`(R_{T,i} - b_i) / (R_{i,i} - b_i)`: 1 is all.
            None where the interval of the gain holds 0, so that there is nothing sure to be kept.
    """

    stage: str
    measure: str
    backward: Interval
    retention: Interval | None


@dataclass(frozen=True)
class Matrix:
    """All of it.

    Attributes:
        policies: The base first; then what the fit started from, if that is another; then the end of each stage.
        lines: Of all benchmarks.
        transfers: Of each stage that has a score on a domain of its name and a stage after it, one a stage.
        backward: Mean of their backward transfers; None without any, and where their measures have different bounds.
    """

    policies: tuple[str, ...]
    lines: tuple[Line, ...]
    transfers: tuple[Transfer, ...]
    backward: Interval | None

    def divergence(self, line: Line) -> Line | None:
        """The line with the KL to the base that belongs to a line of scores; None where none was measured.

        Args:
            line: Of scores: the KL is one of its own benchmark, or of a ``DriftBenchmark`` on a domain of its name.
        """
        found = [one for one in self.lines if one.measure in KL and one.domain == line.domain]
        return next((one for one in found if one.benchmark == line.benchmark), found[0] if found else None)


def matrix(
    policies: Mapping[str, Scores], measures: Mapping[str, Mapping[str, Bounds]], unlearned: Collection[str] = ()
) -> Matrix:
    r"""Hold every policy against the base and against the one before it.

    Backward transfer is that of Lopez-Paz & Ranzato (2017, arXiv 1706.08840, equation 3), for the stages that have a
    benchmark with their name, or else a part of one: :math:`\frac{1}{T-1} \sum_{i<T} R_{T,i} - R_{i,i}`, with
    :math:`R_{t,i}` the score of stage :math:`i`'s benchmark after stage :math:`t`. The interval of the mean adds those
    of its terms (Zou & Donner 2008, Statistics in Medicine 27), whose items are taken to be independent. That of a
    retention, which is :math:`1 + (R_{T,i} - R_{i,i}) / (R_{i,i} - b_i)`, is what it may be while both differences lie
    in their 97.5 % intervals: it holds with 95 % at least.

    Args:
        policies: Scores by name, the base first, in the order in which they came to be; the same items each.
        measures: Measures of each benchmark with their bounds, the main one first.
        unlearned: Policies that are no stage's own, so that nothing is transferred from them: the start of the fit, and
            stages that went back.

    Raises:
        ValueError: Two policies were measured on other items.

    Example:
        >>> ids = [str(i) for i in range(50)]
        >>> def scores(a, b):
        ...     return {name: ItemScores(ids, ids, ["sums"] * 50, {"right": [1.0] * n + [0.0] * (50 - n)})
        ...             for name, n in (("a", a), ("b", b))}
        >>> right = {"right": (0.0, 1.0)}
        >>> found = matrix({"base": scores(0, 5), "a": scores(40, 5), "b": scores(30, 50)}, {"a": right, "b": right})
        >>> [one.backward.mean for one in found.transfers], round(found.transfers[0].retention.mean, 9)
        ([-0.2], 0.75)
    """
    names, scores = list(policies), list(policies.values())
    lines = tuple(_lines(names, scores, measures))
    # One a stage: the whole benchmark of its name before a part of another one.
    domains = {line.domain: line for line in sorted(lines, key=lambda line: not line.skill) if line.scored}
    learned = [domains[name] for name in names[1:-1] if name in domains and name not in unlearned]
    transfers = [_transfer(line, scores[0], policies[line.domain], scores[-1]) for line in learned]
    alike = len({line.bounds for line in learned}) == 1  # ratings and shares have no mean
    backward = _mean([one.backward for one in transfers]) if alike else None
    return Matrix(tuple(names), lines, tuple(transfers), backward)


def _lines(
    names: Sequence[str], scores: Sequence[Scores], measures: Mapping[str, Mapping[str, Bounds]]
) -> Iterator[Line]:
    for benchmark, own in measures.items():
        skills = list(dict.fromkeys(scores[0][benchmark].skills))
        for number, (measure, bounds) in enumerate(own.items()):
            for skill in ["", *(skills if len(skills) > 1 else [])]:
                line = Line(benchmark, skill, measure, bounds, not number, 0, ())
                found = [_items(one, line) for one in scores]
                for name, one in zip(names, scores, strict=True):
                    if one[benchmark].ids != scores[0][benchmark].ids:
                        raise ValueError(f"benchmark {benchmark!r} had other items for {name!r} than for {names[0]!r}")
                clusters = found[0][1]
                cells = [Cell(mean_interval(found[0][0], clusters, bounds=bounds), None, None)]
                for before, (values, _) in pairwise(found):
                    first, last = (
                        paired_summary(one, values, clusters, bounds=bounds) for one in (found[0][0], before[0])
                    )
                    cells.append(Cell(first.after, first.difference, last.difference))
                yield Line(benchmark, skill, measure, bounds, not number, len(clusters), tuple(cells))


def _items(scores: Scores, line: Line) -> tuple[list[float], list[str]]:
    """The scores and the clusters of the items of a line."""
    one: ItemScores = scores[line.benchmark]
    chosen = [at for at, skill in enumerate(one.skills) if line.skill in ("", skill)]
    values = one.scores[line.measure]
    return [values[at] for at in chosen], [one.clusters[at] for at in chosen]


def _transfer(line: Line, base: Scores, own: Scores, last: Scores) -> Transfer:
    def difference(before: Scores, after: Scores, level: float) -> Interval:
        (first, clusters), (second, _) = _items(before, line), _items(after, line)
        return paired_summary(first, second, clusters, bounds=line.bounds, level=level).difference

    change, gain = difference(own, last, _BOX), difference(base, own, _BOX)
    retention = None
    if gain.low > 0 or gain.high < 0:
        ends = [1 + part / whole for part in (change.low, change.high) for whole in (gain.low, gain.high)]
        retention = Interval(1 + change.mean / gain.mean, min(ends), max(ends), gain.too_few)
    return Transfer(line.domain, line.measure, difference(own, last, 0.95), retention)


def _mean(parts: Sequence[Interval]) -> Interval:
    n = len(parts)
    mean = sum(one.mean for one in parts) / n
    below, above = (
        math.hypot(*(one.mean - end for one, end in zip(parts, ends, strict=True))) / n
        for ends in ([one.low for one in parts], [one.high for one in parts])
    )
    return Interval(mean, mean - below, mean + above, any(one.too_few for one in parts))

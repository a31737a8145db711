"""What benchmarks have measured of a policy, without its texts: small enough for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lit_align.evals.benchmark import ItemResult


@dataclass(frozen=True)
class ItemScores:
    """What one benchmark measured of one policy.

    Attributes:
        ids: Of the items.
        clusters: Of the items; those of one cluster are one unit of intervals.
        skills: Of the items; a part of the benchmark each.
        scores: A number for each item, by measure.
    """

    ids: list[str]
    clusters: list[str]
    skills: list[str]
    scores: dict[str, list[float]]

    @classmethod
    def of(cls, items: Sequence[ItemResult]) -> ItemScores:
        """The scores of some results of one benchmark."""
        measures = items[0].scores
        return cls(
            [item.id for item in items],
            [item.cluster for item in items],
            [item.skill for item in items],
            {measure: [item.scores[measure] for item in items] for measure in measures},
        )


Scores = dict[str, ItemScores]
"""By name of the benchmark."""


def scores_of(results: Mapping[str, Sequence[ItemResult]]) -> Scores:
    """The scores of results by benchmark."""
    return {name: ItemScores.of(items) for name, items in results.items()}


def plain_scores(scores: Scores) -> dict[str, Any]:
    """Scores in plain types that ``weights_only=True`` loads; :func:`read_scores` reads them."""
    return {name: asdict(one) for name, one in scores.items()}


def read_scores(plain: Mapping[str, Any]) -> Scores:
    """Scores as :func:`plain_scores` made them."""
    return {name: ItemScores(**one) for name, one in plain.items()}

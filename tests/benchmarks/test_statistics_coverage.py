"""The intervals of lit_align.metrics.statistics cover, its tests keep their level, and worse methods are found out."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.statistics_coverage.cells import Difference, Mean, differences, means
from benchmarks.statistics_coverage.command import report
from benchmarks.statistics_coverage.draws import Design, changes, right_answers
from benchmarks.statistics_coverage.methods import (
    METHODS,
    PAIRED,
    Method,
    PairedMethod,
    chosen,
    chosen_difference,
    percentile,
    percentile_difference,
    student,
)  # fmt: skip
from lit_align.metrics.statistics.decisions import mcnemar

FEW = Design(80, 80, 0.0)  # the case of the issue: 80 items, p = .05
TABLES = Design(20, 50, 0.3)
CELLS = [Mean("right", FEW, 0.05), Mean("right", TABLES, 0.1), Mean("f1", TABLES, 0.7), Mean("kl", TABLES)]
PAIRS = [Difference(TABLES, 0.1, 1.0, partial=False), Difference(FEW, 0.05, 0.75, partial=True)]


def uncovered(method: Method, paired: PairedMethod, draws: int) -> list[str]:
    """Cells whose coverage lies below 95 % by more than three standard errors of the simulation."""
    least = 0.95 - 3 * (0.95 * 0.05 / draws) ** 0.5
    found = [(str(cell), cell.coverage(method, draws, seed=1)) for cell in CELLS]
    found += [(str(pair), pair.coverage(paired, draws, seed=1)) for pair in PAIRS]
    return [f"{name}: {coverage}" for name, coverage in found if coverage < least]


def test_chosen_intervals_cover_and_the_percentile_bootstrap_fails_the_same_test() -> None:
    assert uncovered(chosen, chosen_difference, 500) == []
    assert len(uncovered(percentile, percentile_difference, 300)) >= 4


def test_chosen_interval_of_a_share_is_not_too_wide_either() -> None:
    cell = Mean("right", Design(80, 280, 0.3), 0.3)

    assert 0.93 <= cell.coverage(chosen, 600, seed=2) <= 0.975


def test_drawn_items_have_the_mean_and_the_correlation_that_are_asked_for() -> None:
    rng = np.random.default_rng(0)
    design = Design(2_000, 6_000, 0.3)
    (data,) = right_answers(rng, design, 1, 0.2)
    pairs = data.sizes * (data.sizes - 1)
    both_right = data.sums * (data.sums - 1)

    assert data.sizes.mean() == pytest.approx(3, abs=0.1)
    assert set(data.sizes) == {1, 2, 3, 4, 5, 6}
    assert data.mean == pytest.approx(0.2, abs=0.03)
    # P(both right) = p² + alike · p · (1 - p)
    assert both_right.sum() / pairs.sum() == pytest.approx(0.04 + 0.3 * 0.16, abs=0.015)
    ((gains, losses),) = changes(rng, design, 1, 0.4, 0.75, partial=False)
    assert (gains.mean, losses.mean) == (pytest.approx(0.3, abs=0.03), pytest.approx(0.1, abs=0.02))


def test_false_alarms_are_few_but_not_none() -> None:
    for pair in (Difference(FEW, 0.3, 0.5, partial=False), Difference(Design(40, 80, 0.3), 0.4, 0.5, partial=True)):
        rate = float((np.array(pair.p_values(400, seed=3, flips=500)) <= 0.05).mean())
        # The true rates are 4 to 5 %; three standard errors of 400 draws are 3.3 %.
        assert 0.015 <= rate <= 0.08


def test_a_test_that_takes_clustered_items_for_independent_raises_false_alarms() -> None:
    pair = Difference(Design(40, 200, 0.6), 0.4, 0.5, partial=False)
    planted = [mcnemar(int(up.sums.sum()), int(down.sums.sum())) for up, down in pair.samples(4, 300)]

    assert float((np.array(planted) <= 0.05).mean()) > 0.1


@pytest.mark.slow
def test_coverage_over_many_cells() -> None:
    shares = [cell for kind in ("right", "f1") for cell in means(kind) if cell.design.items <= 280]
    found = np.array([cell.coverage(chosen, 250, seed) for seed, cell in enumerate(shares)])
    pairs = [cell for part in (False, True) for cell in differences(partial=part) if cell.design.clusters <= 80]
    paired = np.array([cell.coverage(chosen_difference, 100, seed) for seed, cell in enumerate(pairs)])
    plain = np.array([cell.coverage(student, 250, seed) for seed, cell in enumerate(shares)])

    # Three and a half standard errors of 250 and of 100 draws below 93 %, as of some hundred cells one may be.
    assert found.min() >= 0.93 - 0.057
    assert paired.min() >= 0.93 - 0.09
    assert 0.95 <= found.mean() <= 0.965
    assert 0.95 <= paired.mean() <= 0.985
    assert plain.mean() < 0.94


@pytest.mark.slow
def test_report_has_every_table() -> None:
    text = report(draws=4, draws_of_others=2)

    for title in ("## Chosen interval", "## False alarms", "## Power", "sign flips of 1,700 clusters"):
        assert title in text
    assert text.count("percentile bootstrap |") == 6
    assert set(METHODS) == set(PAIRED)

"""Concordance against all pairs one by one, and what its interval holds."""

from __future__ import annotations

import numpy as np
import pytest

from lit_align.metrics.concordance import concordance


def naive(values: np.ndarray, truth: np.ndarray) -> float:
    good = total = 0.0
    for i in range(len(values)):
        for j in range(len(values)):
            if truth[i] > truth[j]:
                total += 1
                good += 1.0 if values[i] > values[j] else 0.5 if values[i] == values[j] else 0.0
    return good / total


@pytest.mark.parametrize("levels", [2, 5])
def test_it_is_the_share_of_ordered_pairs(levels: int) -> None:
    random = np.random.default_rng(levels)
    for _ in range(20):
        truth = random.integers(0, levels, 30)
        values = np.round(truth + random.normal(size=30), 1)
        assert concordance(values, truth, [str(i) for i in range(30)]).mean == pytest.approx(naive(values, truth))


def test_many_items_are_compared_in_parts() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 600)
    values = truth + random.normal(size=600)
    assert concordance(values, truth, [str(i) for i in range(600)]).mean == pytest.approx(naive(values, truth))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        of_cluster = np.repeat(np.arange(40), 3)
        truth = random.integers(0, 2, 120)
        values = truth + 0.7 * random.normal(size=40)[of_cluster] + random.normal(size=120)
        found = concordance(values, truth, of_cluster.astype(str).tolist())
        # Difference of a good and a bad value of two clusters: mean 1, variance 2 · (1 + 0.49); P(> 0) = Phi(0.579).
        held += found.low <= 0.7187 <= found.high
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize("side", [1, -1])
def test_a_perfect_order_has_a_one_sided_bound(side: int) -> None:
    found = concordance(np.arange(10) * side, np.arange(10), [str(i) for i in range(10)])
    assert found.mean == (side > 0)
    assert found.high - found.low == pytest.approx(1 - 0.025**0.1)


@pytest.mark.parametrize("clusters", ["aaaa", "abab"])
def test_no_interval_has_zero_width_where_clusters_cannot_differ(clusters: str) -> None:
    found = concordance([1.0, 1.0, 1.0, 1.0], [0, 0, 1, 1], list(clusters))
    assert found.low < found.mean == 0.5 < found.high
    assert found.too_few


def test_items_that_do_not_differ_in_truth_are_refused() -> None:
    with pytest.raises(ValueError, match="needs items that differ in truth"):
        concordance([1, 2], [1, 1], ["a", "b"])

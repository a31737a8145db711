"""Win rates: by hand, unmoved by order and names, with the advantage of length taken out; coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lit_align.metrics.win_rate import length_controlled_win_rate, win_rate


def names(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def test_ties_count_half() -> None:
    found = win_rate([1, 2, 3, 4], [2, 2, 2, 5], names(4))
    assert (found.n, found.wins, found.ties, found.rate.mean) == (4, 2, 1, 0.625)
    assert found.rate.low < 0.625 < found.rate.high


def test_equal_answers_are_exactly_even() -> None:
    assert win_rate([1.5, 2.5], [1.5, 2.5], names(2)).rate.mean == 0.5
    assert length_controlled_win_rate([1, 2], [1, 2], [0, 0], names(2)).mean == pytest.approx(0.5, abs=1e-12)


def test_only_the_order_of_two_scores_matters() -> None:
    before, after = np.array([0.1, 0.5, 2.0]), np.array([0.2, 0.4, 9.0])
    assert win_rate(before, after, names(3)) == win_rate(np.exp(before), np.exp(after), names(3))


def outcomes(n: int, seed: int, theta: float, phi: float) -> tuple[np.ndarray, np.ndarray]:
    """Differences of score and of length, as the model of the regression makes them."""
    random = np.random.default_rng(seed)
    longer_by = random.normal(20, 100, n)
    p = 1 / (1 + np.exp(-(theta + phi * np.tanh(longer_by / longer_by.std()))))
    return np.where(random.random(n) < p, 1.0, -1.0), longer_by


def test_what_length_alone_decides_is_taken_out() -> None:
    wins, longer_by = outcomes(2000, 0, theta=0.0, phi=3.0)
    zero = np.zeros(len(wins))
    plain = win_rate(zero, wins, names(len(wins))).rate
    controlled = length_controlled_win_rate(zero, wins, longer_by, names(len(wins)), resamples=150)
    assert plain.low > 0.52
    assert controlled.low < 0.5 < controlled.high


def test_what_quality_decides_is_left_in() -> None:
    wins, longer_by = outcomes(2000, 1, theta=1.0, phi=-2.0)
    controlled = length_controlled_win_rate(np.zeros(len(wins)), wins, longer_by, names(len(wins)), resamples=150)
    assert controlled.low < 1 / (1 + math.exp(-1.0)) < controlled.high
    assert controlled.high - controlled.low < 0.09


def test_the_estimate_maximises_the_penalised_likelihood() -> None:
    wins, longer_by = outcomes(40, 2, theta=0.5, phi=1.0)
    wins[:5] = 0.0  # ties
    y, terms = (wins + 1) / 2, np.tanh(longer_by / longer_by.std())
    mean = length_controlled_win_rate(np.zeros(40), wins, longer_by, names(40), resamples=1).mean

    def loss(theta: float, phi: float) -> float:
        logits = theta + phi * terms
        tie = np.logaddexp(0, theta) - theta / 2
        return float((np.logaddexp(0, logits) - y * logits).sum() + tie + 0.05 * phi**2)

    grid = [(theta, phi) for theta in np.linspace(-0.5, 1.5, 101) for phi in np.linspace(-1, 3, 41)]
    theta, _ = min(grid, key=lambda one: loss(*one))
    assert math.log(mean / (1 - mean)) == pytest.approx(theta, abs=0.021)


def test_without_differences_of_length_it_is_the_plain_rate_drawn_in_by_one_tie() -> None:
    found = length_controlled_win_rate([0] * 9, [1] * 6 + [-1] * 3, [0] * 9, names(9), resamples=50)
    assert found.mean == pytest.approx((6 + 0.5) / 10)


@pytest.mark.parametrize("longer_by", [np.zeros(12), np.full(12, 5.0), np.arange(12.0) - 6], ids=str)
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_where_one_side_always_wins_the_estimate_is_finite_and_its_interval_has_a_width(
    longer_by: np.ndarray, side: float
) -> None:
    found = length_controlled_win_rate(np.zeros(12), np.full(12, side), longer_by, names(12), resamples=50)
    assert 0 < found.mean < 1
    assert (found.mean > 0.5) == (side > 0)
    assert found.high - found.low > 0.1


@pytest.mark.parametrize("clusters", ["aaaa", "abab"])
def test_no_interval_has_zero_width_where_clusters_cannot_differ(clusters: str) -> None:
    arms = [0.0] * 4, [1.0, 1, -1, -1], [5.0, 5, 5, 5]
    found = length_controlled_win_rate(*arms, list(clusters), resamples=50)
    plain = win_rate(*arms[:2], list(clusters)).rate
    assert (found.low, found.high) == (plain.low, plain.high)
    assert found.too_few == plain.too_few


def test_where_length_explains_every_outcome_the_estimate_is_finite() -> None:
    longer_by = np.array([5.0, 6, 7, 8, -5, -6, -7, -8])
    found = length_controlled_win_rate(np.zeros(8), np.sign(longer_by), longer_by, names(8), resamples=200)
    assert found.mean == pytest.approx(0.5, abs=0.01)
    assert 0 < found.low < 0.5 < found.high < 1


def test_neither_order_nor_names_of_clusters_matter_and_the_seed_does() -> None:
    wins, longer_by = outcomes(60, 3, theta=0.3, phi=1.0)
    clusters = [f"c{i // 3:02}" for i in range(60)]
    zero = np.zeros(60)
    found = length_controlled_win_rate(zero, wins, longer_by, clusters, resamples=200)
    turn = np.random.default_rng(0).permutation(60)
    moved = length_controlled_win_rate(
        zero, wins[turn], longer_by[turn], [clusters[place] for place in turn], resamples=200
    )
    assert (moved.mean, moved.low, moved.high) == pytest.approx((found.mean, found.low, found.high), abs=1e-9)
    other = length_controlled_win_rate(zero, wins, longer_by, clusters, resamples=200, seed=1)
    assert other.mean == found.mean
    assert other.low != found.low


def test_items_of_one_cluster_are_resampled_together() -> None:
    wins, longer_by = outcomes(30, 4, theta=0.3, phi=1.0)
    zero = np.zeros(150)
    copies = [str(i) for i in range(30) for _ in range(5)]
    many = np.repeat(wins, 5), np.repeat(longer_by, 5)
    together = length_controlled_win_rate(zero, *many, copies, resamples=400)
    alone = length_controlled_win_rate(zero, *many, names(150), resamples=400)
    assert together.high - together.low > 1.7 * (alone.high - alone.low)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    truth, held = 1 / (1 + math.exp(-0.4)), 0
    for seed in range(150):
        wins, longer_by = outcomes(100, 100 + seed, theta=0.4, phi=1.0)
        found = length_controlled_win_rate(np.zeros(100), wins, longer_by, names(100), resamples=150, seed=seed)
        held += found.low <= truth <= found.high
    assert 0.90 <= held / 150 <= 0.99


@pytest.mark.parametrize(
    ("before", "after", "longer_by", "said"),
    [
        ([], [], [], "needs two scores a prompt"),
        ([1, 2], [1], [0, 0], "needs two scores a prompt"),
        ([1, math.nan], [1, 2], [0, 0], "item 1: scores must be finite"),
        ([1, 2], [1, 2], [0], "2 prompts, 1 differences of length"),
        ([1, 2], [1, 2], [0, math.inf], "a difference of length is not finite: item 1"),
    ],
)
def test_what_is_no_comparison_is_refused(
    before: list[float], after: list[float], longer_by: list[float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        length_controlled_win_rate(before, after, longer_by, names(len(before)))

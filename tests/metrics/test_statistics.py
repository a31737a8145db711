from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from lit_align.metrics.statistics import Interval, cluster_bootstrap, paired_cluster_bootstrap


def clustered_rates(rng: np.random.Generator, clusters: int, size: int) -> tuple[NDArray[np.float64], list[str]]:
    """Right-or-wrong outcomes whose rate differs by cluster; their mean rate is 0.6."""
    rates = rng.beta(1.2, 0.8, size=clusters)
    outcomes = (rng.random((clusters, size)) < rates[:, None]).astype(float).ravel()
    return outcomes, [str(index) for index in np.repeat(np.arange(clusters), size)]


def test_hand_computed_case() -> None:
    # Clusters (sum before, sum after, size): a (0, 1, 1) and b (1, 2, 3). Of the four equally likely resamples the
    # ratios of the difference are 1, 2/4, 2/4, 1/3; of the first arm 0, 1/4, 1/4, 1/3; of the second 1, 3/4, 3/4, 2/3.
    summary = paired_cluster_bootstrap([0, 0, 0, 1], [1, 1, 0, 1], ["a", "b", "b", "b"])

    assert (summary.n, summary.n_clusters) == (4, 2)
    assert summary.before == Interval(0.25, 0.0, pytest.approx(1 / 3))
    assert summary.after == Interval(0.75, pytest.approx(2 / 3), 1.0)
    assert summary.difference == Interval(0.5, pytest.approx(1 / 3), 1.0)


def test_single_arm_equals_the_arm_of_a_pair() -> None:
    rng = np.random.default_rng(1)
    before, clusters = clustered_rates(rng, 30, 4)
    after = 1 - before

    summary = paired_cluster_bootstrap(before, after, clusters)

    assert summary.before.mean == pytest.approx(cluster_bootstrap(before, clusters).mean)
    assert summary.before.low == pytest.approx(cluster_bootstrap(before, clusters).low, abs=0.01)


def test_singletons_equal_the_normal_interval() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.random(600), rng.random(600) ** 0.5
    summary = paired_cluster_bootstrap(before, after, [str(index) for index in range(600)], resamples=40_000)

    z = NormalDist().inv_cdf(0.975)
    for scores, interval in ((before, summary.before), (after, summary.after), (after - before, summary.difference)):
        error = scores.std() / math.sqrt(600)
        assert interval.mean == pytest.approx(scores.mean())
        assert interval.low == pytest.approx(scores.mean() - z * error, abs=0.05 * error)
        assert interval.high == pytest.approx(scores.mean() + z * error, abs=0.05 * error)


def test_clusters_equal_the_clustered_standard_error() -> None:
    rng = np.random.default_rng(3)
    scores, clusters = clustered_rates(rng, 300, 5)
    interval = cluster_bootstrap(scores, clusters, resamples=20_000)

    # Miller 2024, equation 4: sums of the deviations within a cluster, squared.
    sums = (scores - scores.mean()).reshape(300, 5).sum(axis=1)
    error = math.sqrt(float((sums**2).sum())) / len(scores)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.03)


def test_order_of_items_and_names_of_clusters_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    before, clusters = clustered_rates(rng, 25, 3)
    before, after = before * rng.random(75), rng.random(75)
    order = rng.permutation(75)
    renamed = {name: f"table {1000 - int(name)}" for name in clusters}

    shuffled = paired_cluster_bootstrap(before[order], after[order], [renamed[clusters[index]] for index in order])

    assert shuffled == paired_cluster_bootstrap(before, after, clusters)


def test_resampling_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    scores, clusters = clustered_rates(rng, 40, 2)
    whole = cluster_bootstrap(scores, clusters, resamples=999)

    monkeypatch.setattr("lit_align.metrics.statistics._CHUNK_CELLS", 1700)

    assert cluster_bootstrap(scores, clusters, resamples=999) == whole


def test_global_random_state_is_left_alone() -> None:
    state = np.random.get_state()[1].tolist()
    cluster_bootstrap([0, 1], ["a", "b"])

    assert np.random.get_state()[1].tolist() == state


def test_intervals_of_clustered_items_cover_and_planted_independence_does_not() -> None:
    rng = np.random.default_rng(6)
    covered = covered_if_independent = 0
    wider = 0
    trials = 300
    for _ in range(trials):
        scores, clusters = clustered_rates(rng, 40, 8)
        ours = cluster_bootstrap(scores, clusters, resamples=600)
        planted = cluster_bootstrap(scores, [str(index) for index in range(len(scores))], resamples=600)
        covered += ours.low <= 0.6 <= ours.high
        covered_if_independent += planted.low <= 0.6 <= planted.high
        wider += ours.high - ours.low > planted.high - planted.low

    # Three standard errors of a share of 0.95 over 300 trials are 0.038.
    assert 0.90 <= covered / trials <= 0.99
    assert covered_if_independent / trials < 0.80
    assert wider == trials


def test_paired_difference_is_narrower_than_the_arms_suggest() -> None:
    rng = np.random.default_rng(7)
    before, clusters = clustered_rates(rng, 60, 3)
    after = np.where(rng.random(180) < 0.05, 1.0, before)

    summary = paired_cluster_bootstrap(before, after, clusters)

    assert summary.difference.low > 0
    assert summary.difference.high - summary.difference.low < 0.4 * (summary.after.high - summary.after.low)


@pytest.mark.parametrize("clusters", [1, 10, 100])
def test_rate_of_zero_or_one_has_the_clopper_pearson_interval_of_the_clusters(clusters: int) -> None:
    names = [str(index // 3) for index in range(3 * clusters)]
    zero = cluster_bootstrap([0.0] * len(names), names)
    one = cluster_bootstrap([1.0] * len(names), names)

    # The bound p solves (1 - p)^K = 0.025: as rare as the two-sided level allows.
    assert (zero.mean, zero.low) == (0.0, 0.0)
    assert (1 - zero.high) ** clusters == pytest.approx(0.025)
    assert (one.mean, one.high) == (1.0, 1.0)
    assert one.low == pytest.approx(1 - zero.high)


def test_equal_arms_claim_no_difference_of_exactly_zero() -> None:
    scores = [0.0, 1.0] * 20
    summary = paired_cluster_bootstrap(scores, scores, [str(index) for index in range(40)])

    unseen = 1 - 0.025 ** (1 / 40)
    assert summary.difference == Interval(0.0, pytest.approx(-unseen), pytest.approx(unseen))


@pytest.mark.parametrize(
    ("value", "bounds", "low", "high"),
    [
        (0.0, (0.0, math.inf), 0.0, math.inf),
        (-2.5, (-math.inf, 0.0), -math.inf, -2.5 + 2.5 * (1 - 0.025 ** (1 / 30))),
        (7.0, (-math.inf, math.inf), -math.inf, math.inf),
    ],
)
def test_agreement_bounds_a_measure_only_where_it_has_a_bound(
    value: float, bounds: tuple[float, float], low: float, high: float
) -> None:
    names = [str(index // 2) for index in range(60)]
    nearly = [value * (1 + 1e-15 * (index % 3)) for index in range(60)]  # as rounding leaves it

    for scores in ([value] * 60, nearly):
        interval = cluster_bootstrap(scores, names, bounds=bounds)
        assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_log_probs_have_the_clustered_normal_interval() -> None:
    rng = np.random.default_rng(8)
    shared = np.repeat(rng.normal(-40, 9, size=300), 4)
    before, clusters = shared + rng.normal(0, 2, size=1200), [str(index // 4) for index in range(1200)]
    after = before - 1.5 + rng.normal(0, 1, size=1200)
    summary = paired_cluster_bootstrap(before, after, clusters, bounds=(-math.inf, math.inf))

    for values, interval in ((before, summary.before), (after - before, summary.difference)):
        sums = (values - values.mean()).reshape(300, 4).sum(axis=1)
        error = math.sqrt(float((sums**2).sum())) / len(values)
        assert interval.mean == pytest.approx(values.mean())
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_single_cluster_says_almost_nothing() -> None:
    interval = cluster_bootstrap([0.0, 1.0, 1.0, 0.0], ["only"] * 4)

    assert interval == Interval(0.5, pytest.approx(0.0125), pytest.approx(0.9875))


@pytest.mark.parametrize(
    ("scores", "clusters", "options", "message"),
    [
        ([], [], {}, "non-empty"),
        ([0.5, 1.5], ["a", "b"], {}, r"score 1.5 of item 1 is not within the bounds \(0.0, 1.0\)"),
        ([float("nan")], ["a"], {}, "score nan of item 0"),
        ([-math.inf], ["a"], {"bounds": (-math.inf, 0.0)}, "score -inf of item 0"),
        ([0.5], ["a", "b"], {}, r"one length, got \[1\] and 2"),
        ([0.5], ["a"], {"level": 95}, "level must lie between 0 and 1"),
        ([0.5], ["a"], {"resamples": 0}, "resamples must be at least 1"),
        ([0.5], ["a"], {"bounds": (1, 0)}, "bounds must be"),
    ],
)
def test_nonsense_is_refused(
    scores: list[float], clusters: list[str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cluster_bootstrap(scores, clusters, **options)

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lit_align.metrics.statistics import Interval, is_better, mean_interval, paired_summary

INF = math.inf
T_19 = 2.0930240544082634  # quantile .975 of Student's distribution with 19 degrees of freedom, from tables


def clustered_rates(rng: np.random.Generator, clusters: int, size: int) -> tuple[NDArray[np.float64], list[str]]:
    """Right-or-wrong outcomes whose rate differs by cluster; their mean rate is 0.6."""
    rates = rng.beta(1.2, 0.8, size=clusters)
    outcomes = (rng.random((clusters, size)) < rates[:, None]).astype(float).ravel()
    return outcomes, [str(index) for index in np.repeat(np.arange(clusters), size)]


def test_share_has_the_logit_interval_by_hand() -> None:
    # 15 of 20 right, each item a cluster: SE² = 20/19 · 20 · .75 · .25 / 20² = .25² · 3/19.
    interval = mean_interval([1.0] * 15 + [0.0] * 5, [str(index) for index in range(20)])

    half = T_19 * 0.25 * math.sqrt(3 / 19) / (0.75 * 0.25)
    ends = [1 / (1 + math.exp(-(math.log(3) + side * half))) for side in (-1, 1)]
    assert interval == Interval(0.75, pytest.approx(ends[0]), pytest.approx(ends[1]))


def test_other_bounds_are_the_same_share_on_their_scale() -> None:
    names = [str(index) for index in range(20)]
    share = mean_interval([1.0] * 15 + [0.0] * 5, names)
    rating = mean_interval([10.0] * 15 + [1.0] * 5, names, bounds=(1, 10))

    assert (rating.low, rating.high) == (pytest.approx(1 + 9 * share.low), pytest.approx(1 + 9 * share.high))


def test_numbers_without_bounds_have_students_interval_with_two_clusters_added() -> None:
    # Ten of +1 and ten of -1: SE² = 20/19 · 20 / 20² = 1/19, and two more of the same size make it 1/19 · 22/20.
    interval = mean_interval([1.0, -1.0] * 10, [str(index) for index in range(20)], bounds=(-INF, INF))

    assert interval.high == pytest.approx(T_19 * math.sqrt(1.1 / 19))
    assert interval.low == pytest.approx(-interval.high)


def test_a_measure_with_one_bound_has_an_interval_within_it_and_symmetric_in_its_logarithm() -> None:
    values, names = [0.1, 0.2, 0.1, 9.0] * 5, [str(index) for index in range(20)]
    above = mean_interval(values, names, bounds=(0, INF))
    below = mean_interval([-value for value in values], names, bounds=(-INF, 0))

    assert 0 < above.low < above.mean
    assert above.high / above.mean == pytest.approx(above.mean / above.low)
    assert (below.low, below.high) == (pytest.approx(-above.high), pytest.approx(-above.low))


def test_clusters_have_the_clustered_standard_error_and_planted_independence_is_narrower() -> None:
    scores, clusters = clustered_rates(np.random.default_rng(3), 300, 5)
    interval = mean_interval(scores, clusters)

    # Miller 2024, equation 4: sums of the deviations within a cluster, squared.
    sums = (scores - scores.mean()).reshape(300, 5).sum(axis=1)
    error = math.sqrt(float((sums**2).sum())) / len(scores)
    assert interval.high - interval.low == pytest.approx(2 * 1.968 * error, rel=0.01)
    independent = mean_interval(scores, [str(index) for index in range(len(scores))])
    assert independent.high - independent.low < 0.8 * (interval.high - interval.low)


def test_order_of_items_and_names_of_clusters_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    before, clusters = clustered_rates(rng, 25, 3)
    before, after = before * rng.random(75), rng.random(75)
    order = rng.permutation(75)
    renamed = {name: f"table {1000 - int(name)}" for name in clusters}

    shuffled = paired_summary(before[order], after[order], [renamed[clusters[index]] for index in order])

    assert shuffled == paired_summary(before, after, clusters)


@pytest.mark.parametrize("clusters", [1, 10, 100])
def test_rate_of_zero_or_one_has_the_clopper_pearson_interval_of_the_clusters(clusters: int) -> None:
    names = [str(index // 3) for index in range(3 * clusters)]
    zero = mean_interval([0.0] * len(names), names)
    one = mean_interval([1.0] * len(names), names)

    # The bound p solves (1 - p)^K = 0.025: as rare as the two-sided level allows.
    assert (zero.mean, zero.low) == (0.0, 0.0)
    assert (1 - zero.high) ** clusters == pytest.approx(0.025)
    assert (one.mean, one.high) == (1.0, 1.0)
    assert one.low == pytest.approx(1 - zero.high)


@pytest.mark.parametrize(
    ("value", "bounds", "low", "high"),
    [
        (0.0, (0.0, INF), 0.0, INF),
        (-2.5, (-INF, 0.0), -INF, -2.5 + 2.5 * (1 - 0.025 ** (1 / 30))),
        (7.0, (-INF, INF), -INF, INF),
    ],
)
def test_agreement_bounds_a_measure_only_where_it_has_a_bound(
    value: float, bounds: tuple[float, float], low: float, high: float
) -> None:
    names = [str(index // 2) for index in range(60)]
    nearly = [value * (1 + 1e-15 * (index % 3)) for index in range(60)]  # as rounding leaves it

    for scores in ([value] * 60, nearly):
        interval = mean_interval(scores, names, bounds=bounds)
        assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_a_single_cluster_says_almost_nothing() -> None:
    interval = mean_interval([0.0, 1.0, 1.0, 0.0], ["only"] * 4)

    assert interval == Interval(0.5, pytest.approx(0.0125), pytest.approx(0.9875), too_few=True)


def test_fewer_than_ten_clusters_are_called_too_few() -> None:
    names = [str(index // 2) for index in range(20)]

    assert not mean_interval([0.0, 1.0] * 10, names).too_few
    assert mean_interval([0.0, 1.0] * 9, names[:18]).too_few
    assert paired_summary([0.0, 1.0] * 9, [1.0] * 18, names[:18]).difference.too_few


def test_arms_of_a_pair_have_the_intervals_of_their_own() -> None:
    rng = np.random.default_rng(1)
    before, clusters = clustered_rates(rng, 30, 4)
    summary = paired_summary(before, 1 - before, clusters)

    assert (summary.n, summary.n_clusters) == (120, 30)
    assert summary.before == mean_interval(before, clusters)
    assert summary.after == mean_interval(1 - before, clusters)


def test_equal_arms_claim_no_difference_of_exactly_zero() -> None:
    scores = [0.0, 1.0] * 20
    summary = paired_summary(scores, scores, [str(index) for index in range(40)])

    # Neither gains nor losses were seen; both may be as frequent as u.
    unseen = 1 - 0.025 ** (1 / 40)
    assert summary.difference == Interval(0.0, pytest.approx(-unseen), pytest.approx(unseen))


def test_difference_that_all_clusters_share_is_not_certain() -> None:
    names = [str(index) for index in range(40)]
    difference = paired_summary([0.25] * 40, [0.5] * 40, names).difference

    assert difference.mean == pytest.approx(0.25)
    assert 0.2 < difference.low < 0.25 < difference.high < 0.35


def test_swapped_arms_have_the_mirrored_difference() -> None:
    rng = np.random.default_rng(5)
    before, clusters = clustered_rates(rng, 30, 3)
    after = np.where(rng.random(90) < 0.2, 1 - before, before)
    forth = paired_summary(before, after, clusters).difference
    back = paired_summary(after, before, clusters).difference

    assert (back.mean, back.low, back.high) == (
        pytest.approx(-forth.mean), pytest.approx(-forth.high), pytest.approx(-forth.low),
    )  # fmt: skip


def test_paired_difference_is_narrower_than_the_arms_suggest() -> None:
    rng = np.random.default_rng(7)
    before, clusters = clustered_rates(rng, 60, 3)
    after = np.where(rng.random(180) < 0.2, 1.0, before)

    summary = paired_summary(before, after, clusters)

    assert summary.difference.low > 0
    assert summary.difference.high - summary.difference.low < 0.8 * (summary.after.high - summary.after.low)


def test_many_changes_both_ways_have_the_interval_of_the_difference_itself() -> None:
    # Tables that change much change both ways; gains and losses then vary together, and their difference does not.
    rng = np.random.default_rng(9)
    before, clusters = clustered_rates(rng, 280, 6)
    after = np.where(np.repeat(rng.random(280) < 0.5, 6), rng.integers(2, size=1680), before)
    difference = paired_summary(before, after, clusters).difference

    sums = (after - before).reshape(280, 6).sum(axis=1)
    error = math.sqrt(float(((sums - sums.mean()) ** 2).sum())) / 1680
    assert difference.high - difference.low == pytest.approx(2 * 1.968 * error, rel=0.05)


def test_log_probs_have_the_clustered_students_interval() -> None:
    rng = np.random.default_rng(8)
    shared = np.repeat(rng.normal(-40, 9, size=300), 4)
    before, clusters = shared + rng.normal(0, 2, size=1200), [str(index // 4) for index in range(1200)]
    after = np.minimum(before - 1.5 + rng.normal(0, 1, size=1200), 0)
    summary = paired_summary(before, after, clusters, bounds=(-INF, 0))

    for values, interval in ((before, summary.before), (after - before, summary.difference)):
        sums = (values - values.mean()).reshape(300, 4).sum(axis=1)
        error = math.sqrt(float((sums**2).sum())) / len(values)
        assert interval.high - interval.low == pytest.approx(2 * 1.968 * error, rel=0.02)


def test_better_is_what_clears_its_interval() -> None:
    questions = [str(index) for index in range(40)]
    base = [0.0] * 40

    assert is_better(base, [1.0] * 10 + [0.0] * 30, questions)
    assert not is_better(base, [1.0] * 2 + [0.0] * 38, questions)
    assert not is_better([1.0] * 10 + [0.0] * 30, base, questions)
    assert not is_better(base, base, questions)


@pytest.mark.parametrize(
    ("scores", "clusters", "options", "message"),
    [
        ([], [], {}, "non-empty"),
        ([0.5, 1.5], ["a", "b"], {}, r"score 1.5 of item 1 is not within the bounds \(0.0, 1.0\)"),
        ([float("nan")], ["a"], {}, "score nan of item 0"),
        ([-INF], ["a"], {"bounds": (-INF, 0.0)}, "score -inf of item 0"),
        ([0.5], ["a", "b"], {}, r"one length, got \[1\] and 2"),
        ([0.5], ["a"], {"level": 95}, "level must lie between 0 and 1"),
        ([0.5], ["a"], {"bounds": (1, 0)}, "bounds must be"),
    ],
)
def test_nonsense_is_refused(
    scores: list[float], clusters: list[str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(scores, clusters, **options)


def test_arms_of_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="before and after must have one length, got 2 and 1"):
        paired_summary([0, 1], [0], ["a", "b"])


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (1.0, 10.0), (0.0, INF), (-INF, 0.0), (-INF, INF)])
def test_no_interval_has_zero_width_leaves_the_bounds_or_misses_its_mean(bounds: tuple[float, float]) -> None:
    rng = np.random.default_rng(10)
    low, high = (max(bounds[0], -50.0), min(bounds[1], 50.0))
    for _ in range(300):
        count = int(rng.integers(1, 40))
        names = [str(name) for name in rng.integers(1 + count // 2, size=count)]
        few = rng.random(count) < 0.1
        kinds = [
            rng.choice([low, high], size=count), rng.uniform(low, high, size=count), np.full(count, low),
            np.where(few, high, low), np.where(few, low + 1e-9, low),
        ]  # fmt: skip
        before, after = (kinds[index] for index in rng.integers(len(kinds), size=2))
        summary = paired_summary(before, after, names, bounds=bounds)
        span = bounds[1] - bounds[0]
        for interval, (least, most) in (
            (summary.before, bounds), (summary.after, bounds), (summary.difference, (-span, span)),
        ):  # fmt: skip
            assert least - 1e-9 <= interval.low <= interval.mean <= interval.high <= most + 1e-9
            assert interval.low < interval.high


def test_scores_a_rounding_error_from_a_bound_have_an_interval() -> None:
    names = [str(index) for index in range(3_000)]
    scores = [1.0] * 2_999 + [1.0 - 3e-12]
    interval = mean_interval(scores, names)

    assert math.isfinite(interval.low)
    assert interval.low < interval.high == 1.0

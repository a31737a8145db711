from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from lit_align.metrics.statistics import Decision, decisions, holm, minimum_detectable_effect, paired_test
from lit_align.metrics.statistics.decisions import mcnemar, sign_flip


def singles(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def test_sign_flip_equals_the_enumeration_of_all_patterns() -> None:
    sums = np.array([0.5, -1.25, 2.0, 0.75, 3.0, -0.25, 1.5])
    patterns = [abs(sum(sign * one for sign, one in zip(signs, sums, strict=True)))
                for signs in itertools.product((1, -1), repeat=len(sums))]  # fmt: skip
    observed = abs(sums.sum())
    above, equal = sum(one > observed for one in patterns), patterns.count(observed)

    assert equal >= 2
    assert sign_flip(sums) == (above + equal / 2) / 2**7


def test_random_flips_estimate_the_enumeration() -> None:
    sums = np.random.default_rng(0).normal(0.4, 1, size=13)

    assert sign_flip(sums, flips=4_000) == pytest.approx(sign_flip(sums, flips=2**13), abs=0.02)


def test_sign_flip_of_independent_pairs_is_mcnemars_test() -> None:
    for gains, losses in ((6, 0), (7, 2), (3, 4), (1, 0), (5, 5)):
        changes = np.array([1.0] * gains + [-1.0] * losses + [0.0] * 20)
        assert sign_flip(changes) == pytest.approx(mcnemar(gains, losses))


def test_mcnemar_is_the_binomial_with_half_of_the_count_itself() -> None:
    # Of 9 changes 2 or fewer one way: (1 + 9 + 36 / 2) / 2^9, twice.
    assert mcnemar(7, 2) == pytest.approx(2 * (1 + 9 + 18) / 2**9)
    assert mcnemar(2, 7) == mcnemar(7, 2)


def test_no_difference_has_a_p_value_of_one_and_none_has_zero() -> None:
    names = [str(index // 2) for index in range(60)]
    scores = [0.3, 0.7] * 30

    assert paired_test(scores, scores, names).p_value == 1.0
    assert paired_test([0, 1] * 30, [1, 0] * 30, names).p_value == 1.0  # it cancels in every cluster
    assert mcnemar(0, 0) == 1.0
    assert 0 < sign_flip(np.ones(1_700), flips=1_000) <= 1 / 1_000
    assert mcnemar(5_000, 0) > 0


def test_the_test_fits_the_items() -> None:
    right, wrong = [1.0] * 12, [0.0] * 12

    assert paired_test(wrong, right, singles(12)) == Decision(2.0**-12, "McNemar")
    assert paired_test(wrong, right, [str(index // 2) for index in range(12)]).method == "sign-flip"
    assert paired_test([0.5] * 12, right, singles(12)).method == "sign-flip"


def test_clusters_are_flipped_whole() -> None:
    # Twelve items of two tables that all rose: two independent changes, not twelve.
    tables = ["a"] * 6 + ["b"] * 6

    assert paired_test([0.0] * 12, [1.0] * 12, tables).p_value == 0.25
    assert paired_test([0.0] * 12, [1.0] * 12, singles(12)).p_value < 0.001


def test_order_seed_and_direction() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.random(90), rng.random(90)
    names, order = [str(index // 3) for index in range(90)], rng.permutation(90)
    decision = paired_test(before, after, names)

    assert decision == paired_test(before[order], after[order], [names[index] for index in order])
    assert decision.p_value == pytest.approx(paired_test(after, before, names).p_value, abs=0.02)
    assert decision != paired_test(before, after, names, seed=1)


def test_flips_in_chunks_change_nothing_and_hold_little(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(2).standard_normal(1_700)
    tracemalloc.start()
    whole = sign_flip(sums)  # 10,000 flips of 1,700 clusters
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    monkeypatch.setattr(decisions, "_CHUNK_CELLS", 1_700 * 777)

    # 17 million signs, of which a million are held: as int8, as float64, and no more.
    assert peak < 20e6
    assert sign_flip(sums) == whole


def test_global_random_state_is_left_alone() -> None:
    state = np.random.get_state()[1].tolist()
    sign_flip(np.arange(40.0))

    assert np.random.get_state()[1].tolist() == state


def test_holm_by_hand_and_never_below_the_p_value_itself() -> None:
    # Sorted .01 · 4, then max(.04, .02 · 3), .06 and .03 · 2, .06 and .5.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1.0, 1.0]


def test_p_values_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must lie between 0 and 1, got 1.5"):
        holm([0.1, 1.5])
    with pytest.raises(ValueError, match="must lie between 0 and 1, got nan"):
        holm([math.nan])
    with pytest.raises(ValueError, match="flips must be at least 1"):
        paired_test([0.5], [0.5], ["a"], flips=0)


def test_detectable_effect_by_hand() -> None:
    # Ten pairs of either change, 20 clusters: SE² = 1/19 · 22/20; quantiles of Student's t, 19 degrees: .975 and .8.
    effect = minimum_detectable_effect([0.0, 1.0] * 10, [1.0, 0.0] * 10, singles(20))

    assert effect == pytest.approx((2.0930241 + 0.8609506) * math.sqrt(1.1 / 19), rel=1e-6)


def test_detectable_effect_shrinks_with_the_items_and_ignores_the_mean_difference() -> None:
    few, many = ([minimum_detectable_effect([0.0, 1.0, 1.0, 0.0] * n, [1.0, 0.0, 1.0, 0.0] * n, singles(4 * n))
                  for n in (10, 90)])  # fmt: skip
    rng = np.random.default_rng(3)
    before, noise = rng.random(50) / 4, rng.random(50) / 4
    effects = [minimum_detectable_effect(before, before + noise + shift, singles(50)) for shift in (0.0, 0.5)]

    assert many == pytest.approx(few / 3, rel=0.1)
    assert effects[0] == pytest.approx(effects[1])


def test_detectable_effect_without_any_difference_is_what_five_clusters_could_show() -> None:
    scores = [1.0] * 40
    effect = minimum_detectable_effect(scores, scores, singles(40))

    # At this share of changing clusters five of 40 or more change in 80 % of cases.
    found = 1 - sum(math.comb(40, k) * effect**k * (1 - effect) ** (40 - k) for k in range(5))
    assert found == pytest.approx(0.8)
    assert mcnemar(5, 0) <= 0.05 < mcnemar(4, 0)
    assert minimum_detectable_effect(scores, scores, singles(40), bounds=(1, 10)) == pytest.approx(9 * effect)
    assert minimum_detectable_effect(scores, scores, singles(40), bounds=(0, math.inf)) == math.inf
    assert minimum_detectable_effect([1.0] * 4, [1.0] * 4, singles(4)) == math.inf


def test_a_power_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="power must lie between 0 and 1, got 80"):
        minimum_detectable_effect([0.5], [0.5], ["a"], power=80)

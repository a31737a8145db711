from __future__ import annotations

import pytest

from lit_align.evals.benchmark import SHARE, ItemResult
from lit_align.evals.curves import curves
from lit_align.metrics.statistics import mean_interval, paired_summary


def results(scores: list[dict[str, float]]) -> list[ItemResult]:
    return [
        ItemResult(str(i), f"c{i // 2}", "even" if i % 2 == 0 else "odd", "?", "", "", one, False, 1)
        for i, one in enumerate(scores)
    ]


RIGHT = {"sums": {"right": SHARE}}
BEFORE = results([{"right": float(i % 3 == 0)} for i in range(40)])
AFTER = results([{"right": float(i % 3 < 2)} for i in range(40)])
CLUSTERS = [item.cluster for item in AFTER]


def test_means_of_all_items_and_of_each_skill() -> None:
    found = curves({"sums": AFTER}, RIGHT)

    assert found["val/benchmark/sums"] == pytest.approx(27 / 40)
    assert found["val/benchmark/sums/even"] == pytest.approx(0.65)
    assert found["val/benchmark/sums/odd"] == pytest.approx(0.7)
    assert not any("difference" in key for key in found)


def test_intervals_and_paired_differences_are_those_of_the_tables() -> None:
    found = curves({"sums": AFTER}, RIGHT, {"sums": BEFORE})
    before, after = ([item.scores["right"] for item in items] for items in (BEFORE, AFTER))
    own, paired = mean_interval(after, CLUSTERS), paired_summary(before, after, CLUSTERS).difference

    assert (found["val/benchmark_ci/sums/low"], found["val/benchmark_ci/sums/high"]) == (own.low, own.high)
    assert found["val/benchmark_difference/sums"] == paired.mean == pytest.approx(13 / 40)
    assert found["val/benchmark_difference/sums/low"] == paired.low > 0
    assert found["val/benchmark_difference/sums/high"] == paired.high


def test_the_measure_is_named_where_there_are_several() -> None:
    items = results([{"right": 1.0, "nats": -float(i)} for i in range(4)])
    found = curves({"pairs": items}, {"pairs": {"right": SHARE, "nats": (-float("inf"), 0.0)}})

    assert {key for key in found if key.startswith("val/benchmark/")} == {
        f"val/benchmark/pairs/{measure}{skill}" for measure in ("right", "nats") for skill in ("", "/even", "/odd")
    }
    assert found["val/benchmark/pairs/nats/odd"] == -2.0


def test_a_baseline_of_other_questions_is_refused() -> None:
    with pytest.raises(ValueError, match="benchmark 'sums': 39 items before, 40 after"):
        curves({"sums": AFTER}, RIGHT, {"sums": BEFORE[1:]})

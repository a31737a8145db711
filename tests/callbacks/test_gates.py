"""A gate is a paired test: it passes where the whole interval lies on the right side of what was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from lit_align.callbacks.gates import Verdict, judged, outcome_of, refuse_unmeasured
from lit_align.evals.benchmark import ItemResult
from lit_align.evals.item_scores import ItemScores, Scores, plain_scores, read_scores, scores_of
from lit_align.metrics.statistics import Interval, paired_summary
from lit_align.stage import Gate, Stage, refuse_stages

IDS = [str(i) for i in range(60)]
MEASURES = {"sums": {"right": (0.0, 1.0), "a/b": (0.0, 1.0)}}


def scores(right: int) -> Scores:
    values = [float(i < right) for i in range(60)]
    return {"sums": ItemScores(IDS, IDS, IDS, {"right": values, "a/b": [1 - value for value in values]})}


def gate(**options: Any) -> Gate:
    return Gate(**{"metric": "sums/right", "against": "base", "on_failure": "stop", **options})


def test_the_interval_decides_and_not_the_mean() -> None:
    expected = paired_summary(
        scores(20)["sums"].scores["right"], scores(32)["sums"].scores["right"], IDS, bounds=(0.0, 1.0)
    ).difference
    assert expected.mean == pytest.approx(0.2)
    assert 0.05 < expected.low < 0.15
    for asked, passes in ((0.0, True), (0.05, True), (expected.low, True), (0.15, False), (0.2, False)):
        verdict = judged(gate(min_difference=asked), scores(20), scores(32), MEASURES)
        assert verdict.passed is passes, asked
        assert verdict.difference == expected
    assert not judged(gate(min_difference=0.0), scores(20), scores(21), MEASURES).passed, "one more may be chance"


def test_a_small_loss_that_is_allowed_must_be_shown_to_be_small() -> None:
    assert not judged(gate(min_difference=-0.02), scores(20), scores(20), MEASURES).passed
    assert judged(gate(min_difference=-0.2), scores(20), scores(20), MEASURES).passed


def test_a_measure_of_which_less_is_better_has_an_upper_bound() -> None:
    assert judged(gate(metric="sums/a/b", max_difference=0.0), scores(20), scores(32), MEASURES).passed
    assert not judged(gate(metric="sums/right", max_difference=0.0), scores(20), scores(32), MEASURES).passed


def test_more_confidence_asks_for_more() -> None:
    found = [
        judged(gate(min_difference=0.06, confidence=level), scores(20), scores(32), MEASURES) for level in (0.5, 0.999)
    ]
    assert [one.passed for one in found] == [True, False]


def test_the_sternest_gate_that_failed_decides() -> None:
    def verdict(on_failure: Any, passed: bool) -> Verdict:
        return Verdict(gate(on_failure=on_failure, min_difference=0.0), 1, Interval(0.0, 0.0, 0.0), passed)

    assert outcome_of([]) is None
    assert outcome_of([verdict("stop", True), verdict("back", True)]) is None
    assert outcome_of([verdict("stop", True), verdict("go_on", False)]) == "go_on"
    assert outcome_of([verdict("go_on", False), verdict("back", False)]) == "back"
    assert outcome_of([verdict("back", False), verdict("stop", False), verdict("go_on", False)]) == "stop"


def test_scores_of_other_items_are_not_compared() -> None:
    other = {"sums": ItemScores(IDS[::-1], IDS, IDS, scores(20)["sums"].scores)}
    with pytest.raises(ValueError, match="'sums' had other items before"):
        judged(gate(min_difference=0.0), other, scores(20), MEASURES)


def test_scores_come_back_from_plain_types() -> None:
    items = [ItemResult(i, f"c{i}", "add", "?", "", "", {"right": 1.0, "a/b": 0.0}, False, 1) for i in IDS[:3]]
    found = scores_of({"sums": items})
    assert found["sums"] == ItemScores(IDS[:3], ["c0", "c1", "c2"], ["add"] * 3, {"right": [1.0] * 3, "a/b": [0.0] * 3})
    assert read_scores(plain_scores(found)) == found


def test_a_gate_on_what_no_benchmark_measures_is_refused() -> None:
    refuse_unmeasured([gate(min_difference=0.0), gate(metric="sums/a/b", min_difference=0.0)], MEASURES, "x")
    with pytest.raises(
        ValueError, match=r"stage 'x': no benchmark measures its gate's 'sums/rihgt'; there are sums/right"
    ):
        refuse_unmeasured([gate(metric="sums/rihgt", min_difference=0.0)], MEASURES, "x")
    with pytest.raises(ValueError, match="add a BenchmarkEvaluation"):
        refuse_unmeasured([gate(min_difference=0.0)], {}, "x")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"min_difference": 0.0, "max_difference": 0.0}, "give `min_difference` or `max_difference`, got 0.0 and 0.0"),
        ({"min_difference": 0.0, "confidence": 1.0}, r"`confidence` must be in \(0, 1\), got 1.0"),
    ],
)
def test_a_gate_that_is_none_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        gate(**options)


def test_a_gate_of_the_first_stage_has_no_stage_before_it() -> None:
    with pytest.raises(ValueError, match=r"stage 'a' is the first .*`gates.against: previous` must be base or start"):
        refuse_stages([Stage("a", "base", gates=(gate(against="previous", min_difference=0.0),))])


def test_a_rate_and_a_name_must_be_ones() -> None:
    with pytest.raises(ValueError, match="stage 'a': `lr` must be > 0, got 0"):
        Stage("a", "base", lr=0.0)
    for name in ("", "a.b", "a/b", "-a", "a b"):
        with pytest.raises(ValueError, match="a name has letters, digits, `_` and `-` alone"):
            Stage(name, "base")

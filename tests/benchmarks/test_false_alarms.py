"""Comparisons are of the same questions under other names; a planted difference shows, equal measurements do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.false_alarms import KINDS, AgainItems, Alarms, Kind, Measured, TableItems, decide, measure, table
from lit_align.data.chat import ChatFormat
from lit_align.evals.exact_match import ExactMatchBenchmark
from lit_align.models.policy import Policy


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_every_measurement_asks_the_same_questions_under_ids_of_its_own(kind: Kind) -> None:
    once, again = (kind.benchmark(numbers).conditions() for numbers in (range(1), range(5, 8)))
    assert int(again["n"]) == 3 * int(once["n"])  # an id twice would be refused

    items = AgainItems(TableItems(3), range(5, 7)).items()
    first, second = items[:15], items[15:]
    assert [replace(one, id="") for one in first] == [replace(one, id="") for one in second]
    assert {one.id.split()[0] for one in first} == {"5"}
    assert [one.cluster for one in first[:6]] == ["table 0"] * 5 + ["table 1"]


def test_a_planted_difference_is_significant_and_equal_measurements_are_not() -> None:
    rng = np.random.default_rng(0)
    low, high = (rng.random((20, 60)) < share for share in (0.2, 0.8))
    scores = np.empty((80, 60))
    scores[0:40:2], scores[1:40:2] = low, high
    scores[40::2] = scores[41::2] = rng.random((20, 60)) < 0.5

    alarms = decide(Measured(scores, tuple(map(str, range(60)))))

    assert alarms.significant.tolist() == [True] * 20 + [False] * 20
    low_end, high_end = alarms.interval()
    assert (low_end, high_end) == pytest.approx((0.3520, 0.6480), abs=1e-4), "Wilson's score of 20 in 40"
    assert "| x | 60 | 60 | 40 |" in table([("x", alarms)])


def test_the_goal_is_met_from_2_to_8_per_cent() -> None:
    measured = Measured(np.zeros((400, 2)), ("a", "b"))
    for count, word in ((3, "missed"), (4, "met"), (16, "met"), (17, "missed")):
        alarms = Alarms(measured, np.arange(200) < count)
        assert table([("x", alarms)]).splitlines()[2].endswith(f"| {word} |")


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(self: ExactMatchBenchmark, *_: object, **__: object) -> list[Any]:
        items = self.items.items()
        asked.append([item.id.split()[0] for item in items[::15]])

        def result(number: int) -> Any:
            return type("Result", (), {"scores": {"exact_match": float(number)}, "cluster": "c"})

        return [result(int(item.id.split()[0])) for item in items]

    monkeypatch.setattr(ExactMatchBenchmark, "run", run)
    kind = Kind("x", "x", TableItems(3))
    policy, chat = cast(Policy, None), cast(ChatFormat, None)

    measure(kind, policy, chat, 20, tmp_path)
    measured = measure(kind, policy, chat, 24, tmp_path)

    assert [len(one) for one in asked] == [16, 4, 4]
    assert measured.scores.tolist() == [[float(number)] * 15 for number in range(24)]
    [file] = tmp_path.iterdir()
    file.write_text("\n".join(file.read_text().splitlines()[1:]) + "\n")
    with pytest.raises(SystemExit, match="must hold a line a measurement, in order"):
        measure(kind, policy, chat, 20, tmp_path)

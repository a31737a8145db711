"""The generated rows have the shape of Finance-Instruct's, and the page holds what was measured."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import instruction_rows
from benchmarks.instruction_rows import Peak, Start


def test_rows_are_like_those_of_finance_instruct_and_a_warm_start_gives_what_a_cold_one_gave(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    instruction_rows.write_file(path, 400, "tiny-qwen3")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 400
    assert 0.4 < sum(not row["system"].strip() for row in rows) / 400 < 0.9
    asked = Counter(row["user"] for row in rows)
    assert 1 < max(asked.values()) < 5
    assert len({row["assistant"] for row in rows}) == 400
    cold, warm = (instruction_rows.start(str(path), "tiny-qwen3", str(tmp_path / "kept"), 1, time.time()) for _ in "12")
    assert (cold.identity, cold.windows) == (warm.identity, warm.windows)
    assert warm.windows == pytest.approx(400 / 64, abs=1)
    assert warm.prepared < cold.prepared


@pytest.mark.parametrize(
    ("rows", "wall", "computed", "says"),
    [
        (500_000, 19.0, 9.0, "Met by the wall clock, met by the seconds of computing."),
        (500_000, 40.0, 9.0, "Missed by the wall clock, met by the seconds of computing."),
        (500_000, 40.0, 21.0, "Missed by the wall clock, missed by the seconds of computing."),
        (1000, 19.0, 9.0, "under 20 s.\n"),
    ],
)
def test_the_goal_is_judged_at_the_real_size_alone(rows: int, wall: float, computed: float, says: str) -> None:
    measured = Start(1, 1.0, wall, computed, 1.0, "0123"), Peak(1, 1)
    page = instruction_rows.report("command", rows, (10**6, 10**6), 2, {"cold": measured, "warm": measured})
    assert says in page

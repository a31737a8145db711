"""The generated file has the statistics of the real one, and the page holds what was measured."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import reddit_pairs
from lit_align.data.sources.reddit_pairs import RedditFinancePairs


def test_the_file_has_the_real_statistics(tmp_path: Path) -> None:
    path = tmp_path / "top.jsonl"
    reddit_pairs.write_file(path, 2000)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2000
    assert path.stat().st_size / 2000 == pytest.approx(2720, rel=0.1)
    combined = [row["combined_score"] for row in rows]
    assert combined == sorted(combined, reverse=True)
    comments = Counter(row["id"] for row in rows)
    assert {*comments.values()} == {1, 2, 3}
    assert sum(n > 1 for n in comments.values()) == pytest.approx(2000 * 75_286 / 250_000, rel=0.1)
    assert sum(a["id"] == b["id"] for a, b in pairwise(rows)) < 100  # not adjacent
    assert {len({row["selftext"] for row in rows if row["id"] == post}) for post in comments} == {1}
    found = reddit_pairs.read(RedditFinancePairs(str(path)))
    assert found.pairs > 100
    page = reddit_pairs.report("command", 2000, 10**6, {"name": found})
    assert f"| name | {found.pairs} |" in page
    assert "met" not in page.split("|:--")[1]  # another size is not judged
    judged = {"slow": reddit_pairs.Reading(1, 121.0, 1), "large": reddit_pairs.Reading(1, 1.0, 2**31), "both": found}
    page = reddit_pairs.report("command", 250_000, 10**6, judged)
    assert (page.count("missed"), page.count("| met |")) == (2, 1)

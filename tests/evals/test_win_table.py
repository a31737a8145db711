from __future__ import annotations

from dataclasses import replace

import pytest

from lit_align.evals.benchmark import ItemResult
from lit_align.evals.win_table import win_table


def results(rewards: list[float], tokens: list[int], thoughts: int = 0) -> list[ItemResult]:
    return [
        ItemResult(
            str(i), str(i), "all", "?", f"{one}", "", {"reward": one, "length": 0.0}, False, length + thoughts, thoughts
        )
        for i, (one, length) in enumerate(zip(rewards, tokens, strict=True))
    ]


def row(before: list[ItemResult], after: list[ItemResult]) -> list[str]:
    lines = win_table({"chat": before}, {"chat": after}, {"chat": "reward"}).splitlines()
    return [cell.strip() for cell in lines[2].split("|")[1:-1]]


def test_wins_count_whole_ties_half_and_rounding_nothing() -> None:
    before = results([0.0] * 10, [5] * 10)
    after = results([1.0] * 6 + [1e-6, -1e-6] + [-1.0] * 2, [5] * 10)

    name, n, clusters, rate, _, *lengths = row(before, after)
    assert (name, n, clusters, lengths) == ("chat", "10", "10", ["5.0", "5.0"])
    assert rate.startswith("0.700 [")


def test_a_win_by_length_alone_is_told_from_one_by_quality() -> None:
    # Three quarters of the answers became longer, and the longer one always wins.
    before = results([0.0] * 40, [20] * 40)
    longer = [30, 32, 28, 11] * 10
    after = results([1.0 if length > 20 else -1.0 for length in longer], longer)

    plain, controlled = row(before, after)[3:5]
    assert plain.startswith("0.750 [")
    assert float(controlled.split()[0]) == pytest.approx(0.5, abs=0.2)


def test_thoughts_are_no_part_of_the_length() -> None:
    assert row(results([0.0] * 4, [5] * 4, thoughts=90), results([1.0] * 4, [7] * 4))[5:] == ["5.0", "7.0"]


def test_few_clusters_are_said_to_be_too_few() -> None:
    assert row(results([0.0] * 9, [5] * 9), results([1.0] * 9, [5] * 9))[1:3] == ["9", "9, too few"]


def test_the_same_conversation_ties_whatever_its_scores_were_computed_with() -> None:
    before, after = results([0.0] * 10, [5] * 10), results([1.0] * 10, [5] * 10)
    same = [
        replace(two, answer=one.answer) if i < 4 else two
        for i, (one, two) in enumerate(zip(before, after, strict=True))
    ]

    assert row(before, same)[3].startswith("0.800 [")


def test_other_benchmarks_are_left_out() -> None:
    both = {"chat": results([0.0], [1]), "sums": results([0.0], [1])}

    assert "sums" not in win_table(both, both, {"chat": "reward"})
    assert win_table(both, both, {}) == ""

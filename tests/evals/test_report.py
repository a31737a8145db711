from __future__ import annotations

from dataclasses import replace

import pytest

from lit_align.evals.benchmark import ItemResult
from lit_align.evals.report import check_paired, comparison_table, means, score_table


def results(scores: list[float], skills: str, caps: int = 0) -> list[ItemResult]:
    return [
        ItemResult(str(index), f"c{index // 2}", skill, "?", "a", "g", score, index < caps, 3)
        for index, (score, skill) in enumerate(zip(scores, skills, strict=True))
    ]


BEFORE = {"new": results([0, 0, 1, 0], "xxyy"), "old skills": results([1, 1], "zz")}
AFTER = {"new": results([1, 1, 1, 0], "xxyy", caps=1), "old skills": results([1, 1], "zz")}


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]


def test_a_line_a_benchmark_and_a_line_a_skill_where_it_has_several() -> None:
    rows = cells(comparison_table(BEFORE, AFTER))[2:]

    assert [row[0] for row in rows] == ["new", "– x", "– y", "old skills"]
    assert [row[1:3] for row in rows] == [["4", "2"], ["2", "1"], ["2", "1"], ["2", "1"]]
    assert [row[3].split()[0] for row in rows] == ["0.250", "0.000", "0.500", "1.000"]
    assert [row[4].split()[0] for row in rows] == ["0.750", "1.000", "0.500", "1.000"]
    assert [row[5].split()[0] for row in rows] == ["+0.500", "+1.000", "+0.000", "+0.000"]
    assert [row[6] for row in rows] == ["25.0%", "50.0%", "0.0%", "0.0%"]


def test_table_is_aligned_and_markdown() -> None:
    lines = [line for line in comparison_table(BEFORE, AFTER).splitlines() if line.startswith("|")]

    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) <= set("|-: ")


def test_items_are_paired_by_id_in_every_skill() -> None:
    mixed_before = {"b": results([1, 0, 1, 0], "xyxy")}
    mixed_after = {"b": results([1, 1, 1, 1], "xyxy")}

    rows = cells(comparison_table(mixed_before, mixed_after))[2:]

    assert [row[5].split()[0] for row in rows] == ["+0.500", "+0.000", "+1.000"]


def test_few_clusters_are_pointed_out_and_many_are_not() -> None:
    many = [ItemResult(str(i), str(i), "s", "?", "a", "g", float(i % 2), False, 1) for i in range(20)]

    assert "too narrow" in score_table({"b": many[:19]})
    assert "too narrow" not in score_table({"b": many})


def test_names_cannot_break_the_table() -> None:
    rows = score_table({"a|b\nc": BEFORE["new"]}).splitlines()

    assert rows[2].startswith("| a\\|b c ")


def test_means_by_benchmark_and_skill() -> None:
    assert means(AFTER) == {"new": 0.75, "new/x": 1.0, "new/y": 0.5, "old skills": 1.0, "old skills/z": 1.0}


@pytest.mark.parametrize("key", ["id", "cluster", "skill", "prompt", "gold"])
def test_results_of_other_questions_are_not_compared(key: str) -> None:
    changed = {**AFTER, "new": [replace(AFTER["new"][0], **{key: "other"}), *AFTER["new"][1:]]}
    with pytest.raises(ValueError, match=f"'new', item '0': {key} was .*, is 'other'"):
        comparison_table(BEFORE, changed)


def test_other_benchmarks_or_fewer_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different benchmarks"):
        check_paired(BEFORE, {"new": AFTER["new"]})
    with pytest.raises(ValueError, match="4 items before, 3 after"):
        check_paired(BEFORE, {**AFTER, "new": AFTER["new"][:3]})

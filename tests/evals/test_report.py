from __future__ import annotations

from dataclasses import replace

import pytest

from lit_align.evals.benchmark import SHARE, Benchmark, ItemResult, check_scores
from lit_align.evals.report import check_paired, comparison_table, means, score_table


def results(scores: list[float], skills: str, caps: int = 0) -> list[ItemResult]:
    return [
        ItemResult(str(index), f"c{index // 2}", skill, "?", "a", "g", {"right": score}, index < caps, 3)
        for index, (score, skill) in enumerate(zip(scores, skills, strict=True))
    ]


BEFORE = {"new": results([0, 0, 1, 0], "xxyy"), "old skills": results([1, 1], "zz")}
MEASURES = {name: {"right": SHARE} for name in ("new", "old skills", "b", "a|b\nc")}
AFTER = {"new": results([1, 1, 1, 0], "xxyy", caps=1), "old skills": results([1, 1], "zz")}


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]


def test_a_line_a_benchmark_and_a_line_a_skill_where_it_has_several() -> None:
    rows = cells(comparison_table(BEFORE, AFTER, MEASURES))[2:]

    assert [row[0] for row in rows] == ["new", "– x", "– y", "old skills"]
    assert [row[1:3] for row in rows] == [["4", "2"], ["2", "1"], ["2", "1"], ["2", "1"]]
    assert [row[3].split()[0] for row in rows] == ["0.250", "0.000", "0.500", "1.000"]
    assert [row[4].split()[0] for row in rows] == ["0.750", "1.000", "0.500", "1.000"]
    assert [row[5].split()[0] for row in rows] == ["+0.500", "+1.000", "+0.000", "+0.000"]
    assert [row[6] for row in rows] == ["25.0%", "50.0%", "0.0%", "0.0%"]


def test_table_is_aligned_and_markdown() -> None:
    lines = [line for line in comparison_table(BEFORE, AFTER, MEASURES).splitlines() if line.startswith("|")]

    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) <= set("|-: ")


def test_items_are_paired_by_id_in_every_skill() -> None:
    mixed_before = {"b": results([1, 0, 1, 0], "xyxy")}
    mixed_after = {"b": results([1, 1, 1, 1], "xyxy")}

    rows = cells(comparison_table(mixed_before, mixed_after, MEASURES))[2:]

    assert [row[5].split()[0] for row in rows] == ["+0.500", "+0.000", "+1.000"]


def test_few_clusters_are_pointed_out_and_many_are_not() -> None:
    many = [ItemResult(str(i), str(i), "s", "?", "a", "g", {"right": float(i % 2)}, False, 1) for i in range(20)]

    assert "too narrow" in score_table({"b": many[:19]}, MEASURES)
    assert "too narrow" not in score_table({"b": many}, MEASURES)


def test_names_cannot_break_the_table() -> None:
    rows = score_table({"a|b\nc": BEFORE["new"]}, MEASURES).splitlines()

    assert rows[2].startswith("| a\\|b c ")


def test_means_by_benchmark_and_skill() -> None:
    assert means(AFTER) == {"new": 0.75, "new/x": 1.0, "new/y": 0.5, "old skills": 1.0, "old skills/z": 1.0}


@pytest.mark.parametrize("key", ["id", "cluster", "skill", "prompt", "gold"])
def test_results_of_other_questions_are_not_compared(key: str) -> None:
    changed = {**AFTER, "new": [replace(AFTER["new"][0], **{key: "other"}), *AFTER["new"][1:]]}
    with pytest.raises(ValueError, match=f"'new', item '0': {key} was .*, is 'other'"):
        comparison_table(BEFORE, changed, MEASURES)


def test_other_benchmarks_or_fewer_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different benchmarks"):
        check_paired(BEFORE, {"new": AFTER["new"]})
    with pytest.raises(ValueError, match="4 items before, 3 after"):
        check_paired(BEFORE, {**AFTER, "new": AFTER["new"][:3]})


INF = float("inf")
BOTH = {"pairs": {"accuracy": SHARE, "logps/chosen": (-INF, 0.0)}, "new": {"accuracy": SHARE}}


def scored(accuracies: list[float], logps: list[float]) -> list[ItemResult]:
    return [
        ItemResult(str(i), str(i), "s", "?", "", "g", {"accuracy": a, "logps/chosen": lp}, None, 0)
        for i, (a, lp) in enumerate(zip(accuracies, logps, strict=True))
    ]


def test_a_block_a_measure_with_the_benchmarks_that_have_it() -> None:
    new = [ItemResult("0", "0", "s", "?", "", "g", {"accuracy": 1.0}, False, 2)]
    before = {"pairs": scored([0, 1], [-8.0, -4.5]), "new": new}
    after = {"pairs": scored([1, 1], [-9.0, -4.0]), "new": new}
    table = comparison_table(before, after, BOTH)

    lines = table.splitlines()
    titles = [line for line in lines if line and not line.startswith("|")]
    assert titles[:2] == ["accuracy", "logps/chosen"]
    first_cells = [row[0] for row in cells(table) if not row[0].startswith(":")]
    assert first_cells == ["benchmark", "pairs", "new", "benchmark", "pairs"]
    nats = cells(table)[-1]
    assert [nats[column].split()[0] for column in (3, 4, 5)] == ["-6.2500", "-6.5000", "-0.2500"]
    assert nats[5].split()[1:] == ["[-1.0000,", "+0.5000]"]


def test_what_generates_nothing_hits_no_cap() -> None:
    assert cells(score_table({"pairs": scored([0, 1], [-1.0, -2.0])}, BOTH))[2][-1] == "–"


def test_an_end_without_a_bound_is_explained_and_others_are_not() -> None:
    apart, equal = scored([0, 1], [-1.0, -2.0]), scored([0, 1], [-2.0, -2.0])

    assert "infinite end" not in score_table({"pairs": apart}, BOTH)
    table = score_table({"pairs": equal}, BOTH)
    assert "infinite end" in table
    assert "-2.0000 [-inf," in table


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([], "'pairs' returned no result"),
        ([ItemResult("x", "c", "s", "?", "", "g", {"accuracy": 1.0}, None, 0)], "item 'x': measures must be"),
        (scored([1.5], [-1.0]), r"item '0': accuracy must lie in \[0, 1\], got 1.5"),
        (scored([1.0], [0.5]), r"item '0': logps/chosen must lie in \[-inf, 0\], got 0.5"),
    ],
)
def test_scores_that_the_tables_could_not_show_are_refused(result: list[ItemResult], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_scores(ExamplePairs(), result)


class ExamplePairs(Benchmark):
    name, measures = "pairs", BOTH["pairs"]

    def conditions(self) -> dict[str, str | int]:
        return {}

    def run(self, policy: object, chat: object, *, progress: str | None = None) -> list[ItemResult]:
        return []


def test_means_name_the_measure_where_there_are_several() -> None:
    assert means({"pairs": scored([0, 1], [-1.0, -2.0])}) == {
        "pairs/accuracy": 0.5, "pairs/accuracy/s": 0.5, "pairs/logps/chosen": -1.5, "pairs/logps/chosen/s": -1.5,
    }  # fmt: skip

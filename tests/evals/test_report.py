from __future__ import annotations

from dataclasses import replace

import pytest

from lit_align.evals.benchmark import SHARE, Benchmark, ItemResult, check_scores
from lit_align.evals.report import check_paired, comparison_table, score_table


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
    few = ["2, too few", "1, too few", "1, too few", "1, too few"]
    assert [row[1:3] for row in rows] == [list(pair) for pair in zip(["4", "2", "2", "2"], few, strict=True)]
    assert [row[3].split()[0] for row in rows] == ["0.250", "0.000", "0.500", "1.000"]
    assert [row[4].split()[0] for row in rows] == ["0.750", "1.000", "0.500", "1.000"]
    assert [row[5].split()[0] for row in rows] == ["+0.500", "+1.000", "+0.000", "+0.000"]
    assert [row[8] for row in rows] == ["0% → 25%", "0% → 50%", "0%", "0%"]


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
    many = [ItemResult(str(i), str(i), "s", "?", "a", "g", {"right": float(i % 2)}, False, 1) for i in range(10)]

    few = score_table({"b": many[:9]}, MEASURES)
    assert cells(few)[2][2] == "9, too few"
    assert "Too few: fewer than 10 clusters" in few
    assert cells(score_table({"b": many}, MEASURES))[2][2] == "10"
    assert "oo few" not in score_table({"b": many}, MEASURES)


def answers(*right: float) -> list[ItemResult]:
    """Answers of two skills, each a cluster of its own, with a second measure."""
    return [
        ItemResult(str(i), str(i), "xy"[i % 2], "?", "a", "g", {"right": score, "nats": -score - i % 3}, False, 3)
        for i, score in enumerate(right)
    ]


TWO = {name: {"right": SHARE, "nats": (-float("inf"), 0.0)} for name in ("first", "second")}


def test_main_measures_are_tested_over_all_items_and_adjusted_for_their_number() -> None:
    before = {"first": answers(*[0] * 20), "second": answers(*[0] * 20)}
    after = {"first": answers(*[1] * 7, *[0] * 13), "second": answers(*[1] * 5, *[0] * 15)}
    table = comparison_table(before, after, TWO)

    # McNemar, mid-p: 2 / 2^7 / 2 = 1/128, doubled by Holm; 2 / 2^5 / 2 = 1/32 as the larger one of two stays.
    rows = cells(table)[2:]
    assert [(row[0], row[6]) for row in rows[:6]] == [
        ("first", "0.016"), ("– x", "–"), ("– y", "–"), ("second", "0.031"), ("– x", "–"), ("– y", "–"),
    ]  # fmt: skip
    assert {row[6] for row in rows[8:]} == {"–"}  # the second measure
    assert "McNemar's test" in table
    assert "Holm-adjusted over the main measures of 2 benchmarks" in table
    assert "sign flips" not in table


def test_items_in_clusters_are_tested_by_sign_flips() -> None:
    table = comparison_table(BEFORE, AFTER, MEASURES)

    assert "sign flips of clusters (10,000)" in table
    assert "McNemar" not in table


def test_equal_results_have_a_p_value_of_one_and_an_effect_that_could_be_found() -> None:
    same = {"first": answers(*[1, 0] * 20), "second": answers(*[1, 0] * 20)}
    rows = cells(comparison_table(same, same, TWO))[2:]

    assert [row[6] for row in rows if row[0] in TWO][:2] == ["1.000", "1.000"]
    assert rows[0][5] == "+0.000 [-0.088, +0.088]"
    assert 0.1 < float(rows[0][7]) < 0.2
    assert cells(comparison_table(same, same, TWO))[-1][7] == "–"  # no bound, no variance: none can be given


def test_table_of_shares_fits_a_terminal() -> None:
    names = {"old skills": {"right": SHARE}}
    many = {"old skills": answers(*[1, 0, 0, 1] * 250)}
    few = {"old skills": BEFORE["new"]}

    for before in (many, few):
        table = comparison_table(before, before, names)
        assert max(len(line) for line in table.splitlines() if line.startswith("|")) <= 140


def test_names_cannot_break_the_table() -> None:
    rows = score_table({"a|b\nc": BEFORE["new"]}, MEASURES).splitlines()

    assert rows[2].startswith("| a\\|b c ")


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

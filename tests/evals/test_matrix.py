"""The forgetting matrix by hand: scores, paired differences, backward transfer, retention, tables and pictures."""

from __future__ import annotations

import importlib
import json
import math
from typing import Any

import pytest

from lit_align.evals import matrix_plot
from lit_align.evals.item_scores import ItemScores, Scores
from lit_align.evals.matrix import Cell, Matrix, matrix
from lit_align.evals.matrix_plot import draw_heat_map, draw_learning
from lit_align.evals.matrix_table import matrix_table, plain_matrix
from lit_align.metrics.statistics import Interval, mean_interval, paired_summary

N = 60
IDS = [str(i) for i in range(N)]
CLUSTERS = [str(i // 2) for i in range(N)]
MEASURES = {"general": {"right": (0.0, 1.0), "kl": (0.0, math.inf)}, "finance": {"right": (0.0, 1.0)}}


def right(number: int) -> list[float]:
    return [float(i < number) for i in range(N)]


def policy(general: int, finance: int, kl: float = 0.0) -> Scores:
    divergence = [kl * (1 + i % 3) for i in range(N)]
    return {
        "general": ItemScores(IDS, CLUSTERS, ["all"] * N, {"right": right(general), "kl": divergence}),
        "finance": ItemScores(IDS, CLUSTERS, ["all"] * N, {"right": right(finance)}),
    }


POLICIES = {
    "base": policy(10, 6), "general": policy(50, 4, 0.1), "finance": policy(40, 60, 0.2), "social": policy(30, 54, 0.3),
}  # fmt: skip


@pytest.fixture(scope="module")
def found() -> Matrix:
    return matrix(POLICIES, MEASURES)


def test_a_cell_holds_the_score_and_both_paired_differences(found: Matrix) -> None:
    [line] = [one for one in found.lines if (one.benchmark, one.measure) == ("finance", "right")]
    assert [cell.score.mean for cell in line.cells] == pytest.approx([6 / N, 4 / N, 1.0, 54 / N])
    assert (line.cells[0].against_base, line.cells[0].against_previous) == (None, None)
    last = line.cells[3]
    assert last.score == mean_interval(right(54), CLUSTERS)
    assert last.against_base == paired_summary(right(6), right(54), CLUSTERS).difference
    assert last.against_previous == paired_summary(right(60), right(54), CLUSTERS).difference


def test_backward_transfer_is_the_end_less_the_own_stage_and_its_mean_is_over_stages(found: Matrix) -> None:
    general, finance = found.transfers
    assert (general.stage, finance.stage) == ("general", "finance")  # the last stage has none after it
    assert general.backward == paired_summary(right(50), right(30), CLUSTERS).difference
    assert finance.backward == paired_summary(right(60), right(54), CLUSTERS).difference
    assert found.backward is not None
    assert found.backward.mean == pytest.approx((-20 / N - 6 / N) / 2)
    below = math.hypot(*(one.backward.mean - one.backward.low for one in found.transfers)) / 2
    assert found.backward.low == pytest.approx(found.backward.mean - below)


def test_retention_is_the_part_of_the_gain_that_is_left_within_an_interval_that_holds_it(found: Matrix) -> None:
    general, finance = (one.retention for one in found.transfers)
    assert general is not None
    assert finance is not None
    assert general.mean == pytest.approx((30 - 10) / (50 - 10))
    assert finance.mean == pytest.approx((54 - 6) / (60 - 6))
    assert general.low < general.mean < general.high < 1
    assert finance.low < finance.mean < finance.high


def test_a_gain_that_is_not_sure_has_no_retention() -> None:
    policies = {"base": policy(10, 6), "general": policy(11, 4), "social": policy(9, 4)}
    [transfer] = matrix(policies, MEASURES).transfers
    assert transfer.retention is None
    assert "–" in matrix_table(matrix(policies, MEASURES), {}).split("kept at the end")[1]


def test_a_stage_that_went_back_has_nothing_to_transfer() -> None:
    found = matrix(POLICIES, MEASURES, {"finance"})
    assert [one.stage for one in found.transfers] == ["general"]
    assert found.backward == found.transfers[0].backward


def test_nothing_kept_and_all_kept_are_0_and_1_with_room_for_what_was_not_seen() -> None:
    for last, expected in ((10, 0.0), (50, 1.0)):
        policies = {"base": policy(10, 6), "general": policy(50, 4), "social": policy(last, 4)}
        kept = matrix(policies, MEASURES).transfers[0].retention
        assert kept is not None
        assert kept.mean == pytest.approx(expected)
        assert kept.low < expected < kept.high


def test_parts_of_a_benchmark_have_lines_of_their_own_and_a_part_may_be_the_domain_of_a_stage() -> None:
    skills = ["general"] * 20 + ["other"] * 40
    values = {"base": right(0), "general": right(20), "social": right(10)}
    policies = {name: {"tables": ItemScores(IDS, CLUSTERS, skills, {"f1": one})} for name, one in values.items()}
    found = matrix(policies, {"tables": {"f1": (0.0, 1.0)}})
    assert [(one.skill, one.n) for one in found.lines] == [("", 60), ("general", 20), ("other", 40)]
    [transfer] = found.transfers
    assert (transfer.stage, transfer.backward.mean) == ("general", -0.5)


def test_a_drift_on_the_domain_of_a_stage_is_no_transfer() -> None:
    parts = ["finance"] * 30 + ["general"] * 30
    drift = {"drift": ItemScores(IDS, CLUSTERS, parts, {"nll": right(3), "kl": right(2)})}
    policies = {name: {"general": one["general"], **drift} for name, one in POLICIES.items()}
    found = matrix(policies, {"general": MEASURES["general"], "drift": {"nll": (0.0, math.inf), "kl": (0.0, math.inf)}})
    assert [(one.stage, one.measure) for one in found.transfers] == [("general", "right")]


def test_a_stage_has_one_transfer_that_of_the_benchmark_of_its_name_before_a_part_of_another_one() -> None:
    parts = ["finance"] * 30 + ["general"] * 30
    policies = {
        name: {"tables": ItemScores(IDS, CLUSTERS, parts, {"f1": right(3)}), **one} for name, one in POLICIES.items()
    }
    found = matrix(policies, {"tables": {"f1": (0.0, 1.0)}, **MEASURES})
    assert found.transfers == matrix(POLICIES, MEASURES).transfers


def test_shares_and_ratings_have_no_mean_transfer() -> None:
    found = matrix(POLICIES, {**MEASURES, "finance": {"right": (0.0, 10.0)}})
    assert len(found.transfers) == 2
    assert found.backward is None
    assert "mean" not in matrix_table(found, {}).split("kept at the end")[1]


def test_policies_that_were_measured_on_other_items_are_refused() -> None:
    other = policy(1, 1)
    other["finance"] = ItemScores(IDS[::-1], CLUSTERS, ["all"] * N, {"right": right(1)})
    with pytest.raises(ValueError, match="'finance' had other items for 'general' than for 'base'"):
        matrix({"base": policy(1, 1), "general": other}, MEASURES)


def test_the_divergence_of_a_domain_is_its_own_or_that_of_the_drift_benchmark(found: Matrix) -> None:
    general, finance = (one for one in found.lines if one.main)
    divergence = found.divergence(general)
    assert divergence is not None
    assert (divergence.benchmark, divergence.measure) == ("general", "kl")
    assert found.divergence(finance) is None
    drift = ["finance"] * 30 + ["general"] * 30
    policies = {
        name: {**one, "drift": ItemScores(IDS, CLUSTERS, drift, {"nll": right(3), "kl_policy_base": right(4)})}
        for name, one in POLICIES.items()
    }
    both = matrix(policies, {**MEASURES, "drift": {"nll": (0.0, math.inf), "kl_policy_base": (0.0, math.inf)}})
    lines = {(one.benchmark, one.skill, one.measure): one for one in both.lines}
    assert both.divergence(lines["finance", "", "right"]) is lines["drift", "finance", "kl_policy_base"]
    assert both.divergence(lines["general", "", "right"]) is lines["general", "", "kl"]


def test_the_table_has_a_block_a_measure_and_says_what_became_of_a_stage(found: Matrix) -> None:
    blocks = matrix_table(found, {"finance": "went back"}).split("\n\n")
    assert blocks[0] == "right"
    head, _, scores, against_base, against_before, *_ = blocks[1].splitlines()
    assert [cell.strip() for cell in head.split("|")][1:-1] == [
        "benchmark (n)", "base", "general", "finance (went back)", "social",
    ]  # fmt: skip
    assert "general (60)" in scores
    assert "0.500 [" in scores
    assert "+0.333 [" in against_base
    assert "-0.167 [" in against_before
    assert blocks[2] == "kl"


def test_the_table_shows_what_gates_ask_for_beside_the_main_measures() -> None:
    both = {"right": (0.0, 1.0), "wrong": (0.0, 1.0)}
    policies = {
        name: {"finance": ItemScores(IDS, CLUSTERS, ["all"] * N, {"right": right(n), "wrong": right(N - n)})}
        for name, n in (("base", 5), ("finance", 50))
    }
    found = matrix(policies, {"finance": both})
    assert "wrong" not in matrix_table(found, {})
    assert "wrong" not in matrix_table(found, {}, ["general/wrong"])
    assert "wrong\n\n| benchmark (n)" in matrix_table(found, {}, ["finance/wrong"])


def test_the_table_says_where_clusters_are_too_few() -> None:
    clusters = [str(i % 9) for i in range(N)]
    policies = {
        name: {"finance": ItemScores(IDS, clusters, ["all"] * N, {"right": right(n)})}
        for name, n in (("base", 5), ("finance", 50))
    }
    table = matrix_table(matrix(policies, {"finance": MEASURES["finance"]}), {})
    assert "| finance (60, too few)" in table
    assert "fewer than 10 clusters" in table
    assert "too few" not in matrix_table(matrix(POLICIES, MEASURES), {}).lower()


def test_the_file_for_programs_is_json_with_every_number(found: Matrix) -> None:
    plain = json.loads(json.dumps(plain_matrix(found, {"finance": "went back"}), allow_nan=False))
    assert plain["policies"] == list(POLICIES)
    assert plain["outcomes"] == {"finance": "went back"}
    assert plain["lines"][0]["cells"][3]["score"]["mean"] == 0.5
    # The base has a divergence of exactly 0 from itself: its interval has no upper end.
    [kl] = [one for one in plain["lines"] if one["measure"] == "kl"]
    assert kl["cells"][0]["score"] == {"mean": 0.0, "low": 0.0, "high": None, "too_few": False}


def test_the_pictures_are_png_files() -> None:
    # A name is text, and no formula, which this would be a broken one of.
    policies = {name: {"$\\frac{x$": one["general"]} for name, one in POLICIES.items()}
    found = matrix(policies, {"$\\frac{x$": MEASURES["general"]})
    for picture in (draw_heat_map(found, {"finance": "went back"}), draw_learning(found)):
        assert picture is not None
        assert picture.startswith(b"\x89PNG")


def test_pictures_leave_the_user_s_backend_and_figures_alone(found: Matrix) -> None:
    pyplot = importlib.import_module("matplotlib.pyplot")
    pyplot.switch_backend("pdf")
    try:
        draw_heat_map(found, {})
        assert pyplot.get_backend().lower() == "pdf"
        assert not pyplot.get_fignums()
    finally:
        pyplot.switch_backend("agg")


def test_learning_against_divergence_is_drawn_only_where_both_are_measured() -> None:
    policies = {name: {"finance": one["finance"]} for name, one in POLICIES.items()}
    found = matrix(policies, {"finance": MEASURES["finance"]})
    assert draw_learning(found) is None


def test_without_matplotlib_the_extra_is_named(found: Matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(matrix_plot, "importlib", type("Importlib", (), {"import_module": staticmethod(missing)}))
    with pytest.raises(ModuleNotFoundError, match=r'pip install -e "\.\[plots\]"'):
        draw_heat_map(found, {})
    assert importlib.import_module("matplotlib")


def test_a_cell_is_starred_where_its_interval_excludes_0() -> None:
    score = Interval(0.5, 0.4, 0.6)
    assert matrix_plot._cell_text(Cell(score, None, None), ".2f") == "0.50"
    assert matrix_plot._cell_text(Cell(score, Interval(0.25, 0.1, 0.4), None), ".2f") == "0.50\n+0.25*"
    assert matrix_plot._cell_text(Cell(score, Interval(-0.25, -0.4, 0.1), None), ".3g") == "0.5\n-0.25"

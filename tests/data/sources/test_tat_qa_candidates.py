"""Each way to a wrong answer gives the answers that one works out by hand."""

from __future__ import annotations

from random import Random

import pytest

from lit_align.data.sources.tat_qa import phrases
from lit_align.data.sources.tat_qa.arithmetic import arithmetic_candidates
from lit_align.data.sources.tat_qa.candidates import Asked, Candidate, asked_of, kept_candidates
from lit_align.data.sources.tat_qa.grid import Grid
from lit_align.data.sources.tat_qa.in_table import InTable
from lit_align.data.sources.tat_qa.lists import count_candidates, list_candidates
from lit_align.data.sources.tat_qa.reading import AnswerType, Context, Passage, Question
from lit_align.data.sources.tat_qa.scoring import is_accepted
from lit_align.data.sources.tat_qa.spans import in_case_of, kind_of, span_candidates

ROWS = (
    ("", "2019", "2018", "2017"),
    ("Sales", "$100", "$80", "$60"),
    ("Costs", "50", "(40)", "30"),
    ("Total", "150", "40", "90"),
)
PASSAGES = (
    Passage(
        1, "Sales rose, due to higher demand in Asia, and costs rose due to new plants in Peru. Nothing else changed."
    ),
    Passage(2, "The rate was 5% in 2016, of which $7 million is due to weaker prices in Spain."),
)


def every(context: Context, question: Question) -> bool:
    return True


def ask(answer: tuple[str, ...], kind: AnswerType, scale: str = "", derivation: str = "", *others: Question) -> Asked:
    raw = float(answer[0]) if kind == "arithmetic" else answer[0] if kind == "count" else answer
    question = Question("q", 1, "What?", answer, kind, scale, derivation, "table", (), raw)
    context = Context("t", ROWS, PASSAGES, (question, *others))
    return asked_of([context], every)[0]


def by_construction(candidates: list[Candidate]) -> dict[str, set[tuple[str, ...]]]:
    found: dict[str, set[tuple[str, ...]]] = {}
    for candidate in candidates:
        found.setdefault(candidate.construction, set()).add(candidate.answer)
    return found


def test_a_calculation_goes_wrong_in_every_way_that_the_table_offers() -> None:
    found = by_construction(arithmetic_candidates(ask(("20",), "arithmetic", "million", "100 - 80")))
    assert found["row"] == {("90",), ("110",)}
    assert {("40",), ("20",), ("-20",), ("-40",)} >= found["cols"] >= {("40",), ("-40",)}
    assert ("-20",) in found["opswap"] & found["sign"]
    assert ("-30",) in found["oneop"], "50 - 80: the first operand from the row below"
    assert not any(("0",) in answers for answers in found.values()), "an operand beside itself"
    assert found["scale"] == {("20",)}


def test_what_stays_of_a_derivation_is_what_leads_to_the_wrong_answer() -> None:
    made = arithmetic_candidates(ask(("25",), "arithmetic", "percent", "(100-80)/80"))
    derivations = {candidate.derivation: candidate.answer for candidate in made if candidate.derivation}
    assert derivations["(150-40)/40"] == ("275",)
    assert derivations["(100-60)/60"] == ("66.67",)
    assert derivations["(80-100)/80"] == ("-25",)
    found = by_construction(made)
    assert ("20",) in found["wrongbase"]
    assert found["ratio"] == {("0.25",), ("2500",)}
    assert "scale" not in found


def test_a_mean_is_divided_by_one_more_or_less() -> None:
    found = by_construction(arithmetic_candidates(ask(("80",), "arithmetic", "", "(100 + 80 + 60) / 3")))
    assert found["avg-n"] == {("120",), ("60",)}


def test_two_rows_of_one_column_are_moved_apart_and_together() -> None:
    found = by_construction(arithmetic_candidates(ask(("150",), "arithmetic", "", "100 + 50")))
    assert ("200",) in found["row1"], "100 + 50 to 150 + 50"
    assert found["rowblock"] == {("200",)}, "50 + 150"
    assert found["col"] == {("40",), ("90",)}, "80 - 40, 60 + 30"


def test_an_answer_without_a_readable_derivation_still_has_wrong_ones() -> None:
    sibling = Question("s", 2, "?", ("33",), "arithmetic", "", "30 + 3", "table", (), 33)
    other_scale = Question("o", 3, "?", ("44",), "arithmetic", "million", "", "table", (), 44)
    found = by_construction(arithmetic_candidates(ask(("9",), "arithmetic", "", "see note", sibling, other_scale)))
    assert found == {"sib": {("33",)}, "sign": {("-9",)}}


def test_a_number_is_another_cell_in_the_gold_answers_dress() -> None:
    found = by_construction(span_candidates(ask(("$80",), "span")))
    assert found["row"] == {("$100",), ("$80",), ("$60",)}
    assert found["col"] == {("$(40)",), ("$40",)}
    assert ("$150",) in found["cell"]
    assert "passage" not in found, "5% and $7 million are of another class"
    assert by_construction(span_candidates(ask(("$3 million",), "span")))["passage"] == {("$7 million",)}


def test_a_year_is_another_year_of_the_context() -> None:
    assert by_construction(span_candidates(ask(("2019",), "span"))) == {"year": {("2018",), ("2017",), ("2016",)}}
    found = by_construction(span_candidates(ask(("December 31, 2019",), "span")))
    assert found["year"] == {("December 31, 2018",), ("December 31, 2017",), ("December 31, 2016",)}


def test_a_label_is_another_label() -> None:
    assert by_construction(span_candidates(ask(("Costs",), "span")))["label"] == {("Sales",), ("Costs",), ("Total",)}


@pytest.mark.parametrize(
    ("item", "kind"), [("2019", "year"), ("$80", "number"), ("costs", "label"), ("higher demand", "text")]
)
def test_kinds_of_items(item: str, kind: str) -> None:
    assert kind_of(item, ask((item,), "span")) == kind


def test_a_text_is_another_phrase_with_the_same_edges() -> None:
    found = by_construction(span_candidates(ask(("higher demand in Asia",), "span")))
    # After a function word and before a comma, as the gold answer.
    assert found["window"] == {("5% in 2016",), ("rate was 5% in 2016",)}
    assert "extend" not in found, "to higher demand in Asia"
    found = by_construction(span_candidates(ask(("new plants in Peru",), "span")))
    assert found["window"] == {("weaker prices in Spain",)}


def test_without_comparing_edges_phrases_are_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phrases, "_fits", lambda *_: True)
    found = by_construction(span_candidates(ask(("new plants in Peru",), "span")))
    assert ("else changed.",) in found["window"] or len(found["window"]) > 3


@pytest.mark.parametrize(
    ("text", "gold", "shown"),
    [
        ("Lower sales", "higher costs", "lower sales"), ("United Kingdom", "higher costs", "United Kingdom"),
        ("IBM sales", "costs.", "IBM sales."), ("costs.", "Sales", "Costs"), ("5 apples", "Sales", "5 apples"),
        ("", "Sales.", "."),
    ],
)  # fmt: skip
def test_case_and_full_stop_are_the_gold_answers(text: str, gold: str, shown: str) -> None:
    assert in_case_of(text, gold) == shown


def test_a_list_has_one_item_wrong_missing_or_too_many_or_is_another_rows() -> None:
    found = by_construction(list_candidates(ask(("$100", "$80", "$60"), "multi-span", "million")))
    assert found["drop"] == {("$80", "$60"), ("$100", "$60"), ("$100", "$80")}
    assert found["parallel"] == {("$50", "$(40)", "$30"), ("$150", "$40", "$90")}
    assert ("$50", "$80", "$60") in found["replace"]
    assert ("$100", "$50", "$80", "$60") in found["insert"]
    assert found["scale"] == {("$100", "$80", "$60")}
    assert "drop" not in by_construction(list_candidates(ask(("$100", "$80"), "multi-span")))


def test_a_count_is_two_less_to_three_more_and_at_least_one() -> None:
    made = count_candidates(ask(("2",), "count", "", "2019##2018"))
    assert {candidate.answer for candidate in made} == {("1",), ("3",), ("4",), ("5",)}
    derivations = {candidate.answer[0]: candidate.derivation for candidate in made}
    assert derivations["1"] == "2019"
    assert derivations["3"].startswith("2019##2018##")


def test_right_answers_and_repeats_are_left_out_and_every_construction_has_its_turn() -> None:
    asked = ask(("20",), "arithmetic", "", "")
    made = [
        Candidate(("20",), "", "sib"), Candidate(("20.001",), "", "sib"),
        *(Candidate((f"{i}",), "", "row") for i in range(9)),
        Candidate(("5",), "", "oneop"), Candidate(("-20",), "", "sign"),
    ]  # fmt: skip
    kept = kept_candidates(made, asked.question, is_accepted, 3, Random(0))
    assert sorted(candidate.construction for candidate in kept) == ["row", "row", "sign"]
    everything = kept_candidates(made, asked.question, is_accepted, 99, Random(0))
    assert len(everything) == 10
    assert all(not is_accepted(asked.question, candidate.text("arithmetic")) for candidate in everything)


def test_a_number_in_other_words_is_left_out_where_the_official_metric_takes_it() -> None:
    asked = ask(("1,234",), "span")
    made = [Candidate(("(1,234)",), "", "row"), Candidate(("$1234.00",), "", "row"), Candidate(("-1,234",), "", "row")]
    assert [kept.answer for kept in kept_candidates(made, asked.question, is_accepted, 9, Random(0))] == [("-1,234",)]


def test_years_of_a_header_are_no_numbers_of_the_table() -> None:
    grid = Grid.of(ask(("1",), "span").context)
    assert set(grid.rows) == {1, 2, 3}
    assert grid.places_of(40) == [(2, 2), (3, 2)]
    assert grid.row_labels() == ["Sales", "Costs", "Total"]
    assert grid.column_labels() == ["2019", "2018", "2017"]


def test_every_answer_has_as_many_measures_in_its_table() -> None:
    asked = ask(("1",), "span")
    measures = InTable(asked.context, asked.grid)
    texts = ["20\nmillion", "$80", "2019", "Sales", "higher demand in Asia", "2019\n2018", "nowhere", "-0.5", "40\n30"]
    assert len({len(measures.features(text)) for text in texts}) == 1
    assert measures.features("20") != measures.features("21"), "20 is 100 - 80, 21 is nothing"

"""Every quirk of the official files is met, and each guard is needed: taken out, its trap is not met any more."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tat_qa_tables import table_of, write

from lit_align.data.sources.tat_qa import reading
from lit_align.data.sources.tat_qa.answers import gold_text, parse
from lit_align.data.sources.tat_qa.reading import Context, Question, read_contexts
from lit_align.data.sources.tat_qa.scoring import is_accepted

DEV = Path("/work/shared/data/tat-qa/tatqa_dataset_dev.json")


def context(**question: Any) -> list[dict[str, Any]]:
    """A context with one question, some of whose keys are others."""
    made = table_of(1)
    made["questions"] = [made["questions"][0] | question]
    return [made]


def without(contexts: list[dict[str, Any]], *path: str | int) -> list[dict[str, Any]]:
    made = copy.deepcopy(contexts)
    place: Any = made
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return made


def only(contexts: list[Context]) -> Question:
    [one] = contexts
    [question] = one.questions
    return question


# Each trap under its name: the file, what must come of it, and a guard whose absence it catches.
TRAPS: dict[str, tuple[list[dict[str, Any]], Callable[[list[Context]], bool], tuple[Any, str, Any]]] = {
    "types as the paper's page spells them": (
        context(answer_type="spans", answer=["a", "b"]),
        lambda read: only(read).answer_type == "multi-span",
        (reading, "_TYPES", {name: name for name in reading.ANSWER_TYPES}),
    ),
    "counting": (
        context(answer_type="counting", answer="3"),
        lambda read: only(read).answer_type == "count",
        (reading, "_TYPES", {name: name for name in reading.ANSWER_TYPES}),
    ),
    "scale None": (context(scale="None"), lambda read: only(read).scale == "", (reading, "_NO_SCALE", ())),
    "a blank item": (
        context(answer_type="multi-span", answer=["Defined contribution", "Defined benefit", ""]),
        lambda read: parse(gold_text(only(read)))[0] == ["Defined contribution", "Defined benefit"],
        (reading, "_as_items", lambda raw: tuple(raw)),
    ),
    "a line break in an item": (
        context(answer=["lower\nsales"]),
        lambda read: only(read).answer == ("lower sales",),
        (reading, "_as_items", lambda raw: tuple(raw)),
    ),
    "the answer 0": (
        context(answer_type="arithmetic", answer=0),
        lambda read: is_accepted(only(read), gold_text(only(read))),
        (reading, "_as_items", lambda raw: tuple(str(raw) for _ in range(bool(raw)))),
    ),
    "a count that is text": (
        context(answer_type="count", answer="2"),
        lambda read: only(read).answer == ("2",),
        (reading, "_whole", lambda value, _: {}[value]),
    ),
    "passages in another order": (
        [table_of(1) | {"paragraphs": table_of(1)["paragraphs"][::-1]}],
        lambda read: [passage.order for passage in read[0].passages] == [1, 2, 3, 4],
        (reading, "sorted", lambda found, **_: found),
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_met_and_its_guard_is_what_meets_it(
    trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts, holds, (module, guard, broken) = TRAPS[trap]
    path = write(tmp_path, contexts)
    assert holds(read_contexts(path))
    monkeypatch.setattr(module, guard, broken, raising=False)
    with contextlib.suppress(ValueError, KeyError):
        assert not holds(read_contexts(path))


def test_a_scale_in_the_spans_own_words_stays_there(tmp_path: Path) -> None:
    read = read_contexts(write(tmp_path, context(answer=["$9.8 million"], scale="")))
    assert parse(gold_text(only(read))) == (["$9.8 million"], "")
    read = read_contexts(write(tmp_path, context(answer=["$9.8"], scale="million")))
    assert parse(gold_text(only(read))) == (["$9.8"], "million")


def test_orders_with_holes_and_more_than_six_questions_are_read_as_they_come(tmp_path: Path) -> None:
    made = table_of(3)
    for question, order in zip(made["questions"], (1, 2, 3, 4, 6, 8, 9, 10), strict=True):
        question["order"] = order
    [read] = read_contexts(write(tmp_path, [made]))
    assert [question.order for question in read.questions] == [1, 2, 3, 4, 6, 8, 9, 10]


def test_a_question_asked_twice_of_a_table_is_two_questions(tmp_path: Path) -> None:
    made = table_of(1)
    made["questions"][1] = made["questions"][0] | {"uid": "again", "answer": ["60%", "40%"], "answer_type": "spans"}
    assert len(read_contexts(write(tmp_path, [made]))[0].questions) == 7


def test_further_keys_of_the_gold_test_file_are_passed_over(tmp_path: Path) -> None:
    made = context(facts=[1], consts=[100], mappings=[], tree_derivation="minus")
    assert len(read_contexts(write(tmp_path, made))) == 1


def test_cells_and_passages_keep_their_characters(tmp_path: Path) -> None:
    made = table_of(1)
    made["table"]["table"][1][1] = "—"
    made["paragraphs"][0]["text"] = "5\u00a0% of US$’000 (1)"
    [read] = read_contexts(write(tmp_path, [made]))
    assert read.rows[1][1] == "—"
    assert read.passages[0].text == "5\u00a0% of US$’000 (1)"


QUESTION = r"tatqa_dataset_dev\.json:1 \(table table-0-1\): questions\[0\]"
BAD: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a file without answers": (
        without(context(), 0, "questions", 0, "answer"),
        QUESTION + r" \(q-0-1-1\): no key 'answer': .*test\.json.*use tatqa_dataset_test_gold\.json",
    ),
    "no table": (without(context(), 0, "table"), r"dev\.json:1: no column 'table'"),
    "no uid of the table": (without(context(), 0, "table", "uid"), r"dev\.json:1: table: no key 'uid'; it has: table"),
    "no question text": (without(context(), 0, "questions", 0, "question"), QUESTION + r".*: no key 'question'"),
    "an unknown type": (context(answer_type="sum"), QUESTION + r".*answer_type: must be one of .*not text \(\"sum\"\)"),
    "an unknown scale": (context(scale="millions"), QUESTION + r".*scale: must be one of .*not text \(\"millions\"\)"),
    "a text for a number": (
        context(answer_type="arithmetic", answer="12"),
        QUESTION + r".*answer: an arithmetic answer must be a number, not text \(\"12\"\)",
    ),
    "true for a number": (context(answer_type="arithmetic", answer=True), r"must be a number, not a boolean"),
    "no number for a count": (context(answer_type="count", answer="two"), r"answer: must be a whole number, not text"),
    "blank items alone": (context(answer=[" "]), r"answer: must hold at least one item that is not blank"),
    "a number in a span": (context(answer=[3]), r"answer: must be text, not a number \(3\)"),
    "half a character": (context(question="\ud83d"), r"question: character 0 is half of a character"),
    "a table uid twice": (context() * 2, r"dev\.json:2: table uid 'table-0-1' stands at .*dev\.json:1 already"),
    "a question uid twice": (
        [table_of(1), table_of(2) | {"questions": table_of(1)["questions"]}],
        r"dev\.json:2: question uid 'q-0-1-1' stands at .*dev\.json:1 already",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_broken_file_stops_the_run_by_name(name: str, tmp_path: Path) -> None:
    contexts, says = BAD[name]
    with pytest.raises(ValueError, match=says):
        read_contexts(write(tmp_path, contexts) if name != "half a character" else escaped(tmp_path, contexts))


def escaped(folder: Path, contexts: list[dict[str, Any]]) -> str:
    (folder / "tatqa_dataset_dev.json").write_text(json.dumps(contexts), encoding="utf-8")
    return str(folder / "tatqa_dataset_dev.json")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], r"table\.table: must hold at least a header row, is empty"),
        ([["a", "b"], ["c"]], r"table\.table\[1\]: every row must have as many cells as the first, 2, has 1"),
        ([["a", 3]], r"table\.table\[0\]\[1\]: must be text, not a number \(3\)"),
        ("a | b", r"table\.table: must be a list, not text"),
    ],
)
def test_a_table_that_is_none_is_refused(rows: Any, says: str, tmp_path: Path) -> None:
    made = table_of(1)
    made["table"]["table"] = rows
    with pytest.raises(ValueError, match=says):
        read_contexts(write(tmp_path, [made]))


def test_the_hub_is_asked_for_one_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str, str]] = []

    def download(name: str, file: str, repo_type: str) -> str:
        asked.append((name, file, repo_type))
        return write(tmp_path, [table_of(1)], file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert len(read_contexts("next-tat/TAT-QA", "tatqa_dataset_dev.json")) == 1
    assert asked == [("next-tat/TAT-QA", "tatqa_dataset_dev.json", "dataset")]


def test_a_hub_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(name: str, file: str, repo_type: str) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(OSError, match=r"TAT-QA: its file tatqa_dataset_train\.json cannot be read .*no route.*`path`"):
        read_contexts("next-tat/TAT-QA")


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_counts_tables(limit: int, tmp_path: Path) -> None:
    assert len(read_contexts(write(tmp_path, [table_of(i) for i in range(3)]), limit=limit)) == limit


@pytest.mark.skipif(not DEV.exists(), reason="the dev file of TAT-QA is not here")
def test_all_gold_answers_of_the_dev_file_read_back() -> None:
    questions = [question for one in read_contexts(str(DEV)) for question in one.questions]
    assert len(questions) == 1668
    for question in questions:
        text = gold_text(question)
        assert is_accepted(question, text), (question, text)
        assert parse(text)[1] == question.scale

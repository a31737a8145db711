"""Every form of unpaired rows gives the same answers, pairs and samples are taken apart, bad cells are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sample_lines import line, write_lines

from lit_align.data.mixture import messages_hash
from lit_align.data.sources.named import NamedRated
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.data.sources.samples import RatedSamples, rated
from lit_align.data.sources.unpaired_pairs import UnpairedPairs
from lit_align.data.sources.unpaired_preference_file import UnpairedPreferenceFile
from lit_align.rated import RatedAnswer, RatedSource
from lit_align.types import Message

Written = Callable[..., str]
QUESTION = (Message("user", "2 + 2?"),)
TALK = [{"role": "user", "content": "2 + 2?"}]


def everything(group: str) -> bool:
    del group
    return True


def said(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@pytest.fixture
def file_of(tmp_path: Path) -> Written:
    def write(*rows: dict[str, Any], name: str = "votes.jsonl") -> str:
        path = tmp_path / name
        if path.suffix == ".parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "texts": ({"prompt": "2 + 2?", "completion": "4", "label": True}, {}),
    "messages": ({"prompt": TALK, "completion": [said("4")], "label": True}, {}),
    "one message": ({"prompt": TALK, "completion": said("4"), "label": True}, {}),
    "ShareGPT": (
        {"talk": [{"from": "human", "value": "2 + 2?"}], "said": {"from": "gpt", "value": "4"}, "thumb": True},
        {"prompt": ["talk"], "completion": "said", "label": "thumb"},
    ),
    "prompt in the answer": ({"completion": [*TALK, said("4")], "label": True}, {"prompt": []}),
    "prompt in both": ({"prompt": "2 + 2?", "completion": [*TALK, said("4")], "label": True}, {}),
    "blank input": (
        {"instruction": "2 + 2?", "input": "", "completion": "4", "label": True}, {"prompt": ["instruction", "input"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["votes.jsonl", "votes.parquet"])
def test_every_form_gives_the_same_answer(form: str, name: str, file_of: Written) -> None:
    row, options = FORMS[form]
    [one] = UnpairedPreferenceFile(file_of(row, name=name), **options).rated(everything)
    assert one == RatedAnswer(QUESTION, "4", True, f"{name}:1", name)


def test_a_bad_answer_is_one_and_a_system_turn_leads(file_of: Written) -> None:
    path = file_of({"s": "Be short.", "prompt": "2 + 2?", "completion": "5", "label": False, "table": 7})
    [one] = UnpairedPreferenceFile(path, system="s", group="table").rated(everything)
    assert one.prompt == (Message("system", "Be short."), *QUESTION)
    assert (one.desirable, one.group) == (False, "7")


def test_a_side_holds_the_rows_of_its_groups_and_prompts(file_of: Written) -> None:
    rows = [
        {"prompt": prompt, "completion": answer, "label": answer == "4", "table": table}
        for prompt, table in (("2 + 2?", ""), ("1 + 3?", "t"))
        for answer in ("4", "5")
    ]
    source = UnpairedPreferenceFile(file_of(*rows), group="table")
    assert [one.id for one in source.rated(lambda group: group == "t")] == ["votes.jsonl:3", "votes.jsonl:4"]
    alone = messages_hash(QUESTION)
    assert [one.id for one in source.rated(lambda group: group == alone)] == ["votes.jsonl:1", "votes.jsonl:2"]
    assert [prompt.gold for prompt in source.prompts()] == ["4", "", "4", ""]


GOOD_ROW: dict[str, Any] = {"prompt": "2 + 2?", "completion": "4", "label": True}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"label": 1}, {}, r"label: must be true \(good\) or false \(bad\), not a number \(1\)"),
        ({"label": "true"}, {}, r'label: must be true \(good\) or false \(bad\), not text \("true"\)'),
        ({"label": None}, {}, r"label: must be true \(good\) or false \(bad\), not null"),
        ({"completion": "  "}, {}, r"completion: the answer is blank \('  '\); drop the row"),
        ({"completion": None}, {}, "completion: must be text or turns, not null"),
        ({"completion": []}, {}, r"completion: must be a list of messages, not a list \(\[\]\)"),
        ({"completion": [said("4"), *TALK]}, {}, "completion: must end with the assistant's turn, not with user's"),
        ({"prompt": " "}, {}, "prompt: the prompt is blank; drop the row"),
        ({"prompt": 4}, {}, r"prompt: must be a list of messages, not a number \(4\)"),
        ({"prompt": "1 + 3?", "completion": [*TALK, said("4")]}, {}, "are not those of prompt; set `prompt: \\[\\]`"),
        ({}, {"prompt": []}, "no prompt: name its column, or write its turns before the answer"),
        ({}, {"label": "vote"}, "no column 'vote'; the row has: prompt, completion, label"),
        ({}, {"completion": "completions"}, "no column 'completions'; did you mean 'completion'"),
        ({"completion": "half \ud83d"}, {}, "completion: character 5 is half of a character"),
        ({"group": True}, {"group": "group"}, r"group: must be text or a number, not a boolean \(true\)"),
    ],
)  # fmt: skip
def test_a_bad_cell_is_named_by_file_row_and_column_or_counted(
    change: dict[str, Any], options: dict[str, Any], message: str, file_of: Written
) -> None:
    source = UnpairedPreferenceFile(file_of({**GOOD_ROW, "group": ""}, {**GOOD_ROW, **change}), **options)
    if not options or "group" in options:
        refused: list[tuple[str, str]] = []
        [left] = source.usable(everything, lambda name, error: refused.append((name, str(error))))
        assert left.id == "votes.jsonl:1"
        [(name, said_of)] = refused
        assert name == "votes.jsonl"
        assert "votes.jsonl:2: " in said_of
    with pytest.raises(ValueError, match=rf"votes.jsonl:[12]: (.*){message}"):
        source.rated(everything)


def test_a_column_twice_and_a_limit_of_0_are_refused() -> None:
    with pytest.raises(ValueError, match="a column is named twice among prompt, completion, label"):
        UnpairedPreferenceFile("x.jsonl", label="prompt")
    with pytest.raises(ValueError, match=r"UnpairedPreferenceFile.limit: must be at least 1"):
        UnpairedPreferenceFile("x.jsonl", limit=0)


def test_pairs_are_taken_apart_into_both_kinds_of_one_group(file_of: Written) -> None:
    pair = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "table": "t"}
    path = file_of(pair, {**pair, "chosen": ""})
    source = UnpairedPairs(PreferenceFile(path, group="table"))
    refused: list[str] = []
    found = source.usable(everything, lambda name, _: refused.append(name))
    assert found == [
        RatedAnswer(QUESTION, "4", True, "votes.jsonl:1 chosen", "votes.jsonl", "t"),
        RatedAnswer(QUESTION, "5", False, "votes.jsonl:1 rejected", "votes.jsonl", "t"),
    ]
    assert refused == ["votes.jsonl"]
    assert [one.id for one in source.prompts(lambda name, _: refused.append(name))] == ["votes.jsonl:1"]
    with pytest.raises(ValueError, match=r"votes.jsonl:2: chosen: the answer is blank"):
        source.rated(everything)


def test_samples_are_good_from_the_threshold_on_each_answer_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", rated.logger.name)
    scores = [("4", 1.0, True), ("4", 0.0, True), ("5", 0.4, True), (" ", 1.0, True), ("cut", 1.0, False)]
    lines = [line("a", i, answer, done, {"f1": f1}) for i, (answer, f1, done) in enumerate(scores)]
    lines += [line("b", 0, "6", scores={"f1": 0.5}, group="t")]  # a prompt of one kind alone is of use
    source = RatedSamples(write_lines(tmp_path, lines), score="f1", threshold=0.5)
    assert source.rated(everything) == [
        RatedAnswer(QUESTION, "4", True, "a sample 0", "sums"),
        RatedAnswer(QUESTION, "5", False, "a sample 2", "sums"),
        RatedAnswer(QUESTION, "6", True, "b sample 0", "sums", "t"),
    ]
    [told] = caplog.messages
    assert "3 answers to 2 prompts, 2 of them good; samples left out: 1 blank, 1 said before, 1 unfinished" in told
    assert [one.id for one in source.rated(lambda group: group == "t")] == ["b sample 0"]
    assert [one.gold for one in source.prompts()] == ["4", "4"]


def test_a_score_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [line("a", 0, scores={"f1": 1.0})])
    with pytest.raises(ValueError, match="sample 0 of 'a' has no score 'f11'; did you mean 'f1'"):
        RatedSamples(path, score="f11").rated(everything)
    with pytest.raises(ValueError, match=r"RatedSamples.threshold must be finite, got nan"):
        RatedSamples(path, score="f1", threshold=float("nan"))


def test_a_named_source_bears_its_name_also_in_its_refusals(file_of: Written) -> None:
    source: RatedSource = NamedRated("app", UnpairedPreferenceFile(file_of(GOOD_ROW, {**GOOD_ROW, "label": 2})))
    refused: list[str] = []
    [one] = source.usable(everything, lambda name, _: refused.append(name))
    assert [one.source, *refused] == ["app/votes.jsonl"] * 2
    assert {prompt.source for prompt in NamedRated("b", UnpairedPreferenceFile(file_of(GOOD_ROW))).prompts()} == {
        "b/votes.jsonl"
    }
    with pytest.raises(ValueError, match="must not be blank or hold a `/`"):
        NamedRated("a/b", UnpairedPreferenceFile("x.jsonl"))

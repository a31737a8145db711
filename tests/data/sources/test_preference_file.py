"""Texts, messages and ShareGPT turns give the same pairs; what is no pair is refused by row, column and value."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_align.data.mixture import messages_hash
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.types import Message, PreferencePair

Written = Callable[..., str]


@pytest.fixture
def file_of(tmp_path: Path) -> Written:
    def write(*rows: dict[str, Any], name: str = "pairs.jsonl") -> str:
        path = tmp_path / name
        if path.suffix == ".parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def everything(group: str) -> bool:
    del group
    return True


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def sharegpt(role: str, content: str) -> dict[str, str]:
    return {"from": role, "value": content}


QUESTION = (Message("user", "2 + 2?"),)
TALK = [turn("user", "2 + 2?")]
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "texts": ({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}, {}),
    "messages": ({"prompt": TALK, "chosen": [turn("assistant", "4")], "rejected": [turn("assistant", "5")]}, {}),
    "one message": ({"prompt": TALK, "chosen": turn("assistant", "4"), "rejected": turn("assistant", "5")}, {}),
    "ShareGPT": (
        {"conversations": [sharegpt("human", "2 + 2?")], "good": sharegpt("gpt", "4"), "bad": sharegpt("gpt", "5")},
        {"prompt": ["conversations"], "chosen": "good", "rejected": "bad"},
    ),
    "prompt in the answers": (
        {"chosen": [*TALK, turn("assistant", "4")], "rejected": [*TALK, turn("assistant", "5")]}, {"prompt": []},
    ),
    "prompt in its column and in the answers": (
        {"prompt": "2 + 2?", "chosen": [*TALK, turn("assistant", "4")], "rejected": [*TALK, turn("assistant", "5")]},
        {},
    ),
    "blank input": (
        {"instruction": "2 + 2?", "input": "", "chosen": "4", "rejected": "5"}, {"prompt": ["instruction", "input"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_every_form_gives_the_same_pair(form: str, name: str, file_of: Written) -> None:
    row, options = FORMS[form]
    [pair] = PreferenceFile(file_of(row, name=name), **options).pairs(everything)
    assert pair == PreferencePair(QUESTION, "4", "5", f"{name}:1", name)


def test_columns_of_the_prompt_are_joined_and_a_system_turn_leads(file_of: Written) -> None:
    row = {"a": "Add.", "b": "2 + 2", "s": "Be brief.", "chosen": "4", "rejected": "5"}
    [pair] = PreferenceFile(file_of(row), prompt=["a", "b"], system="s").pairs(everything)
    assert pair.prompt == (Message("system", "Be brief."), Message("user", "Add.\n\n2 + 2"))
    for blank in ("", " \n", None):
        [pair] = PreferenceFile(file_of({**row, "s": blank}), prompt=["a", "b"], system="s").pairs(everything)
        assert pair.prompt == (Message("user", "Add.\n\n2 + 2"),)


def test_a_side_of_the_split_is_asked_for_by_group_or_by_prompt(file_of: Written) -> None:
    rows = [{"prompt": f"{i}?", "chosen": "4", "rejected": "5", "table": i % 2} for i in range(4)]
    grouped = PreferenceFile(file_of(*rows), group="table")
    assert [pair.id for pair in grouped.pairs(lambda group: group == "1")] == ["pairs.jsonl:2", "pairs.jsonl:4"]
    wanted = messages_hash((Message("user", "2?"),))
    assert [p.id for p in PreferenceFile(file_of(*rows)).pairs(lambda g: g == wanted)] == ["pairs.jsonl:3"]
    assert len(PreferenceFile(file_of(*rows), limit=3).pairs(everything)) == 3


GOOD = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}


@pytest.mark.parametrize(
    ("row", "options", "says"),
    [
        ({"prompt": "a", "chosen": "b"}, {}, r"pairs\.jsonl:1: no column 'rejected'; .*has: prompt, chosen"),
        ({**GOOD, "chosen": " "}, {}, r"pairs\.jsonl:1: chosen: the answer is blank \(' '\)"),
        ({**GOOD, "chosen": 4}, {}, r"pairs\.jsonl:1: chosen: must be text or turns, not a number \(4\)"),
        ({**GOOD, "prompt": " "}, {}, r"pairs\.jsonl:1: prompt: the prompt is blank"),
        ({**GOOD, "prompt": []}, {}, r"pairs\.jsonl:1: prompt: must be a list of messages, not a list \(\[\]\)"),
        ({**GOOD, "chosen": [turn("user", "4")]}, {}, r"chosen: must end with the assistant's turn, not with user's"),
        ({**GOOD, "chosen": [turn("usr", "4")]}, {}, r"chosen\[0\]\.role: must be one of system, user, assistant"),
        (
            {**GOOD, "chosen": [*TALK, turn("assistant", "4")]}, {},
            r"pairs\.jsonl:1: chosen and rejected do not repeat the same turns",
        ),
        (
            {"prompt": "3?", "chosen": [*TALK, turn("assistant", "4")], "rejected": [*TALK, turn("assistant", "5")]},
            {},
            r"the turns of chosen before the answer are not those of prompt; set `prompt: \[\]`",
        ),
        (GOOD, {"prompt": []}, r"pairs\.jsonl:1: no prompt: name its column"),
        ({**GOOD, "s": "x", "prompt": TALK}, {"system": "s"}, r"pairs\.jsonl:1: s: the prompt holds turns"),
        ({**GOOD, "rejected": "\ud83d"}, {}, r"pairs\.jsonl:1: rejected: character 0 is half of a character"),
    ],
)  # fmt: skip
def test_what_is_no_pair_is_refused_by_row_and_column(
    row: dict[str, Any], options: dict[str, Any], says: str, file_of: Written
) -> None:
    with pytest.raises(ValueError, match=says):
        PreferenceFile(file_of(row), **options).pairs(everything)


def test_rows_that_are_no_pair_are_handed_over_one_by_one(file_of: Written) -> None:
    source = PreferenceFile(file_of(GOOD, {"prompt": "a"}, {**GOOD, "rejected": " "}, GOOD))
    told: list[str] = []
    found = source.usable(everything, lambda name, error: told.append(f"{name} {str(error).rpartition('/')[2]}"))
    assert [pair.id for pair in found] == ["pairs.jsonl:1", "pairs.jsonl:4"]
    assert told == [
        "pairs.jsonl pairs.jsonl:2: no column 'chosen'; the row has: prompt",
        "pairs.jsonl pairs.jsonl:3: rejected: the answer is blank (' '); drop the row",
    ]


def test_pairs_without_a_group_stand_alone(file_of: Written) -> None:
    rows = [{**GOOD, "g": value} for value in (None, "", 0, "a")]
    assert [pair.group for pair in PreferenceFile(file_of(*rows), group="g").pairs(everything)] == ["", "", "0", "a"]
    with pytest.raises(ValueError, match=r"pairs\.jsonl:1: g: must be text or a number, not a list \(\[1\]\)"):
        PreferenceFile(file_of({**GOOD, "g": [1]}), group="g").pairs(everything)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limit": 0}, r"PreferenceFile\.limit: must be at least 1"),
        ({"rejected": "chosen"}, "a column is named twice"),
        ({"prompt": ["a", "a"]}, "a column is named twice"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PreferenceFile("pairs.jsonl", **options)


# --- Scores, as UltraFeedback has them -------------------------------------------------------------------------------


def ultra(chosen: Any, rejected: Any, question: str = "2 + 2?") -> dict[str, Any]:
    """A row of ultrafeedback_binarized: the answers hold the prompt, and `messages` the chosen one again."""
    talks = {side: [turn("user", question), turn("assistant", side)] for side in ("chosen", "rejected")}
    scores = {"score_chosen": chosen, "score_rejected": rejected}
    return {"prompt": question, "prompt_id": "x", **talks, "messages": talks["chosen"], **scores}


def scored(path: str, **options: Any) -> PreferenceFile:
    return PreferenceFile(path, prompt=[], scores=["score_chosen", "score_rejected"], **options)


def test_ties_and_inverted_scores_are_left_out_and_counted(file_of: Written, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = file_of(ultra(8.5, 3.0), ultra(7.0, 7), ultra(2.0, 5.0), ultra(6.0, 5.5))
    assert [pair.id for pair in scored(path).pairs(everything)] == ["pairs.jsonl:1", "pairs.jsonl:4"]
    assert caplog.messages[-1].endswith("2 pairs; left out by their scores: 1 equal, 1 the other way round")
    [pair] = scored(path, min_margin=1.0).pairs(everything)
    assert (pair.prompt, pair.chosen, pair.rejected) == (QUESTION, "chosen", "rejected")
    assert len(PreferenceFile(path, prompt=[]).pairs(everything)) == 4


@pytest.mark.parametrize("score", [None, "8", True, float("nan")])
def test_a_score_that_is_no_number_is_refused(file_of: Written, score: Any) -> None:
    path = file_of(ultra(8.5, 3.0), ultra(score, 3.0))
    with pytest.raises(ValueError, match=r"pairs\.jsonl:2: score_chosen: must be a finite number"):
        scored(path).pairs(everything)
    assert len(scored(path).usable(everything, lambda *_: None)) == 1


def test_scores_that_leave_no_pair_are_refused(file_of: Written) -> None:
    with pytest.raises(ValueError, match=r"no pair; left out by their scores: 2 equal; look at \['score_ch"):
        scored(file_of(ultra(1, 1), ultra(2.0, 2))).pairs(everything)


@pytest.mark.parametrize(
    "options",
    [{"scores": ["a"]}, {"scores": ["a", "a"]}, {"min_margin": 1.0}, {"scores": ["a", "b"], "min_margin": -1.0}],
)
def test_scores_are_two_columns_and_a_margin_needs_them(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"PreferenceFile.*(scores|min_margin)"):
        PreferenceFile("pairs.jsonl", **options)

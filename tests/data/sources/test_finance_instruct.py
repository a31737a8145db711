"""The rows of Finance-Instruct as they are found in the wild."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lit_align.data.mixture import messages_hash, split
from lit_align.data.sources.finance_instruct import FinanceInstruct
from lit_align.data.sources.finance_instruct_pairs import FinanceInstructPairs
from lit_align.types import Message

ROW = {"system": "", "user": "What is a bond?", "assistant": "A loan."}


def source(tmp_path: Path, *rows: dict[str, Any]) -> FinanceInstruct:
    path = tmp_path / "finance.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return FinanceInstruct(str(path))


@pytest.mark.parametrize("blank", ["", "\n", "  ", None])
def test_a_blank_system_turn_is_dropped(tmp_path: Path, blank: str | None) -> None:
    [one] = source(tmp_path, {**ROW, "system": blank}).conversations()

    assert one.messages == (Message("user", "What is a bond?"), Message("assistant", "A loan."))
    assert (one.id, one.source) == ("finance.jsonl:1", "finance-instruct")


def test_the_rows_own_system_turn_is_kept_or_another_one_given(tmp_path: Path) -> None:
    rows = source(tmp_path, {**ROW, "system": " You advise.\n"}, ROW)

    def systems(one: FinanceInstruct) -> list[str]:
        return [talk.messages[0].content for talk in one.conversations() if talk.messages[0].role == "system"]

    assert systems(rows) == ["You advise."]
    assert systems(replace(rows, system="Be brief.")) == ["Be brief."] * 2
    assert systems(replace(rows, system="")) == []


def test_a_question_is_one_group_whatever_its_answer_and_system_turn(tmp_path: Path) -> None:
    rows = source(
        tmp_path, ROW, {**ROW, "assistant": "Debt."}, {**ROW, "system": "You advise."}, {**ROW, "user": "Why?"}
    )

    groups = [one.group for one in rows.conversations()]

    assert groups[0] == groups[1] == groups[2] != groups[3]
    assert groups[0] == messages_hash([Message("user", "What is a bond?")])  # as of a pair without a system turn
    for seed in range(10):
        assert [len(side) for side in split(rows.conversations(), 0.5, seed)] in ([4, 0], [0, 4], [3, 1], [1, 3])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ROW, "user": " \n"}, r"user: is blank \(' \\n'\); drop the row"),
        ({**ROW, "assistant": ""}, "assistant: is blank"),
        ({**ROW, "assistant": None}, "assistant: must be text, not null"),
        ({**ROW, "system": 3}, r"system: must be text, not a number \(3\)"),
        ({"user": "a", "assistant": "b"}, "no column 'system'"),
        ({"system": "", "instruction": "a", "assistant": "b"}, "no column 'user'; the row has"),
    ],
)
def test_a_malformed_row_is_refused_by_name_or_handed_over(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    rows = source(tmp_path, ROW, row)
    refused: list[tuple[str, str]] = []

    with pytest.raises(ValueError, match=f"finance.jsonl:2: {said}"):
        rows.conversations()
    assert len(rows.usable(lambda name, error: refused.append((name, str(error))))) == 1
    assert [name for name, _ in refused] == ["finance-instruct"]


def test_a_parquet_file_and_a_limit_are_read(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "train-00000.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW, {**ROW, "system": None}, ROW]), path)

    assert len(FinanceInstruct(str(path)).conversations()) == 3
    assert len(FinanceInstruct(str(path), limit=2).conversations()) == 2


# --- Transcripts folded into `user`, and pairs ----------------------------------------------------------------------

FOLDED = "User: What is a bond?\nAssistant: A loan.\nIt pays interest.\n\n**User:** And a stock?\nAssistant:"


def test_a_transcript_folded_into_user_is_unfolded(tmp_path: Path) -> None:
    rows = source(tmp_path, {**ROW, "system": "You advise.", "user": FOLDED}, ROW)
    one, plain = rows.conversations()
    assert [(turn.role, turn.content) for turn in one.messages] == [
        ("system", "You advise."),
        ("user", "What is a bond?"),
        ("assistant", "A loan.\nIt pays interest."),
        ("user", "And a stock?"),
        ("assistant", "A loan."),
    ]
    assert [turn.content for turn in replace(rows, transcripts="keep").conversations()[0].messages][1] == FOLDED
    assert len(plain.messages) == 2
    groups = [[talk.group for talk in replace(rows, transcripts=kind).conversations()] for kind in ("unfold", "keep")]
    assert groups[0] == groups[1]  # the split does not depend on it


@pytest.mark.parametrize(
    "text", ["User: What is a bond?", "Explain:\nUser: Hi\nAssistant: Hello", "Users: 3\nAssistants: 4", "User wrote"]
)
def test_a_question_that_is_no_transcript_stays_one_turn(tmp_path: Path, text: str) -> None:
    [one] = source(tmp_path, {**ROW, "user": text}).conversations()
    assert one.messages[0] == Message("user", text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("User: a\nAssistant: b", "ends with the assistant's turn"),
        ("User: a\nUser: b\nAssistant: c\nUser: d", "turn 2 is the user's, not the assistant's"),
        ("User: a\nAssistant:\nUser: b", "turn 2 is blank"),
    ],
)
def test_a_transcript_that_cannot_be_unfolded_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"finance.jsonl:2: user: holds a transcript .*{said}"):
        source(tmp_path, ROW, {**ROW, "user": text}).conversations()


def everything(group: str) -> bool:
    return True


def test_a_column_of_worse_answers_makes_pairs_of_like_length(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rows = source(
        tmp_path,
        {**ROW, "system": "\n", "worse": "A stock"},
        {**ROW, "assistant": "positive", "worse": "The text sounds rather positive to me, all in all."},
        {**ROW, "worse": " A loan."},
    )
    [pair] = FinanceInstructPairs("worse", rows).pairs(everything)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((Message("user", ROW["user"]),), "A loan.", "A stock")
    [talk, *_] = rows.conversations()
    assert (pair.group, pair.id, pair.source) == (talk.group, talk.id, talk.source)
    assert "left out: 1 with answers of unlike length, 1 with equal answers" in caplog.messages[-1]
    assert len(FinanceInstructPairs("worse", rows, max_length_ratio=100).pairs(everything)) == 2
    assert FinanceInstructPairs("worse", rows).pairs(lambda group: group != talk.group) == []


def test_a_column_that_makes_no_pair_is_refused(tmp_path: Path) -> None:
    for worse, said in (
        ("A loan.", "no pair; rows left out: 1 with equal"),
        (" ", "finance.jsonl:1: worse: is blank"),
        (None, "finance.jsonl:1: worse: must be text, not null"),
    ):
        with pytest.raises(ValueError, match=said):
            FinanceInstructPairs("worse", source(tmp_path, {**ROW, "worse": worse})).pairs(everything)
    with pytest.raises(ValueError, match="no column 'wrse'; did you mean 'worse'"):
        FinanceInstructPairs("wrse", source(tmp_path, {**ROW, "worse": "x"})).pairs(everything)
    with pytest.raises(ValueError, match=r"FinanceInstructPairs\.max_length_ratio: must be at least 1"):
        FinanceInstructPairs("worse", max_length_ratio=0.5)


def test_a_line_cut_off_and_latin_1_are_named(tmp_path: Path) -> None:
    rows = source(tmp_path, ROW, ROW)
    path = Path(rows.path)
    whole = path.read_bytes()
    for content, said in (
        (whole[:-9], r"line 2, column \d+: broken JSON"),
        (whole + b'{"system": "\xfc"}\n', "line 3: not UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=said):
            rows.conversations()

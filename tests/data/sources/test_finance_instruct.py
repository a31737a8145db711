"""The rows of Finance-Instruct as they are found in the wild."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lit_align.data.mixture import messages_hash, split
from lit_align.data.sources.finance_instruct import FinanceInstruct
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

"""Prompts to be sampled: rows that cannot be read stop the command, or are counted and left out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from lit_align.commands.sample_prompts import read_prompts
from lit_align.data.overlap import EvaluationSets
from lit_align.data.sources.decontaminated import DecontaminatedConversations
from lit_align.data.sources.finance_instruct import FinanceInstruct
from lit_align.data.sources.named import NamedConversations
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.data.sources.table_skills import TableSkillItems
from lit_align.types import PromptSource


def instructions(folder: Path) -> FinanceInstruct:
    rows = [
        {"system": "", "user": "What is a bond?", "assistant": "A loan."},
        {"system": "", "user": "What is a share?", "assistant": None},
        {"system": "", "user": "What is a fund?", "assistant": "A pool."},
    ]
    path = folder / "finance.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FinanceInstruct(str(path))


def wrapped(folder: Path) -> list[PromptSource]:
    source = instructions(folder)
    sets = EvaluationSets({"skills": TableSkillItems(skills=["chat"], n_per_skill=2)})
    return [source, NamedConversations("finance", source), DecontaminatedConversations(source, sets)]


def test_a_row_that_cannot_be_read_stops_the_command_by_default(tmp_path: Path) -> None:
    for source in wrapped(tmp_path):
        with pytest.raises(ValueError, match=r"finance\.jsonl:2: assistant: must be text, not null"):
            read_prompts(source, None, "stop")


def test_a_row_that_cannot_be_read_is_left_out_and_counted_where_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for source in wrapped(tmp_path):
        caplog.clear()
        found = read_prompts(source, None, "drop")
        assert [one.gold for one in found] == ["A loan.", "A pool."]
        assert "1 rows refused; first refusal" in caplog.text


def test_prompts_of_pairs_leave_out_the_rows_that_cannot_be_read_too(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "chosen": "Hello.", "rejected": "No."}, {"prompt": "Hi", "chosen": "", "rejected": "No."}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [one.gold for one in read_prompts(PreferenceFile(str(path)), None, "drop")] == ["Hello."]
    with pytest.raises(ValueError, match=r"pairs\.jsonl:2"):
        read_prompts(PreferenceFile(str(path)), None, "stop")


def test_a_source_of_which_no_row_can_be_read_has_nothing_to_answer(tmp_path: Path) -> None:
    path = tmp_path / "finance.jsonl"
    path.write_text(json.dumps({"system": "", "user": " ", "assistant": "A loan."}) + "\n")
    with pytest.raises(ValueError, match="has no prompts: nothing to answer"):
        read_prompts(FinanceInstruct(str(path)), None, "drop")

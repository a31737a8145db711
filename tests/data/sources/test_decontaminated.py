"""Rows that repeat evaluation questions are dropped from any source, counted by set and shown."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from parsing import parsed
from tat_qa_tables import table_of, write

from lit_align.data.overlap import EvaluationSets
from lit_align.data.sources.decontaminated import DecontaminatedConversations, DecontaminatedPairs
from lit_align.data.sources.finance_instruct import FinanceInstruct
from lit_align.data.sources.finance_instruct_pairs import FinanceInstructPairs
from lit_align.data.sources.prompt_completion_file import PromptCompletionFile
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.types import Conversation

EXAM = "Why do long bonds lose more of their price when rates rise?"


def jsonl(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def sets(tmp_path: Path) -> EvaluationSets:
    exam = jsonl(tmp_path / "exam.jsonl", {"prompt": EXAM, "completion": "Their cash flows are later."})
    tables = write(tmp_path, [table_of(number) for number in range(5)])
    return EvaluationSets({"tat-qa": TATQA(tables), "exam": PromptCompletionFile(exam)})


def finance(tmp_path: Path) -> FinanceInstruct:
    """TAT-QA and FinQA are among the sets that Finance-Instruct merges: rows repeat a table, a passage, a question."""
    table = table_of(3)
    rows = table["table"]["table"]
    said = [
        "What is a bond?",
        f"Context: {table['paragraphs'][0]['text']}\nSay why.",
        "\n".join("\t".join(row) for row in rows),
        f"Please answer. {EXAM.upper()} Be brief.",
        "Explain what the change in revenue of a company may tell an investor about the year ahead of it.",
    ]
    answer = {"system": "", "assistant": "It is a loan to the state.", "worse": "It is a share of a firm."}
    return FinanceInstruct(jsonl(tmp_path / "finance.jsonl", *({**answer, "user": text} for text in said)))


def test_tat_qa_s_tables_and_passages_and_other_sets_questions_are_dropped_and_counted(
    tmp_path: Path, sets: EvaluationSets, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = DecontaminatedConversations(finance(tmp_path), sets)
    assert [one.id for one in source.conversations()] == ["finance.jsonl:1", "finance.jsonl:5"]
    told = caplog.messages[-1]
    assert told.startswith("FinanceInstruct: 3 of 5 rows overlap with evaluation sets: tat-qa 2, exam 1; finance.jsonl")
    assert "finance.jsonl:4 says 'why do long bonds lose more of their price when rates rise' as exam" in told
    assert [one.id for one in source.prompts()] == ["finance.jsonl:1", "finance.jsonl:5"]


def test_pairs_are_cleaned_alike_and_by_their_answers_too(tmp_path: Path, sets: EvaluationSets) -> None:
    rows = finance(tmp_path)
    source = DecontaminatedPairs(FinanceInstructPairs("worse", rows), sets)
    assert [one.id for one in source.pairs(lambda _: True)] == ["finance.jsonl:1", "finance.jsonl:5"]
    row = {"system": "", "user": "Ask me something.", "assistant": f"{EXAM} Or so.", "worse": "No, I would not ask you"}
    other = {**row, "assistant": "What is a bond?", "worse": "What is a stock?"}
    asked = FinanceInstruct(jsonl(tmp_path / "asked.jsonl", row, other))
    pairs = FinanceInstructPairs("worse", asked, max_length_ratio=9)
    assert [one.id for one in DecontaminatedPairs(pairs, sets).pairs(lambda _: True)] == ["asked.jsonl:2"]


def test_refused_rows_and_the_draw_stay_the_source_s_own(tmp_path: Path, sets: EvaluationSets) -> None:
    class FirstOnly(FinanceInstruct):
        def draw(self, rows: Any, tokens: Any) -> list[Conversation]:
            return list(rows)[:1]

    rows = finance(tmp_path)
    with Path(rows.path).open("a") as stream:
        stream.write('{"system": "", "user": null, "assistant": "x"}\n')
    refused: list[str] = []
    source = DecontaminatedConversations(FirstOnly(rows.path), sets)
    found = source.usable(lambda _, error: refused.append(str(error)))
    assert [one.id for one in found] == ["finance.jsonl:1", "finance.jsonl:5"]
    assert len(refused) == 1
    assert source.draw(found, lambda _: 1) == found[:1]
    with pytest.raises(ValueError, match=r"finance\.jsonl:6: user: must be text"):
        source.conversations()


def test_a_side_of_which_nothing_is_left_is_told(sets: EvaluationSets, caplog: pytest.LogCaptureFixture) -> None:
    assert DecontaminatedPairs(sets.sets["tat-qa"], sets).pairs(lambda _: False) == []
    assert not [one for one in caplog.records if one.levelname == "WARNING"]
    assert DecontaminatedPairs(sets.sets["tat-qa"], sets).pairs(lambda _: True) == []
    [told] = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert re.match(r"TATQA: (3.) of \1 rows overlap .*no row is left: they are an evaluation set", told)


def test_a_configuration_names_the_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        """
        data:
          class_path: SFTDataModule
          init_args:
            sources:
              - class_path: DecontaminatedConversations
                init_args:
                  source: {class_path: FinanceInstruct, init_args: {path: finance.jsonl}}
                  against:
                    n: 13
                    sets:
                      tat-qa: {class_path: TATQA, init_args: {path: dev.json}}
        model: {class_path: SFTModule}
        """
    )
    [source] = parsed(["fit", "-c", str(config)], monkeypatch)["data"]["init_args"]["sources"]
    against = source["init_args"]["against"]
    assert against["n"] == 13
    assert against["sets"]["tat-qa"]["class_path"].endswith("TATQA")

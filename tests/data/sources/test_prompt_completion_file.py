from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_align.data.sources.prompt_completion_file import PromptCompletionFile
from lit_align.types import Conversation, Message


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[..., str]:
    def write(*rows: object, name: str = "qa.json") -> str:
        (tmp_path / name).write_text(json.dumps(rows), encoding="utf-8")
        return str(tmp_path / name)

    return write


ALPACA = {"instruction": "Correct.", "input": "He go", "output": "He goes"}


def alpaca(path: str, **options: Any) -> list[Conversation]:
    return PromptCompletionFile(path, prompt=["instruction", "input"], completion="output", **options).conversations()


def test_columns_of_the_prompt_are_joined_by_a_blank_line(file_of: Callable[..., str]) -> None:
    [conversation] = alpaca(file_of(ALPACA))
    assert conversation.messages == (Message("user", "Correct.\n\nHe go"), Message("assistant", "He goes"))
    assert (conversation.id, conversation.source) == ("qa.json:1", "qa.json")


@pytest.mark.parametrize("blank", ["", " \n", None])
def test_blank_columns_of_the_prompt_leave_no_trace(file_of: Callable[..., str], blank: str | None) -> None:
    for row in ({**ALPACA, "input": blank}, {**ALPACA, "instruction": blank, "input": "Correct."}):
        assert alpaca(file_of(row))[0].messages[0] == Message("user", "Correct.")


def test_system_turn_comes_first_and_limit_counts_rows(file_of: Callable[..., str]) -> None:
    path = file_of(ALPACA, ALPACA, {"broken": 1})
    conversations = alpaca(path, system="Be brief.", limit=2)
    assert [c.id for c in conversations] == ["qa.json:1", "qa.json:2"]
    assert conversations[1].messages[0] == Message("system", "Be brief.")
    assert len(conversations[1].messages) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": " "}, r"output: the completion is blank \(' '\)"),
        ({"output": None}, "output: must be text, not null"),
        ({"output": 4}, r"output: must be text, not a number \(4\)"),
        ({"input": ["x"]}, "input: must be text, not a list"),
        ({"input": "", "instruction": "\n"}, "instruction, input: the prompt is blank"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named_by_file_row_and_column(
    file_of: Callable[..., str], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"qa\.json:2: {message}"):
        alpaca(file_of(ALPACA, {**ALPACA, **change}))


def test_missing_column_is_named(file_of: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=r"qa\.json:1: no column 'prompt'; the row has: instruction, input, output"):
        PromptCompletionFile(file_of(ALPACA)).conversations()
    with pytest.raises(ValueError, match="no column 'outptu'; did you mean 'output'"):
        PromptCompletionFile(file_of(ALPACA), prompt=["input"], completion="outptu").conversations()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit: must be at least 1"),
        ({"prompt": []}, "must name at least one column"),
        ({"prompt": ["q", "a"], "completion": "a"}, "the model would be given the answer"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptCompletionFile("x", **options)

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_align.data.sources.messages_file import MessagesFile
from lit_align.types import Message

USER, ANSWER = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[..., str]:
    def write(*rows: object, name: str = "chat.jsonl") -> str:
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_rows_become_conversations_in_order_with_file_and_line_as_id(file_of: Callable[..., str]) -> None:
    path = file_of({"id": 9, "messages": [USER, ANSWER]}, {"messages": [{"role": "system", "content": ""}, USER]})
    first, second = MessagesFile(path).conversations()
    assert (first.id, first.source, first.group) == ("chat.jsonl:1", "chat.jsonl", "")
    assert first.messages == (Message("user", "2 + 2?"), Message("assistant", "4"))
    assert second.messages == (Message("system", ""), Message("user", "2 + 2?"))
    assert [c.id for c in MessagesFile(path, limit=1).conversations()] == ["chat.jsonl:1"]


def test_sharegpt_turns_are_the_same_conversation(file_of: Callable[..., str]) -> None:
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    [conversation] = MessagesFile(file_of({"conversations": turns}), messages="conversations").conversations()
    assert conversation.messages == (Message("system", "s"), Message("user", "q"), Message("assistant", "a"))


def test_white_space_of_a_text_is_kept(file_of: Callable[..., str]) -> None:
    [conversation] = MessagesFile(file_of({"messages": [USER, {**ANSWER, "content": "\n 4 \n"}]})).conversations()
    assert conversation.messages[1].content == "\n 4 \n"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (
            [USER, {"role": "bot", "content": "4"}],
            r"\[1\]\.role: must be one of system, user, assistant, not text \(\"bot\"\)",
        ),
        ([USER, {"role": ["user"], "content": "4"}], r"\[1\]\.role: must be one of .*, not a list"),
        ([{"from": "assistant", "value": "4"}], r"\[0\]\.from: must be one of human, gpt, system, not text"),
        ([USER, {"role": "assistant", "content": " \n"}], r"\[1\]\.content: the assistant's text is blank \(' \\n'\)"),
        ([USER, {"role": "assistant", "content": None}], r"\[1\]\.content: must be text, not null"),
        ([{"role": "user", "content": [{"type": "text", "text": "hi"}]}], r"\[0\]\.content: must be text, not a list"),
        ([USER, {"role": "assistant"}], r"\[1\]: no key 'content'; the message has: role"),
        ([{"content": "x"}], r"\[0\]: no key 'role'; the message has: content"),
        ([USER, "4"], r"\[1\]: must be an object with 'role' and 'content', not text"),
        ([USER, {**ANSWER, "reasoning_content": "sum"}], r"\[1\]\.reasoning_content: is not read.*<think>"),
        ([USER, {**ANSWER, "tool_calls": [{}]}], r"\[1\]\.tool_calls: is not read"),
        ([], ": must be a list of messages, not a list"),
        ("hi", ": must be a list of messages, not text"),
    ],
)
def test_a_message_that_breaks_a_rule_is_named_by_file_row_and_key(
    file_of: Callable[..., str], messages: object, message: str
) -> None:
    path = file_of({"messages": [USER, ANSWER]}, {"messages": messages})
    with pytest.raises(ValueError, match=rf"chat\.jsonl:2: messages.*{message}"):
        MessagesFile(path).conversations()


def test_empty_values_of_unread_keys_pass(file_of: Callable[..., str]) -> None:
    row = {"messages": [USER, {**ANSWER, "tool_calls": [], "reasoning_content": None, "name": "x"}]}
    assert len(MessagesFile(file_of(row)).conversations()) == 1


def test_wrong_column_names_the_nearest(file_of: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="no column 'messages'; did you mean 'message'"):
        MessagesFile(file_of({"message": []})).conversations()


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_below_one_is_refused(limit: int | None) -> None:
    with pytest.raises(ValueError, match=r"MessagesFile\.limit: must be at least 1"):
        MessagesFile("x", limit=limit)

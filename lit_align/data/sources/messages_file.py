"""Conversations of a file with a column of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lit_align.data.sources.read_rows import read_rows, stream_rows
from lit_align.data.sources.rows import Row, check_limit, checked_text, describe, usable_rows
from lit_align.types import ROLES, Conversation, ConversationSource, Message, Role, stop_at

_SHAREGPT_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}
# What a message may carry besides its text; leaving it out unsaid would train another conversation.
_UNREAD_KEYS = ("reasoning_content", "tool_calls", "function_call")


@dataclass(frozen=True)
class MessagesFile(ConversationSource):
    """Conversations from a JSON, JSON Lines or Parquet file whose rows hold a list of messages.

    A message is ``{"role": …, "content": …}``, or ShareGPT's ``{"from": …, "value": …}`` with ``human`` and ``gpt``.
    Other columns and keys are not read.

    Args:
        path: A ``.json`` file (a list of objects), a ``.jsonl`` file (an object a line), a ``.parquet`` file, a folder
            of such files, or the id of a data set on the hub.
        messages: The column of the list; ShareGPT's is ``conversations``.
        limit: Read the first so many rows only, at least 1; null reads all.

    Raises:
        ValueError: ``limit`` is below 1.
    """

    path: str
    messages: str = "messages"
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "MessagesFile")

    def conversations(self) -> list[Conversation]:
        """Read the conversations, in the file's order; ids are ``name.jsonl:17``.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not JSON in UTF-8 or holds no row; a row lacks the column; the list, a role or a
                text is not what it must be; an assistant's text is blank. The message names file, row, key and value.
        """
        return self.usable(stop_at)

    def usable(self, refuse: Callable[[str, ValueError], None]) -> list[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return list(self._usable(read_rows(self.path, self.limit), refuse))

    def stream(self, refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return self._usable(stream_rows(self.path, self.limit), refuse)

    def _usable(self, rows: Iterable[Row], refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        name = Path(self.path).name

        def conversation(row: Row) -> Conversation:
            return Conversation(read_messages(row, self.messages), id=row.id, source=name)

        return usable_rows(rows, conversation, lambda _: name, refuse)


def read_messages(row: Row, column: str) -> tuple[Message, ...]:
    """The turns of a row, in its order and with its roles.

    Args:
        row: Any row.
        column: The column of the list; a turn is ``{"role", "content"}`` or ShareGPT's ``{"from", "value"}``.

    Raises:
        ValueError: The column is missing, or the list, a role or a text is not what it must be.
    """
    entries = row.value(column)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{row.where}: {column}: must be a list of messages, not {describe(entries)}")
    return tuple(read_message(entry, f"{row.where}: {column}[{index}]") for index, entry in enumerate(entries))


def read_message(entry: object, where: str) -> Message:
    """One turn, ``{"role", "content"}`` or ShareGPT's ``{"from", "value"}``.

    Args:
        entry: What the file holds.
        where: File, row and key, for messages.

    Raises:
        ValueError: It is no turn, carries something that is not read, or its role or text is not what it must be.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: must be an object with 'role' and 'content', not {describe(entry)}")
    fields = cast("dict[str, Any]", entry)
    sharegpt = "role" not in fields and "from" in fields
    role_key, text_key = ("from", "value") if sharegpt else ("role", "content")
    for key in (role_key, text_key):
        if key not in fields:
            raise ValueError(f"{where}: no key '{key}'; the message has: {', '.join(fields) or 'none'}")
    for key in _UNREAD_KEYS:
        if fields.get(key):
            raise ValueError(
                f"{where}.{key}: is not read, got {describe(fields[key])}; write a trace into '{text_key}' as "
                "<think>…</think>, or drop the key or the row"
            )
    role = fields[role_key]
    roles = _SHAREGPT_ROLES if sharegpt else dict(zip(ROLES, ROLES, strict=True))
    if not isinstance(role, str) or role not in roles:
        raise ValueError(f"{where}.{role_key}: must be one of {', '.join(roles)}, not {describe(role)}")
    text = checked_text(fields[text_key], f"{where}.{text_key}")
    if roles[role] == "assistant" and not text.strip():
        raise ValueError(f"{where}.{text_key}: the assistant's text is blank ({text!r}); drop the row")
    return Message(cast("Role", roles[role]), text)

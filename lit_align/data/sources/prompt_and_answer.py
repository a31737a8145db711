"""The columns of a prompt, of an answer to it, and of what they share, in any form that files have them in."""

from __future__ import annotations

from collections.abc import Sequence

from lit_align.data.sources.messages_file import read_message, read_messages
from lit_align.data.sources.rows import Row, checked_text, describe
from lit_align.types import Message


def read_prompt(row: Row, columns: Sequence[str], system: str) -> tuple[Message, ...]:
    """The turns of a prompt.

    Args:
        row: Any row.
        columns: The column of a text or of turns; or several columns of text, of which those that are not blank are
            joined by a blank line.
        system: Column of a system turn, for prompts that are text; empty for none. A blank cell is no turn.

    Raises:
        ValueError: A column is missing or holds something else, or the prompt is blank.
    """
    given = row.value(system) if system else None
    if len(columns) == 1 and not isinstance(row.value(columns[0]), str):
        if isinstance(given, str) and given.strip():
            raise ValueError(f"{row.where}: {system}: the prompt holds turns; write the system turn into them")
        return read_messages(row, columns[0])
    parts = [row.text(column) for column in columns if row.value(column) is not None]
    text = "\n\n".join(part for part in parts if part.strip())
    if not text:
        raise ValueError(f"{row.where}: {', '.join(columns)}: the prompt is blank; drop the row")
    said = "" if given is None else checked_text(given, f"{row.where}: {system}")
    return (*((Message("system", said),) if said.strip() else ()), Message("user", text))


def read_answer(row: Row, column: str) -> tuple[tuple[Message, ...], str]:
    """The turns before an answer, if its column repeats them, and its text.

    Args:
        row: Any row.
        column: The column of a text, of one turn, or of turns that end with the assistant's.

    Raises:
        ValueError: The column is missing or holds something else, or the answer is blank.
    """
    value = row.value(column)
    if isinstance(value, str):
        turns: tuple[Message, ...] = (Message("assistant", checked_text(value, f"{row.where}: {column}")),)
    elif isinstance(value, dict):
        turns = (read_message(value, f"{row.where}: {column}"),)
    elif isinstance(value, list):
        turns = read_messages(row, column)
    else:
        raise ValueError(f"{row.where}: {column}: must be text or turns, not {describe(value)}")
    last = turns[-1]
    if last.role != "assistant":
        raise ValueError(f"{row.where}: {column}: must end with the assistant's turn, not with {last.role}'s")
    if not last.content.strip():
        raise ValueError(f"{row.where}: {column}: the answer is blank ({last.content!r}); drop the row")
    return turns[:-1], last.content


def read_group(row: Row, column: str) -> str:
    """The name of what rows share.

    Args:
        row: Any row.
        column: The column, of text or numbers; empty for none.

    Returns:
        Empty where the row stands alone, as where the cell is null: as text it would be a group of all such rows.

    Raises:
        ValueError: The column is missing or holds something else.
    """
    value = row.value(column) if column else None
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{row.where}: {column}: must be text or a number, not {describe(value)}")
    return str(value)

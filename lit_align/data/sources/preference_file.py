"""Preference pairs from columns of a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lit_align.data.mixture import group_of
from lit_align.data.sources.messages_file import read_message, read_messages
from lit_align.data.sources.read_rows import read_rows
from lit_align.data.sources.rows import Row, check_limit, checked_text, describe, stop_at, usable_rows
from lit_align.types import Message, PairSource, PreferencePair


@dataclass(frozen=True)
class PreferenceFile(PairSource):
    """Pairs from a JSON, JSON Lines or Parquet file whose rows hold a prompt, a chosen and a rejected answer.

    Each of the three is text, or turns: a list of ``{"role", "content"}`` or of ShareGPT's ``{"from", "value"}`` (one
    such turn may stand alone). Where the answers repeat the prompt before their last turn, its column need not be named
    (``prompt: []``).

    Args:
        path: A ``.json`` file (a list of objects), a ``.jsonl`` file (an object a line), a ``.parquet`` file, a folder
            of such files, or the id of a data set on the hub.
        prompt: Column of the prompt, a text or turns that end with the user's; or several columns of text, of which
            those that are not blank are joined by a blank line (Alpaca's ``[instruction, input]``); none where the
            answers repeat it.
        chosen: Column of the better answer.
        rejected: Column of the worse answer.
        system: Column of a system turn, for prompts that are text; empty for none. A blank cell is no turn.
        group: Column whose value, text or a number, names what pairs share (a table, a post); empty for none. Where it
            is null or empty text, the pair stands alone.
        limit: Read the first so many rows only, at least 1; null reads all.

    Raises:
        ValueError: ``limit`` is below 1, or a column is named twice.
    """

    path: str
    prompt: list[str] = field(default_factory=lambda: ["prompt"])
    chosen: str = "chosen"
    rejected: str = "rejected"
    system: str = ""
    group: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "PreferenceFile")
        columns = [*self.prompt, self.chosen, self.rejected]
        if len({*columns}) < len(columns):
            raise ValueError(f"PreferenceFile: a column is named twice among prompt, chosen, rejected: {columns}")

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Read the pairs of one side of a split, in the file's order; ids are ``name.jsonl:17``.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not what its name says or holds no row; a row lacks a column or holds something else
                than text or turns; an answer is blank, or does not repeat the other's prompt. The message names file,
                row, column and value.
        """
        return self.usable(keep, stop_at)

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        name = Path(self.path).name
        found = usable_rows(read_rows(self.path, self.limit), self._pair, lambda _: name, refuse)
        return [pair for pair in found if keep(group_of(pair))]

    def _pair(self, row: Row) -> PreferencePair:
        before, chosen = self._answer(row, self.chosen)
        other, rejected = self._answer(row, self.rejected)
        if before != other:
            raise ValueError(
                f"{row.where}: {self.chosen} and {self.rejected} do not repeat the same turns before their last one; "
                "a pair has one prompt: drop the row"
            )
        prompt = self._prompt(row) if self.prompt else before
        if not prompt:
            raise ValueError(f"{row.where}: no prompt: name its column, or write its turns before both answers")
        if before and before != prompt:
            raise ValueError(
                f"{row.where}: the turns of {self.chosen} before the answer are not those of {', '.join(self.prompt)}; "
                "set `prompt: []` to take them from the answers"
            )
        return PreferencePair(prompt, chosen, rejected, row.id, Path(self.path).name, self._group(row))

    def _group(self, row: Row) -> str:
        value = row.value(self.group) if self.group else None
        if value is None:
            return ""  # as text it would be a group of its own, of all such rows
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{row.where}: {self.group}: must be text or a number, not {describe(value)}")
        return str(value)

    def _prompt(self, row: Row) -> tuple[Message, ...]:
        system = row.value(self.system) if self.system else None
        if len(self.prompt) == 1 and not isinstance(row.value(self.prompt[0]), str):
            if isinstance(system, str) and system.strip():
                raise ValueError(f"{row.where}: {self.system}: the prompt holds turns; write the system turn into them")
            return read_messages(row, self.prompt[0])
        parts = [row.text(column) for column in self.prompt if row.value(column) is not None]
        text = "\n\n".join(part for part in parts if part.strip())
        if not text:
            raise ValueError(f"{row.where}: {', '.join(self.prompt)}: the prompt is blank; drop the row")
        given = "" if system is None else checked_text(system, f"{row.where}: {self.system}")
        return (*((Message("system", given),) if given.strip() else ()), Message("user", text))

    def _answer(self, row: Row, column: str) -> tuple[tuple[Message, ...], str]:
        """The turns before an answer, if it repeats them, and its text."""
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

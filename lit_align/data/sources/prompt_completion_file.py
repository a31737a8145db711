"""Conversations of one question and one answer, from columns of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lit_align.data.sources.read_rows import read_rows, stream_rows
from lit_align.data.sources.rows import Row, check_limit, usable_rows
from lit_align.types import Conversation, ConversationSource, Message, stop_at


@dataclass(frozen=True)
class PromptCompletionFile(ConversationSource):
    """Questions and answers from the columns of a JSON, JSON Lines or Parquet file.

    Args:
        path: A ``.json`` file (a list of objects), a ``.jsonl`` file (an object a line), a ``.parquet`` file, a folder
            of such files, or the id of a data set on the hub.
        prompt: Columns of the question, at least one; those that are not blank are joined by a blank line, so that
            Alpaca's ``[instruction, input]`` reads as one text. Null counts as blank.
        completion: The column of the answer.
        system: A system turn for every row; empty for none.
        limit: Read the first so many rows only, at least 1; null reads all.

    Raises:
        ValueError: ``limit`` is below 1, or ``prompt`` names no column or the column of the answer.
    """

    path: str
    prompt: list[str] = field(default_factory=lambda: ["prompt"])
    completion: str = "completion"
    system: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "PromptCompletionFile")
        if not self.prompt:
            raise ValueError("PromptCompletionFile.prompt: must name at least one column")
        if self.completion in self.prompt:
            raise ValueError(
                f"PromptCompletionFile.prompt: names the column '{self.completion}', which is the completion: "
                "the model would be given the answer"
            )

    def conversations(self) -> list[Conversation]:
        """Read the conversations, in the file's order; ids are ``name.jsonl:17``.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not JSON in UTF-8 or holds no row; a row lacks a column or holds something else
                than text; all columns of the question are blank, or the answer is. The message names file, row,
                column and value.
        """
        return self.usable(stop_at)

    def usable(self, refuse: Callable[[str, ValueError], None]) -> list[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return list(self._usable(read_rows(self.path, self.limit), refuse))

    def stream(self, refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return self._usable(stream_rows(self.path, self.limit), refuse)

    def _usable(self, rows: Iterable[Row], refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        return usable_rows(rows, self._conversation, lambda _: Path(self.path).name, refuse)

    def _conversation(self, row: Row) -> Conversation:
        parts = [row.text(column) for column in self.prompt if row.value(column) is not None]
        question = "\n\n".join(part for part in parts if part.strip())
        if not question:
            raise ValueError(f"{row.where}: {', '.join(self.prompt)}: the prompt is blank; drop the row")
        answer = row.text(self.completion)
        if not answer.strip():
            raise ValueError(f"{row.where}: {self.completion}: the completion is blank ({answer!r}); drop the row")
        system = (Message("system", self.system),) if self.system else ()
        turns = (*system, Message("user", question), Message("assistant", answer))
        return Conversation(turns, id=row.id, source=Path(self.path).name)

"""Finance-Instruct-500k: questions about money matters with answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from lit_align.data.mixture import messages_hash
from lit_align.data.sources.folded_transcript import unfold
from lit_align.data.sources.read_rows import read_rows, stream_rows
from lit_align.data.sources.rows import Row, check_limit, usable_rows
from lit_align.types import Conversation, ConversationSource, Message, stop_at

SOURCE = "finance-instruct"


@dataclass(frozen=True)
class FinanceInstruct(ConversationSource):
    """Conversations of Finance-Instruct-500k (Josephgflowers; Apache-2.0), or of a file with its columns.

    About 518,000 rows with the columns ``system``, ``user`` and ``assistant``; many system texts are blank, and some
    user texts are whole dialogues. The same question comes with several answers, so the group of a row is the hash of
    its user text: a split never parts them, whatever the system turn is.

    The set merges 37 others, TAT-QA and FinQA among them: their questions are in it, and
    :class:`~lit_align.data.sources.decontaminated.DecontaminatedConversations` takes them out.

    Args:
        path: Id on the hub; or a JSON, JSON Lines or Parquet file, or a folder of such files, with the same columns.
        system: A system turn for every row, empty for none; null takes the row's own where it is not blank.
        transcripts: What becomes of a dialogue that stands in one user text, from ``User:`` on: its turns, where they
            alternate and end with the user's, and else a refused row (``unfold``); or one turn as it stands (``keep``).
        limit: Read the first so many rows only, at least 1; null reads all.

    Raises:
        ValueError: ``limit`` is below 1.

    Example:
        >>> FinanceInstruct(limit=0)
        Traceback (most recent call last):
        ValueError: FinanceInstruct.limit: must be at least 1, or null for all rows, not 0
    """

    path: str = "Josephgflowers/Finance-Instruct-500k"
    system: str | None = None
    transcripts: Literal["unfold", "keep"] = "unfold"
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "FinanceInstruct")

    def conversations(self) -> list[Conversation]:
        """Read the conversations, in the file's order; ids are ``name.jsonl:17``.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: A row lacks a column or holds something else than text, its question or its answer is blank, or
                its user text is a dialogue that cannot be unfolded. The message names file, row, column and value.
        """
        return self.usable(stop_at)

    def usable(self, refuse: Callable[[str, ValueError], None]) -> list[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return list(self._usable(read_rows(self.path, self.limit), refuse))

    def stream(self, refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return self._usable(stream_rows(self.path, self.limit), refuse)

    def _usable(self, rows: Iterable[Row], refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        return usable_rows(rows, self.conversation, lambda _: SOURCE, refuse)

    def conversation(self, row: Row) -> Conversation:
        """The conversation of a row.

        Args:
            row: A row with the set's columns.

        Raises:
            ValueError: See :meth:`conversations`.
        """
        own = "" if row.value("system") is None else row.text("system")
        system = own.strip() if self.system is None else self.system
        texts = {column: row.text(column) for column in ("user", "assistant")}
        for column, text in texts.items():
            if not text.strip():
                raise ValueError(f"{row.where}: {column}: is blank ({text!r}); drop the row")
        try:
            turns = unfold(texts["user"]) if self.transcripts == "unfold" else None
        except ValueError as error:
            raise ValueError(
                f"{row.where}: user: holds {error}; drop the row, or set FinanceInstruct.transcripts: keep"
            ) from error
        question, answer = Message("user", texts["user"]), Message("assistant", texts["assistant"])
        first = [Message("system", system)] if system else []
        return Conversation((*first, *(turns or (question,)), answer), row.id, SOURCE, group=messages_hash([question]))

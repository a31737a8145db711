"""Conversations to paths of tokens, and the part of the data that they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lit_align.data.chat import ChatFormat, Turns
from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import Lengths, prompt_size
from lit_align.data.part import BadRows, Part, Workshop
from lit_align.data.prepared.examples import Tokenised
from lit_align.data.trees import ConversationTrees
from lit_align.data.windows import Tree
from lit_align.trie import shared_size
from lit_align.types import Conversation, ConversationSource, Outline

__all__ = ["BadRows", "ConversationTokeniser", "Tokenising"]


@dataclass(frozen=True)
class ConversationTokeniser:
    """Tokenises a conversation, a path for each trained turn.

    Attributes:
        chat: The chat format.
        lengths: Token limits of an example.
        turns: Which assistant turns are trained.
    """

    chat: ChatFormat
    lengths: Lengths
    turns: Turns

    def __call__(self, conversation: Conversation) -> Tokenised:
        """What becomes of a conversation."""
        known = conversation.id, conversation.group, conversation.source
        try:
            rendered = self.chat.paths(conversation, self.turns)
        except ValueError as error:
            return Tokenised(*known, refused=error.with_traceback(None))
        fitted = [self.lengths.fit(path) for path in rendered]
        outcomes = tuple(
            (outcome, prompt_size(path), len(path.tokens)) for path, (_, outcome) in zip(rendered, fitted, strict=True)
        )
        paths = tuple(path for path, _ in fitted if path is not None)
        if not paths:
            return Tokenised(*known, outcomes=outcomes)
        least = max(len(path.tokens) for path in paths)
        lost = sum(len(path.tokens) - len(cut.tokens) for path, (cut, _) in zip(rendered, fitted, strict=True) if cut)
        size = shared_size([path.tokens for path in paths])
        return Tokenised(*known, paths, size, least, outcomes, lost=lost)


class Tokenising(Part):
    """Tokenises conversations of one part of the data, each once, and counts what becomes of their answers.

    Args:
        chat: The chat format.
        lengths: Token limits of an example.
        turns: Which assistant turns are trained.
        token_budget: Rows a forest; an answer whose path is longer is an error.
        weight: Weight of the targets in the NLL: 1, or 0 for replayed conversations.
        bad_rows: What a row that the chat format refuses does: ``stop`` the run, or be counted and left out (``drop``).
        part: Name of the part, for messages.
        workshop: What it shares with other parts; None for a part by itself.
    """

    undivided = "answer"

    def __init__(
        self,
        chat: ChatFormat,
        lengths: Lengths,
        turns: Turns,
        token_budget: int,
        weight: float,
        bad_rows: BadRows,
        part: str,
        workshop: Workshop | None = None,
    ) -> None:
        tokenise = ConversationTokeniser(chat, lengths, turns)
        report = LengthReport(part, lengths)
        super().__init__(part, tokenise, report, token_budget, weight, bad_rows, workshop or Workshop())

    def drawn(self, sources: Sequence[ConversationSource]) -> list[Outline]:
        """What each source draws of its usable rows."""
        read = ((source, self.read(source.stream(self.refuse))) for source in sources)
        return [one for source, rows in read for one in source.draw(rows, self.trained_tokens)]

    def trees(self, conversations: Iterable[Conversation]) -> list[Tree]:
        """Trees of the conversations that fit, held in memory; see :meth:`Part.examples`."""
        return list(ConversationTrees(self.examples(self.read(conversations)), self._budget))

"""Rated answers to paths of tokens, and the part of the data that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lit_align.data.chat import ChatFormat
from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import Lengths
from lit_align.data.mixture import group_of
from lit_align.data.part import BadRows, Part, Workshop
from lit_align.data.prepared.examples import Tokenised
from lit_align.data.rated_trees import rated_trees
from lit_align.data.tokenising import ConversationTokeniser
from lit_align.data.windows import Tree
from lit_align.rated import RatedAnswer
from lit_align.types import Conversation, Message


@dataclass(frozen=True)
class RatedTokeniser:
    """Tokenises a rated answer, as the last turn of a conversation.

    Attributes:
        chat: The chat format; an answer is rendered as the last turn after its prompt.
        lengths: Token limits.
    """

    chat: ChatFormat
    lengths: Lengths

    def __call__(self, answer: RatedAnswer) -> Tokenised:
        """What becomes of an answer; those to one prompt are a group, where they have no other."""
        turns = (*answer.prompt, Message("assistant", answer.completion))
        conversation = Conversation(turns, answer.id, answer.source, group_of(answer))
        done = ConversationTokeniser(self.chat, self.lengths, "last")(conversation)
        return done._replace(paths=tuple(replace(path, desirable=answer.desirable) for path in done.paths))


class RatedTokenising(Part):
    """Tokenises the rated answers of one part of the data, each once, and counts what becomes of them.

    Args:
        chat: The chat format; an answer is rendered as the last turn after its prompt.
        lengths: Token limits.
        window: Most answers of a group that share a tree; a larger group is split.
        token_budget: Most rows of a tree; a larger group is split, a larger answer (with its mismatched one) an error.
        bad_rows: What an answer does that the chat format refuses: ``stop`` the run, or be counted and left out.
        part: Name of the part, for messages.
        workshop: What it shares with other parts; None for a part by itself.
    """

    undivided = "answer"

    def __init__(
        self,
        chat: ChatFormat,
        lengths: Lengths,
        window: int,
        token_budget: int,
        bad_rows: BadRows,
        part: str,
        workshop: Workshop | None = None,
    ) -> None:
        self._window, self._most = window, lengths.max_length
        report, tokenise = LengthReport(part, lengths), RatedTokeniser(chat, lengths)
        super().__init__(part, tokenise, report, token_budget, 1.0, bad_rows, workshop or Workshop())

    def trees(self, answers: Sequence[RatedAnswer]) -> list[Tree]:
        """Trees of the groups, held in memory; see :meth:`Part.examples`."""
        return list(rated_trees(self.examples(self.read(answers)), self._window, self._budget, self._most))

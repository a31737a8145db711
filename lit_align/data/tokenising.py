"""Conversations to trees of tokens, and the report of what was kept, cut and dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from lit_align.data.chat import ChatFormat, Turns
from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import Lengths, prompt_size
from lit_align.data.windows import Tree, group_of_copy
from lit_align.forest import TokenClass
from lit_align.trie import shared_size
from lit_align.types import Conversation, ConversationSource

BadRows = Literal["stop", "drop"]


class Tokenising:
    """Tokenises conversations of one part of the data, each once, and counts what becomes of their answers.

    Args:
        chat: The chat format.
        lengths: Token limits of an example.
        turns: Which assistant turns are trained.
        token_budget: Rows a forest; an answer whose path is longer is an error.
        weight: Weight of the targets in the NLL: 1, or 0 for replayed conversations.
        bad_rows: What a row that the chat format refuses does: ``stop`` the run, or be counted and left out (``drop``).
        part: Name of the part, for messages.
    """

    def __init__(
        self,
        chat: ChatFormat,
        lengths: Lengths,
        turns: Turns,
        token_budget: int,
        weight: float,
        bad_rows: BadRows,
        part: str,
    ) -> None:
        self._chat, self._lengths, self._turns = chat, lengths, turns
        self._budget, self._weight, self._bad_rows = token_budget, weight, bad_rows
        self._trees: dict[int, tuple[Conversation, Tree | None]] = {}
        self._report = LengthReport(part, lengths)

    def drawn(self, sources: Sequence[ConversationSource]) -> list[Conversation]:
        """What each source draws of its usable rows."""
        return [one for source in sources for one in source.draw(source.usable(self.refuse), self.trained_tokens)]

    def trained_tokens(self, conversation: Conversation) -> int:
        """Answer tokens that a conversation brings into training; 0 if nothing of it fits."""
        tree = self._tree(conversation)
        return 0 if tree is None else sum(int((path.classes == TokenClass.ANSWER).sum()) for path in tree.paths)

    def say(self, line: str) -> None:
        """Log a line about this part of the data."""
        self._report.say(line)

    def trees(self, conversations: Iterable[Conversation]) -> list[Tree]:
        """Trees of the conversations that fit; says what was kept, cut and dropped, by source.

        Args:
            conversations: Any; one that is given again (the same object) is in the group of the second copies.

        Raises:
            ValueError: A row is refused and ``bad_rows`` is ``stop``; a path is over the token budget; a source
                loses more answers than ``lengths.max_dropped`` allows; or nothing is left.
        """
        trees = []
        given = Counter[int]()
        for conversation in conversations:
            if (tree := self._tree(conversation)) is not None:
                trees.append(replace(tree, group=group_of_copy(tree.group, given[id(conversation)])))
                given[id(conversation)] += 1
        self._report.tell()
        self._report.stop_if_empty(len(trees))
        self._report.stop_at_losses()
        return trees

    @property
    def report(self) -> LengthReport:
        """What became of the answers so far."""
        return self._report

    def tree(self, conversation: Conversation) -> Tree | None:
        """The tree of one conversation, which is not kept here; None where nothing of it fits or it is refused.

        Args:
            conversation: Any.

        Raises:
            ValueError: It is refused and ``bad_rows`` is ``stop``, or is over the token budget.
        """
        return self._tokenised(conversation)

    def refuse(self, source: str, error: ValueError) -> None:
        """Stop at a row that its source cannot read, or count it, as ``bad_rows`` says."""
        self._refuse(source, error, read=False)

    def pass_over(self, conversations: Iterable[Conversation]) -> None:
        """Count those that a mix had no use for, and that were never tokenised."""
        for one in conversations:
            if id(one) not in self._trees:
                self._report.pass_over(one.source)

    def _refuse(self, source: str, error: ValueError, read: bool) -> None:
        if self._bad_rows == "stop":
            raise error
        self._report.refuse(source, str(error), read)

    def _tree(self, conversation: Conversation) -> Tree | None:
        # By identity: two rows may say the same. The conversation is kept beside its tree, so no other gets its id.
        if (done := self._trees.get(id(conversation))) is None:
            self._report.row()
            done = self._trees[id(conversation)] = (conversation, self._tokenised(conversation))
        return done[1]

    def _tokenised(self, conversation: Conversation) -> Tree | None:
        source = conversation.source
        try:
            rendered = self._chat.paths(conversation, self._turns)
        except ValueError as error:
            self._refuse(source, error, read=True)
            return None
        paths = []
        for path in rendered:
            fitted, outcome = self._lengths.fit(path)
            self._report.count(source, outcome, prompt_size(path), len(path.tokens))
            if fitted is not None:
                paths.append(replace(fitted, weight=self._weight, source=source))
        if not paths:
            return None
        longest = max(len(path.tokens) for path in paths)
        if longest > self._budget:
            raise ValueError(
                f"{conversation.id}: its {longest} tokens are over `data.token_budget` = {self._budget}; "
                "raise the budget or lower `data.lengths.max_length`"
            )
        size = shared_size([path.tokens for path in paths])
        return Tree(conversation.id, tuple(paths), size, conversation.group)

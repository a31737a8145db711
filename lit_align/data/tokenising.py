"""Conversations to trees of tokens, and the report of what was kept, cut and dropped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from tqdm import tqdm

from lit_align.data.chat import ChatFormat, Turns
from lit_align.data.lengths import Lengths, histogram
from lit_align.data.windows import Tree
from lit_align.forest import TokenClass, TokenPath
from lit_align.trie import shared_size
from lit_align.types import Conversation

logger = logging.getLogger(__name__)

BadRows = Literal["stop", "drop"]
REFUSED = "refused"
_DROPPED = {"prompt too long", "too long", REFUSED}


class Tokenising:
    """Tokenises conversations of one part of the data, each once, and counts what becomes of their answers.

    Args:
        chat: The chat format.
        lengths: Token limits of an example.
        turns: Which assistant turns are trained.
        token_budget: Rows a forest; a conversation over it is an error.
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
        self._budget, self._weight, self._bad_rows, self._part = token_budget, weight, bad_rows, part
        self._trees: dict[int, tuple[Conversation, Tree | None]] = {}
        self._outcomes: dict[str, Counter[str]] = {}
        self._sizes: dict[str, list[int]] = {}
        self._first_refusal: dict[str, str] = {}
        self._bar: tqdm[None] | None = None  # opened at the first row: two open bars write over one another

    def trained_tokens(self, conversation: Conversation) -> int:
        """Answer tokens that a conversation brings into training; 0 if nothing of it fits."""
        tree = self._tree(conversation)
        return 0 if tree is None else sum(int((path.classes == TokenClass.ANSWER).sum()) for path in tree.paths)

    def trees(self, conversations: Iterable[Conversation]) -> list[Tree]:
        """Trees of the conversations that fit; says what was kept, cut and dropped, by source.

        Raises:
            ValueError: A row is refused and ``bad_rows`` is ``stop``; a conversation is over the token budget; a source
                loses more answers than ``lengths.max_dropped`` allows; or nothing is left.
        """
        found = [self._tree(conversation) for conversation in conversations]
        if self._bar is not None:
            self._bar.close()
        for source, count in self._outcomes.items():
            told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(count.items()))
            refusal = self._first_refusal.get(source)
            logger.info(
                f"{self._part}: {source}: {count.total()} answers: {told}"
                + (f"; first refusal: {refusal}" if refusal else "")
            )
        trees = [tree for tree in found if tree is not None]
        if not trees:
            raise ValueError(
                f"no example is left for {self._part}: {len(found)} conversations were read, none fits "
                f"`data.lengths` ({self._lengths}); raise max_length or max_prompt_length, or use `overlong: cut`"
            )
        for source, count in self._outcomes.items():
            self._refuse_losses(source, count)
        return trees

    def _tree(self, conversation: Conversation) -> Tree | None:
        # By identity: two rows may say the same. The conversation is kept beside its tree, so no other gets its id.
        if (done := self._trees.get(id(conversation))) is None:
            if self._bar is None:
                self._bar = tqdm(desc=f"tokenising {self._part}", delay=2, leave=False, unit=" rows")
            self._bar.update()
            done = self._trees[id(conversation)] = (conversation, self._tokenised(conversation))
        return done[1]

    def _tokenised(self, conversation: Conversation) -> Tree | None:
        source = conversation.source
        count = self._outcomes.setdefault(source, Counter())
        try:
            rendered = self._chat.paths(conversation, self._turns)
        except ValueError as error:
            if self._bad_rows == "stop":
                raise
            count[REFUSED] += 1
            self._first_refusal.setdefault(source, str(error))
            return None
        paths = []
        for path in rendered:
            fitted, outcome = self._lengths.fit(path)
            count[outcome] += 1
            self._sizes.setdefault(source, []).append(len(path.tokens))
            if fitted is not None:
                paths.append(TokenPath(fitted.tokens, fitted.classes, fitted.example, self._weight))
        if not paths:
            return None
        size = shared_size([path.tokens for path in paths])
        if size > self._budget:
            raise ValueError(
                f"{conversation.id}: its {size} tokens are over `data.token_budget` = {self._budget}; "
                "raise the budget or lower `data.lengths.max_length`"
            )
        group = f"{source}/{conversation.group}" if conversation.group else ""
        return Tree(conversation.id, tuple(paths), size, group)

    def _refuse_losses(self, source: str, count: Counter[str]) -> None:
        dropped = sum(count[outcome] for outcome in _DROPPED)
        if dropped <= self._lengths.max_dropped * count.total():
            return
        limit = self._lengths.max_length
        table = histogram(self._sizes.get(source, []), limit)
        logger.warning(f"{self._part}: {source}: tokens of prompt and answer, against max_length = {limit}:\n{table}")
        raise ValueError(
            f"{self._part}: {source}: {dropped} of {count.total()} answers ({dropped / count.total():.0%}) would be "
            f"dropped, more than `data.lengths.max_dropped` = {self._lengths.max_dropped:.0%} allows (their lengths "
            "are listed above); raise `data.lengths.max_length` (and `data.token_budget`), use `overlong: cut`, or "
            "raise `max_dropped`"
        )

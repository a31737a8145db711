"""Preference pairs to trees of tokens: both answers of a pair, and all pairs of a group, share what they can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lit_align.data.chat import ChatFormat
from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import Lengths, prompt_size
from lit_align.data.tokenising import BadRows
from lit_align.data.windows import Tree, group_of_copy, grouped
from lit_align.forest import TokenClass, TokenPath
from lit_align.types import Conversation, Message, PreferencePair

PairPaths = tuple[TokenPath, TokenPath]


class PairTokenising:
    """Tokenises the pairs of one part of the data and counts what becomes of them.

    Args:
        chat: The chat format; each answer is rendered as the last turn after the prompt.
        lengths: Token limits; a pair of which one answer is dropped is dropped.
        window: Most pairs of a group that share a tree; a larger group is split.
        token_budget: Most rows of a tree; a larger group is split, a larger pair is an error.
        bad_rows: What a pair does that the chat format refuses, or whose answers are equal: ``stop`` the run, or be
            counted and left out (``drop``).
        part: Name of the part, for messages.
    """

    def __init__(
        self, chat: ChatFormat, lengths: Lengths, window: int, token_budget: int, bad_rows: BadRows, part: str
    ) -> None:
        self._chat, self._lengths, self._window, self._budget = chat, lengths, window, token_budget
        self._bad_rows, self._part = bad_rows, part
        self._report = LengthReport(part, lengths, "pairs")
        self._done: dict[int, tuple[PreferencePair, PairPaths | None]] = {}

    def trained_tokens(self, pair: PreferencePair) -> int:
        """Answer tokens that a pair brings into training, of both answers; 0 if it is dropped."""
        paths = self._paths(pair)
        return 0 if paths is None else sum(int((path.classes == TokenClass.ANSWER).sum()) for path in paths)

    def say(self, line: str) -> None:
        """Log a line about this part of the data."""
        self._report.say(line)

    def trees(self, pairs: Iterable[PreferencePair]) -> list[Tree]:
        """Trees of the groups, in the order of their first pairs; says what was kept, cut, dropped and split.

        Args:
            pairs: Any; one that is given again (the same object) is in the group of the second copies.

        Raises:
            ValueError: A pair is refused and ``bad_rows`` is ``stop``; one is over the token budget; a source loses
                more pairs than ``lengths.max_dropped`` allows; or nothing is left.
        """
        groups: dict[str, list[PairPaths]] = {}
        given = Counter[int]()
        for number, pair in enumerate(pairs):
            if (paths := self._paths(pair)) is not None:
                # A table's pairs may be of several sources.
                group = group_of_copy(pair.group, given[id(pair)]) or f"{pair.id} #{number}"
                groups.setdefault(group, []).append(paths)
                given[id(pair)] += 1
        self._report.tell()
        self._report.stop_if_empty(len(groups))
        self._report.stop_at_losses()
        return grouped(groups, self._window, self._budget, self._part, "pair")

    def refuse(self, source: str, error: ValueError) -> None:
        """Stop at a row that its source cannot read, or count it, as ``bad_rows`` says."""
        self._refuse(source, error, read=False)

    def pass_over(self, pairs: Iterable[PreferencePair]) -> None:
        """Count those that a mix had no use for, and that were never tokenised."""
        for one in pairs:
            if id(one) not in self._done:
                self._report.pass_over(one.source)

    def _refuse(self, source: str, error: ValueError, read: bool) -> None:
        if self._bad_rows == "stop":
            raise error
        self._report.refuse(source, str(error), read)

    def _paths(self, pair: PreferencePair) -> PairPaths | None:
        # By identity: two rows may say the same. The pair is kept beside its paths, so no other gets its id.
        if (done := self._done.get(id(pair))) is None:
            self._report.row()
            done = self._done[id(pair)] = (pair, self._tokenised(pair))
        return done[1]

    def _tokenised(self, pair: PreferencePair) -> PairPaths | None:
        try:
            if pair.chosen.strip() == pair.rejected.strip():
                raise ValueError(f"{pair.id}: chosen and rejected are equal ({pair.chosen[:60]!r}): drop the row")
            rendered = [self._rendered(pair, answer, side) for side, answer in _answers(pair)]
        except ValueError as error:
            self._refuse(pair.source, error, read=True)
            return None
        fitted = [self._lengths.fit(path) for path in rendered]
        outcomes = {outcome for _, outcome in fitted}
        sizes = max(map(prompt_size, rendered)), max(len(path.tokens) for path in rendered)
        chosen, rejected = (path for path, _ in fitted)
        dropped = sorted(outcomes - {"kept", "cut"})
        if dropped or chosen is None or rejected is None:
            self._report.count(pair.source, dropped[0], *sizes)
            return None
        if np.array_equal(chosen.tokens, rejected.tokens):
            self._report.count(pair.source, "equal after the cut", *sizes)
            return None
        self._report.count(pair.source, "cut" if "cut" in outcomes else "kept", *sizes)
        return replace(chosen, source=pair.source), replace(rejected, source=pair.source)

    def _rendered(self, pair: PreferencePair, answer: str, side: str) -> TokenPath:
        turns = (*pair.prompt, Message("assistant", answer))
        [path] = self._chat.paths(Conversation(turns, f"{pair.id} {side}", pair.source), "last")
        return path


def _answers(pair: PreferencePair) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("chosen", pair.chosen), ("rejected", pair.rejected)

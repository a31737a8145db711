"""Preference pairs to paths of tokens, and the part of the data that they make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lit_align.data.chat import ChatFormat
from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import Lengths, prompt_size
from lit_align.data.part import BadRows, Part, Workshop
from lit_align.data.prepared.examples import Tokenised
from lit_align.data.trees import PairTrees
from lit_align.data.windows import Tree
from lit_align.forest import TokenPath
from lit_align.trie import shared_size
from lit_align.types import Conversation, Message, PreferencePair


@dataclass(frozen=True)
class PairTokeniser:
    """Tokenises a pair, a path for the chosen and one for the rejected answer.

    Attributes:
        chat: The chat format; each answer is rendered as the last turn after the prompt.
        lengths: Token limits; a pair of which one answer is dropped is dropped.
    """

    chat: ChatFormat
    lengths: Lengths

    def __call__(self, pair: PreferencePair) -> Tokenised:
        """What becomes of a pair."""
        known = pair.id, pair.group, pair.source
        try:
            if pair.chosen.strip() == pair.rejected.strip():
                raise ValueError(f"{pair.id}: chosen and rejected are equal ({pair.chosen[:60]!r}): drop the row")
            rendered = [self._rendered(pair, answer, side) for side, answer in _answers(pair)]
        except ValueError as error:
            return Tokenised(*known, refused=error.with_traceback(None))
        fitted = [self.lengths.fit(path) for path in rendered]
        sizes = max(map(prompt_size, rendered)), max(len(path.tokens) for path in rendered)
        paths = tuple(path for path, _ in fitted if path is not None)
        outcome = _outcome(paths, {outcome for _, outcome in fitted})
        if outcome not in ("kept", "cut"):
            return Tokenised(*known, outcomes=((outcome, *sizes),))
        size = shared_size([path.tokens for path in paths])
        lost = sum(len(path.tokens) for path in rendered) - sum(len(path.tokens) for path in paths)
        return Tokenised(*known, paths, size, size, ((outcome, *sizes),), lost=lost)

    def _rendered(self, pair: PreferencePair, answer: str, side: str) -> TokenPath:
        turns = (*pair.prompt, Message("assistant", answer))
        [path] = self.chat.paths(Conversation(turns, f"{pair.id} {side}", pair.source), "last")
        return path


def _answers(pair: PreferencePair) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("chosen", pair.chosen), ("rejected", pair.rejected)


def _outcome(paths: tuple[TokenPath, ...], outcomes: set[str]) -> str:
    """What happened to a pair, by what happened to its answers."""
    if dropped := sorted(outcomes - {"kept", "cut"}):
        return dropped[0]
    if np.array_equal(paths[0].tokens, paths[1].tokens):
        return "equal after the cut"
    return "cut" if "cut" in outcomes else "kept"


class PairTokenising(Part):
    """Tokenises the pairs of one part of the data, each once, and counts what becomes of them.

    Args:
        chat: The chat format; each answer is rendered as the last turn after the prompt.
        lengths: Token limits; a pair of which one answer is dropped is dropped.
        window: Most pairs of a group that share a tree; a larger group is split.
        token_budget: Most rows of a tree; a larger group is split, a larger pair is an error.
        bad_rows: What a pair does that the chat format refuses, or whose answers are equal: ``stop`` the run, or be
            counted and left out (``drop``).
        part: Name of the part, for messages.
        workshop: What it shares with other parts; None for a part by itself.
    """

    undivided = "pair"

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
        self._window = window
        report = LengthReport(part, lengths, "pairs")
        tokenise = PairTokeniser(chat, lengths)
        super().__init__(part, tokenise, report, token_budget, 1.0, bad_rows, workshop or Workshop())

    def trees(self, pairs: Iterable[PreferencePair]) -> list[Tree]:
        """Trees of the groups, in the order of their first pairs, held in memory; see :meth:`Part.examples`."""
        return list(PairTrees(self.examples(self.read(pairs)), self._window, self._budget))

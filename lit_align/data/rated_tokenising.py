"""Rated answers to paths of tokens, the part of the data that they make, and their trees."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from lit_align.data.chat import ChatFormat
from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import Lengths, refuse_over_budget
from lit_align.data.mismatched import answer_start, mismatches, with_answer_of
from lit_align.data.mixture import group_of
from lit_align.data.part import BadRows, Part, Workshop
from lit_align.data.prepared.examples import Examples, Tokenised
from lit_align.data.tokenising import ConversationTokeniser
from lit_align.data.trees import GroupTrees
from lit_align.forest import TokenPath
from lit_align.rated import RatedAnswer
from lit_align.types import Conversation, Message

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RatedTokeniser:
    """Tokenises a rated answer, as the last turn after its prompt.

    Attributes:
        chat: The chat format.
        lengths: Token limits.
    """

    chat: ChatFormat
    lengths: Lengths

    def __call__(self, one: RatedAnswer) -> Tokenised:
        """What becomes of an answer; its group is its own or its prompt."""
        turns = (*one.prompt, Message("assistant", one.completion))
        conversation = Conversation(turns, one.id, one.source, group_of(one))
        tokenised = ConversationTokeniser(self.chat, self.lengths, "last")(conversation)
        return tokenised._replace(paths=tuple(replace(path, desirable=one.desirable) for path in tokenised.paths))


class RatedTokenising(Part):
    """Tokenises the rated answers of one part of the data, each once, and counts what becomes of them.

    Args:
        chat: The chat format.
        lengths: Token limits.
        token_budget: Rows a forest; a longer answer is an error.
        bad_rows: What an answer does that the chat format refuses: ``stop`` the run, or be counted and left out.
        part: Name of the part, for messages.
        workshop: What it shares with other parts.
    """

    undivided = "answer"

    def __init__(
        self, chat: ChatFormat, lengths: Lengths, token_budget: int, bad_rows: BadRows, part: str, workshop: Workshop
    ) -> None:
        tokenise, report = RatedTokeniser(chat, lengths), LengthReport(part, lengths)
        super().__init__(part, tokenise, report, token_budget, 1.0, bad_rows, workshop)


class RatedTrees(GroupTrees):
    """A tree for each group of an epoch's rated answers: for each its own path, and that of a mismatched one after it.

    Which answers are mismatched depends on the epoch alone, not on the limits. The log says how many are cut.

    Args:
        examples: The answers.
        window: Most answers of a tree, mismatched ones aside.
        budget: Most rows of a tree.
        longest: ``data.lengths.max_length``, at which mismatched answers are cut.

    Attributes:
        ratings: Of each answer whether it is a good one, in the order of the trees.

    Raises:
        ValueError: There is nothing to mismatch; or an answer with its mismatched one is over the budget.
    """

    what = "answer"

    def __init__(self, examples: Examples, window: int, budget: int, longest: int) -> None:
        try:
            others = mismatches([examples.groups[number] for number in examples.order.tolist()])
        except ValueError as error:
            raise ValueError(f"{examples.part}: {error}") from error
        self._others, self._longest = np.array(others, np.int64), longest
        super().__init__(examples, window, budget)
        for at in np.flatnonzero(self.sizes > budget)[:1].tolist():
            name = examples.names[examples.order[self._places(at)[0]]]
            refuse_over_budget(name, int(self.sizes[at]), budget, "answer and a mismatched one")
        self.ratings: list[bool] = (examples.ratings[examples.order[self._members]] == 1).tolist()
        if cut := self._cut():
            logger.info(
                f"{examples.part}: {cut} of {len(others)} mismatched answers are cut at `data.lengths.max_length` = "
                f"{longest}; they are not trained"
            )

    def _paths(self, place: int) -> tuple[TokenPath, ...]:
        own, other = self._own(place), self._own(int(self._others[place]))
        mismatched = with_answer_of(own, other)
        end = self._longest
        return own, replace(mismatched, tokens=mismatched.tokens[:end], classes=mismatched.classes[:end])

    def _own(self, place: int) -> TokenPath:
        [path] = self._examples.paths(int(self._examples.order[place]))
        return path

    def _cut(self) -> int:
        """Number of mismatched answers that are cut."""
        places = range(len(self._others))
        starts = np.array([answer_start(self._own(place)) for place in places], np.int64)
        answers = self._examples.sizes[self._examples.order] - starts
        return int((starts + answers[self._others] > self._longest).sum())

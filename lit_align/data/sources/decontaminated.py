"""Any source without the rows that repeat questions of the evaluation sets."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lit_align.data.overlap import EvaluationSets, Overlap
from lit_align.types import (
    Conversation,
    ConversationSource,
    Drawn,
    Message,
    PairSource,
    PreferencePair,
    SamplePrompt,
    stop_at,
)

logger = logging.getLogger(__name__)

T = TypeVar("T", Conversation, PreferencePair, SamplePrompt)

_SHOWN = 3


@dataclass(frozen=True)
class DecontaminatedPairs(PairSource):
    """The pairs of a source, without those that share words with a question of an evaluation set.

    Prompt and both answers are looked at. The log says how many pairs were dropped, by set, and shows the first.

    Args:
        source: The pairs.
        against: The evaluation sets.
    """

    source: PairSource
    against: EvaluationSets

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Read what is left of the pairs of one side of a split, in the source's order.

        Raises:
            ValueError: As the source and the evaluation sets.
        """
        return list(_clean(self.source.pairs(keep), self.against, _name(self.source)))

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        return list(_clean(self.source.usable(keep, refuse), self.against, _name(self.source)))

    def stream(
        self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]
    ) -> Iterator[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        return _clean(self.source.stream(keep, refuse), self.against, _name(self.source))

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """The source's own prompts, without those that share words with a question."""
        return list(_clean(self.source.prompts(refuse), self.against, _name(self.source)))


@dataclass(frozen=True)
class DecontaminatedConversations(ConversationSource):
    """The conversations of a source, without those that share words with a question of an evaluation set.

    All turns are looked at. The log says how many conversations were dropped, by set, and shows the first.

    Args:
        source: The conversations.
        against: The evaluation sets.
    """

    source: ConversationSource
    against: EvaluationSets

    def conversations(self) -> list[Conversation]:
        """Read what is left of the conversations, in the source's order.

        Raises:
            ValueError: As the source and the evaluation sets.
        """
        return list(_clean(self.source.conversations(), self.against, _name(self.source)))

    def usable(self, refuse: Callable[[str, ValueError], None]) -> list[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return list(_clean(self.source.usable(refuse), self.against, _name(self.source)))

    def stream(self, refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return _clean(self.source.stream(refuse), self.against, _name(self.source))

    @property
    def sampling(self) -> str:
        """That of the source."""
        return self.source.sampling

    def draw(self, rows: Sequence[Drawn], tokens: Callable[[Drawn], int]) -> list[Drawn]:
        """Draw as the source does."""
        return self.source.draw(rows, tokens)

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """The source's own prompts, without those that share words with a question."""
        return list(_clean(self.source.prompts(refuse), self.against, _name(self.source)))


def _name(source: PairSource | ConversationSource) -> str:
    return type(source).__name__


def _texts(record: Conversation | PreferencePair | SamplePrompt) -> Iterable[str]:
    if isinstance(record, PreferencePair):
        return (*_contents(record.prompt), record.chosen, record.rejected)
    if isinstance(record, SamplePrompt):
        return (*_contents(record.messages), record.gold)
    return _contents(record.messages)


def _contents(messages: Sequence[Message]) -> tuple[str, ...]:
    return tuple(one.content for one in messages)


def _clean(records: Iterable[T], against: EvaluationSets, source: str) -> Iterator[T]:
    index = against.index()
    read = 0
    counts: Counter[str] = Counter()
    dropped = 0
    examples = ""
    for record in records:
        read += 1
        if not (overlaps := index.find(_texts(record))):
            yield record
            continue
        counts.update(one.name for one in overlaps)
        if dropped < _SHOWN:
            examples += f"; {_shown(record.id, overlaps[0])}"
        dropped += 1
    by_set = ", ".join(f"{name} {number}" for name, number in counts.most_common()) or "none"
    told = f"{source}: {dropped} of {read} rows overlap with evaluation sets: {by_set}{examples}"
    nothing_left = 0 < read == dropped  # on one side of a split: a source that is empty is refused by who trains on it
    if nothing_left:
        told += "; no row is left: they are an evaluation set, or `against` counts what is common"
    logger.log(logging.WARNING if nothing_left else logging.INFO, told)


def _shown(name: str, overlap: Overlap) -> str:
    return f"{name} says {overlap.words!r} as {overlap.name} {overlap.item}"

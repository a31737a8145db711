"""A source under a name of one's own, so that a mix and the curves by source tell it from others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from lit_align.rated import RatedAnswer, RatedSource
from lit_align.types import Conversation, ConversationSource, Drawn, PairSource, PreferencePair, SamplePrompt, stop_at

Record = TypeVar("Record", Conversation, PreferencePair, RatedAnswer, SamplePrompt)


@dataclass(frozen=True)
class NamedPairs(PairSource):
    """Pairs of a source under another name: ``train.jsonl`` becomes ``reddit/train.jsonl``.

    Args:
        name: What stands before the names of the source: the key of its weight in ``data.mix``. Not blank, no ``/``.
        source: Where the pairs come from.

    Raises:
        ValueError: ``name`` breaks its rule.
    """

    name: str
    source: PairSource

    def __post_init__(self) -> None:
        _check(self.name)

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """Those of the source."""
        return list(_named(self.source.prompts(_refusing(refuse, self.name)), self.name))

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        return list(_named(self.source.pairs(keep), self.name))

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        return list(_named(self.source.usable(keep, _refusing(refuse, self.name)), self.name))

    def stream(
        self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]
    ) -> Iterator[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        return _named(self.source.stream(keep, _refusing(refuse, self.name)), self.name)


@dataclass(frozen=True)
class NamedRated(RatedSource):
    """Rated answers of a source under another name: ``votes.jsonl`` becomes ``app/votes.jsonl``.

    Args:
        name: What stands before the names of the source: the key of its weight in ``data.mix``. Not blank, no ``/``.
        source: Where the answers come from.

    Raises:
        ValueError: ``name`` breaks its rule.
    """

    name: str
    source: RatedSource

    def __post_init__(self) -> None:
        _check(self.name)

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """Those of the source."""
        return list(_named(self.source.prompts(_refusing(refuse, self.name)), self.name))

    def rated(self, keep: Callable[[str], bool]) -> list[RatedAnswer]:
        """See :class:`~lit_align.rated.RatedSource`."""
        return list(_named(self.source.rated(keep), self.name))

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[RatedAnswer]:
        """See :class:`~lit_align.rated.RatedSource`."""
        return list(_named(self.source.usable(keep, _refusing(refuse, self.name)), self.name))

    def stream(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> Iterator[RatedAnswer]:
        """See :class:`~lit_align.rated.RatedSource`."""
        return _named(self.source.stream(keep, _refusing(refuse, self.name)), self.name)


@dataclass(frozen=True)
class NamedConversations(ConversationSource):
    """Conversations of a source under another name: ``train.jsonl`` becomes ``reddit/train.jsonl``.

    Args:
        name: What stands before the names of the source: the key of its weight in ``data.mix``. Not blank, no ``/``.
        source: Where the conversations come from.

    Raises:
        ValueError: ``name`` breaks its rule.
    """

    name: str
    source: ConversationSource

    def __post_init__(self) -> None:
        _check(self.name)

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """Those of the source."""
        return list(_named(self.source.prompts(_refusing(refuse, self.name)), self.name))

    def conversations(self) -> list[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return list(_named(self.source.conversations(), self.name))

    def usable(self, refuse: Callable[[str, ValueError], None]) -> list[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return list(_named(self.source.usable(_refusing(refuse, self.name)), self.name))

    def stream(self, refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return _named(self.source.stream(_refusing(refuse, self.name)), self.name)

    @property
    def sampling(self) -> str:
        """That of the source."""
        return self.source.sampling

    def draw(self, rows: Sequence[Drawn], tokens: Callable[[Drawn], int]) -> list[Drawn]:
        """See :class:`~lit_align.types.ConversationSource`; the source is shown its own names, by which it may draw."""
        own = [replace(row, source=row.source.removeprefix(f"{self.name}/")) for row in rows]
        named = {id(one): row for one, row in zip(own, rows, strict=True)}
        return [named[id(one)] for one in self.source.draw(own, lambda one: tokens(named[id(one)]))]


def _check(name: str) -> None:
    if not name.strip() or "/" in name:
        raise ValueError(f"the name of a source must not be blank or hold a `/`, got {name!r}")


def _named(records: Iterable[Record], name: str) -> Iterator[Record]:
    return (replace(one, source=f"{name}/{one.source}") for one in records)


def _refusing(refuse: Callable[[str, ValueError], None], name: str) -> Callable[[str, ValueError], None]:
    return lambda source, error: refuse(f"{name}/{source}", error)

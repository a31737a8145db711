"""Rated answers: answers that are good or bad, each on its own, and where they come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lit_align.types import Message, PromptSource, SamplePrompt, stop_at


@dataclass(frozen=True)
class RatedAnswer:
    """A prompt with one answer that is good or bad: unpaired preference data, as KTO takes them.

    Attributes:
        prompt: The turns that the answer follows; the last one is the user's.
        completion: The answer.
        desirable: Whether it is a good one.
        id: Unique within its source.
        source: Name of the source, for reports.
        group: As of a :class:`~lit_align.types.PreferencePair`. Empty means that the answer shares with those to its
            prompt alone.
    """

    prompt: tuple[Message, ...]
    completion: str
    desirable: bool
    id: str
    source: str
    group: str = ""


class RatedSource(PromptSource):
    """Where rated answers come from; a frozen dataclass whose fields are the options of the YAML."""

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """The prompt of each answer, which is the gold answer where it is a good one."""
        return [
            SamplePrompt(one.id, one.prompt, one.completion if one.desirable else "", one.source, one.group)
            for one in self.usable(lambda _: True, refuse)
        ]

    @abstractmethod
    def rated(self, keep: Callable[[str], bool]) -> list[RatedAnswer]:
        """Read the answers of one side of a split, in a fixed order.

        Args:
            keep: As for :meth:`~lit_align.types.PairSource.pairs`.

        Raises:
            ValueError: A row breaks a rule; the message names file, row, key, rule and value.
        """

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[RatedAnswer]:
        """As of a :class:`~lit_align.types.PairSource`: the answers of the rows that break no rule."""
        del refuse
        return self.rated(keep)

    def stream(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> Iterator[RatedAnswer]:
        """As of a :class:`~lit_align.types.PairSource`: what :meth:`usable` reads, one after another."""
        return iter(self.usable(keep, refuse))

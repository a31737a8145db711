"""The two answers of each preference pair as two rated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lit_align.rated import RatedAnswer, RatedSource
from lit_align.types import PairSource, PreferencePair, SamplePrompt, stop_at


@dataclass(frozen=True)
class UnpairedPairs(RatedSource):
    """Pairs taken apart: the chosen answer of each is a good one, the rejected a bad one.

    So KTO trains on what DPO trains on. What the pair says of their order is lost: of two good answers, the
    rejected one counts as bad.

    Args:
        source: Where the pairs come from.

    Example:
        >>> from lit_align.data.sources.scale_answers import ScalePairs
        >>> [(one.id, one.desirable) for one in UnpairedPairs(ScalePairs(n=1)).rated(lambda group: True)]
        [('scale_answers/train/0 chosen', True), ('scale_answers/train/0 rejected', False)]
    """

    source: PairSource

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """Those of the pairs, each once."""
        return self.source.prompts(refuse)

    def rated(self, keep: Callable[[str], bool]) -> list[RatedAnswer]:
        """See :class:`~lit_align.rated.RatedSource`; the two of a pair stand side by side."""
        return list(_taken_apart(self.source.pairs(keep)))

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[RatedAnswer]:
        """See :class:`~lit_align.rated.RatedSource`."""
        return list(_taken_apart(self.source.usable(keep, refuse)))

    def stream(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> Iterator[RatedAnswer]:
        """See :class:`~lit_align.rated.RatedSource`."""
        return _taken_apart(self.source.stream(keep, refuse))


def _taken_apart(pairs: Iterable[PreferencePair]) -> Iterator[RatedAnswer]:
    return (
        RatedAnswer(one.prompt, answer, desirable, f"{one.id} {side}", one.source, one.group)
        for one in pairs
        for answer, desirable, side in ((one.chosen, True, "chosen"), (one.rejected, False, "rejected"))
    )

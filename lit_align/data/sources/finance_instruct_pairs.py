"""Finance-Instruct with a worse answer in a column of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lit_align.data.sources.finance_instruct import SOURCE, FinanceInstruct
from lit_align.data.sources.read_rows import read_rows, stream_rows
from lit_align.data.sources.rows import Row, usable_rows
from lit_align.types import PairSource, PreferencePair, stop_at

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinanceInstructPairs(PairSource):
    """The reference answers of Finance-Instruct against those of another column, on conditions.

    The published set has no rejected answers. ``lit-align sample`` makes some of ``FinanceInstruct``, whose file
    :class:`~lit_align.data.sources.samples.rejected.RejectedSamples` reads; this source is for a file that has them.
    Prompts and groups are those of ``FinanceInstruct``. Some reference answers are one word (a sentiment, an entity):
    the limit on the length ratio leaves them out where the other answer is a text.

    Args:
        rejected: Column of the worse answer.
        source: The rows and how they are read.
        max_length_ratio: The longer answer has at most so many times the characters of the shorter, >= 1; other rows
            are left out and counted.

    Raises:
        ValueError: ``max_length_ratio`` is below 1.
    """

    rejected: str
    source: FinanceInstruct = FinanceInstruct()
    max_length_ratio: float = 2.0

    def __post_init__(self) -> None:
        if not self.max_length_ratio >= 1:
            raise ValueError(f"FinanceInstructPairs.max_length_ratio: must be at least 1, not {self.max_length_ratio}")

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Read the pairs of one side of a split, in the file's order; ids are ``name.jsonl:17``.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: As :meth:`FinanceInstruct.conversations`; a rejected answer is missing or blank; or no row is
                left.
        """
        return self.usable(keep, stop_at)

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        return list(self._usable(read_rows(self.source.path, self.source.limit), keep, refuse))

    def stream(
        self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]
    ) -> Iterator[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        return self._usable(stream_rows(self.source.path, self.source.limit), keep, refuse)

    def _usable(
        self, rows: Iterable[Row], keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]
    ) -> Iterator[PreferencePair]:
        left_out: Counter[str] = Counter()
        pairs = kept = 0
        for pair in usable_rows(rows, self._pair, lambda _: SOURCE, refuse):
            lengths = len(pair.chosen.strip()), len(pair.rejected.strip())
            if pair.chosen.strip() == pair.rejected.strip():
                left_out["with equal answers"] += 1
                continue
            if max(lengths) > self.max_length_ratio * min(lengths):
                left_out["with answers of unlike length"] += 1
                continue
            pairs += 1
            if keep(pair.group):
                kept += 1
                yield pair
        told = ", ".join(f"{number} {what}" for what, number in left_out.most_common()) or "none"
        if not pairs:
            raise ValueError(f"{self.source.path}: no pair; rows left out: {told}; look at the column {self.rejected}")
        logger.info(f"{self.source.path}: {pairs} pairs, {kept} on this side of the split; left out: {told}")

    def _pair(self, row: Row) -> PreferencePair:
        *prompt, chosen = (talk := self.source.conversation(row)).messages
        rejected = row.text(self.rejected)
        if not rejected.strip():
            raise ValueError(f"{row.where}: {self.rejected}: is blank ({rejected!r}); drop the row")
        return PreferencePair(tuple(prompt), chosen.content, rejected, talk.id, SOURCE, talk.group)

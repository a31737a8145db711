"""What became of the answers of each source: kept, cut, dropped, refused; and when that stops a run."""

from __future__ import annotations

import logging
from collections import Counter

from tqdm import tqdm

from lit_align.data.lengths import Lengths, histogram

logger = logging.getLogger(__name__)

REFUSED = "refused"
_KEPT = {"kept", "cut"}


class LengthReport:
    """Counts by source while one part of the data is tokenised, behind a progress bar.

    Args:
        part: Name of the part, for messages.
        lengths: The limits that answers were held to.
        what: What is counted, for messages.
    """

    def __init__(self, part: str, lengths: Lengths, what: str = "answers") -> None:
        self._part, self._lengths, self._what = part, lengths, what
        self._outcomes: dict[str, Counter[str]] = {}
        self._sizes: dict[str, list[int]] = {}
        self._first_refusal: dict[str, str] = {}
        self._bar: tqdm[None] | None = None  # opened at the first row: two open bars write over one another

    def row(self) -> None:
        """Move the progress bar by a row."""
        if self._bar is None:
            self._bar = tqdm(desc=f"tokenising {self._part}", delay=2, leave=False, unit=" rows")
        self._bar.update()

    def count(self, source: str, outcome: str, size: int) -> None:
        """Count one outcome.

        Args:
            source: Name of the source.
            outcome: ``kept``, ``cut``, or why it was dropped.
            size: Tokens of prompt and answer, before any cut.
        """
        self._outcomes.setdefault(source, Counter())[outcome] += 1
        self._sizes.setdefault(source, []).append(size)

    def refuse(self, source: str, why: str) -> None:
        """Count a row that breaks a rule; the first one's message is told."""
        self._outcomes.setdefault(source, Counter())[REFUSED] += 1
        self._first_refusal.setdefault(source, why)

    def tell(self) -> None:
        """Log a line a source."""
        if self._bar is not None:
            self._bar.close()
        for source, count in self._outcomes.items():
            told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(count.items()))
            refusal = self._first_refusal.get(source)
            logger.info(
                f"{self._part}: {source}: {count.total()} {self._what}: {told}"
                + (f"; first refusal: {refusal}" if refusal else "")
            )

    def stop_if_empty(self, left: int, read: int, rows: str) -> None:
        """Stop where nothing is left.

        Args:
            left: Rows that are left.
            read: Rows that were read.
            rows: What they are called.

        Raises:
            ValueError: Nothing is left.
        """
        if not left:
            raise ValueError(
                f"no example is left for {self._part}: {read} {rows} were read, none fits `data.lengths` "
                f"({self._lengths}); raise max_length or max_prompt_length, or use `overlong: cut`"
            )

    def stop_at_losses(self) -> None:
        """Stop where a source loses more than ``lengths.max_dropped``; the lengths are logged as a table.

        Raises:
            ValueError: Names source, numbers, limit and ways out.
        """
        for source, count in self._outcomes.items():
            dropped = sum(number for outcome, number in count.items() if outcome not in _KEPT)
            if dropped <= self._lengths.max_dropped * count.total():
                continue
            limit = self._lengths.max_length
            table = histogram(self._sizes.get(source, []), limit)
            logger.warning(
                f"{self._part}: {source}: tokens of prompt and answer, against max_length = {limit}:\n{table}"
            )
            raise ValueError(
                f"{self._part}: {source}: {dropped} of {count.total()} {self._what} ({dropped / count.total():.0%}) "
                f"would be dropped, more than `data.lengths.max_dropped` = {self._lengths.max_dropped:.0%} allows "
                "(their lengths are listed above); raise `data.lengths.max_length` (and `data.token_budget`), use "
                "`overlong: cut`, or raise `max_dropped`"
            )

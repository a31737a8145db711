"""T-Wix: Russian instructions with answers, a part of them with reasoning traces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lit_align.data.mixture import draw, shuffled
from lit_align.data.sources.messages_file import read_messages
from lit_align.data.sources.read_rows import read_rows, stream_rows
from lit_align.data.sources.rows import Row, check_limit, describe, usable_rows
from lit_align.data.weighing import Weighing
from lit_align.types import Conversation, ConversationSource, Drawn, stop_at

logger = logging.getLogger(__name__)

GENERAL, REASONING = "t-wix/general", "t-wix/reasoning"
_SOURCES = {"general": GENERAL, "reasoning": REASONING}


@dataclass(frozen=True)
class TWix(ConversationSource):
    """Conversations of T-Wix (Stoianov et al. 2025, T-pro 2.0, arXiv:2512.10430; ODC-By), or of files with its columns.

    About 468,600 ``general`` and 31,000 ``reasoning`` rows, nine tenths Russian, the rest English. Columns: ``subset``
    and ``messages`` (role and content; one row in twenty opens with a system turn, as many have several turns).
    A reasoning row whose answer holds a ``<think>`` trace is rendered as the answer of the thinking mode; one without
    a trace is an answer like any other.

    What is drawn depends on the texts and ``seed`` alone: a smaller ``sample_ratio`` draws a part of what a larger one
    draws. Rows that ``data.lengths`` drops are passed over and others drawn in their place, so the reasoning ratio is
    that of what is trained. Validation is split off before anything is drawn, and drawn from in the same way.

    Args:
        path: Id on the hub; or a JSON, JSON Lines or Parquet file, or a folder of such files, with the same columns.
        subset: The rows that are read.
        reasoning_ratio: Share of reasoning among what is drawn, in (0, 1), for ``subset: both``; null draws both as
            they come (about 0.06). It is kept at every ``sample_ratio``: where the rows of one kind run out, fewer of
            the other are drawn, and the log says how many that leaves.
        ratio_of: Whether the ratio is one of ``examples`` or of trained ``tokens`` (traces are several times as long as
            other answers).
        sample_ratio: Share of the rows that is drawn, in (0, 1].
        seed: Seed of the draw.
        limit: Read the first so many rows only, at least 1; null reads all.

    Raises:
        ValueError: ``limit`` is below 1, a ratio is out of its range, or ``reasoning_ratio`` is given for one subset
            alone.

    Example:
        >>> TWix(reasoning_ratio=0.2)
        Traceback (most recent call last):
        ...
        ValueError: TWix.reasoning_ratio (0.2) mixes two subsets, but TWix.subset is general; set it to both
    """

    path: str = "t-tech/T-Wix"
    subset: Literal["general", "reasoning", "both"] = "general"
    reasoning_ratio: float | None = None
    ratio_of: Literal["examples", "tokens"] = "examples"
    sample_ratio: float = 1.0
    seed: int = 42
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "TWix")
        if not 0 < self.sample_ratio <= 1:
            raise ValueError(f"TWix.sample_ratio must be in (0, 1], got {self.sample_ratio}")
        if self.reasoning_ratio is None:
            return
        if not 0 < self.reasoning_ratio < 1:
            raise ValueError(
                f"TWix.reasoning_ratio must be in (0, 1), got {self.reasoning_ratio}; "
                "for one subset alone set TWix.subset"
            )
        if self.subset != "both":
            raise ValueError(
                f"TWix.reasoning_ratio ({self.reasoning_ratio}) mixes two subsets, but TWix.subset is {self.subset}; "
                "set it to both"
            )

    def conversations(self) -> list[Conversation]:
        """Read the rows of the subset, in the file's order; ids are ``name.jsonl:17``.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: A row lacks a column or breaks a rule, or no row is of the subset. The message names file, row,
                key and value.
        """
        return self.usable(stop_at)

    def usable(self, refuse: Callable[[str, ValueError], None]) -> list[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`; rows of the other subset are not looked at."""
        return list(self._usable(read_rows(self.path, self.limit), refuse))

    def stream(self, refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return self._usable(stream_rows(self.path, self.limit), refuse)

    def _usable(self, rows: Iterable[Row], refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        read = found = 0

        def conversation(row: Row) -> Conversation | None:
            nonlocal read
            read += 1
            subset = row.value("subset")
            if subset not in _SOURCES:
                raise ValueError(f"{row.where}: subset: must be one of {', '.join(_SOURCES)}, not {describe(subset)}")
            if self.subset not in ("both", subset):
                return None
            return Conversation(read_messages(row, "messages"), id=row.id, source=_SOURCES[subset])

        # A row without a known subset counts against one that is read, so that many of them stop the run.
        asked = REASONING if self.subset == "reasoning" else GENERAL
        for one in usable_rows(
            rows, conversation, lambda row: _SOURCES.get(str(row.values.get("subset")), asked), refuse
        ):
            if one is not None:
                found += 1
                yield one
        if not found:
            raise ValueError(f"{self.path}: none of its {read} rows is a readable one of `subset` {self.subset}")

    @property
    def sampling(self) -> str:
        """See :class:`~lit_align.types.ConversationSource`."""
        values = {"reasoning_ratio": (self.reasoning_ratio, None), "sample_ratio": (self.sample_ratio, 1.0)}
        return ", ".join(f"TWix.{name} = {value}" for name, (value, whole) in values.items() if value != whole)

    def draw(self, rows: Sequence[Drawn], tokens: Callable[[Drawn], int]) -> list[Drawn]:
        """Draw the sample at its ratio; see the class.

        Args:
            rows: The rows of one side of the split.
            tokens: Trained tokens of a row; 0 for one that is dropped.

        Raises:
            ValueError: A ratio is asked for and one of the subsets has no row.
        """
        size = max(1, round(self.sample_ratio * len(rows)))
        if self.reasoning_ratio is None:
            if self.sample_ratio == 1:
                return list(rows)
            pools, shares = {"rows": list(rows)}, {"rows": 1.0}
        else:
            pools = {name: [row for row in rows if row.source == name] for name in (GENERAL, REASONING)}
            shares = {GENERAL: 1 - self.reasoning_ratio, REASONING: self.reasoning_ratio}
            for name, pool in pools.items():
                if not pool:
                    raise ValueError(
                        f"{self.path}: `reasoning_ratio` = {self.reasoning_ratio} cannot be met: none of {len(rows)} "
                        f"rows is {name}; set `reasoning_ratio: null` or another `subset`"
                    )
        weigh = Weighing(tokens, self.ratio_of)
        coming = {name: weigh.coming(shuffled(pool, self.seed)) for name, pool in pools.items()}
        drawn = draw(coming, shares, size, weigh)
        if len(drawn) < size:
            counts = {name: sum(row.source == name for row in drawn) for name in (GENERAL, REASONING)}
            logger.info(
                f"{self.path}: {len(drawn)} rows are drawn, not {size} (`sample_ratio` {self.sample_ratio} of "
                f"{len(rows)}): no more rows that fit"
                + (
                    f" keep `reasoning_ratio` {self.reasoning_ratio} ({counts[GENERAL]} general, {counts[REASONING]} "
                    f"reasoning)"
                    if self.reasoning_ratio
                    else ""
                )
            )
        places = {id(row) for row in drawn}
        return [row for row in rows if id(row) in places]

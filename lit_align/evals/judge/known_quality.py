"""Answers of known quality, by which a reward model is calibrated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from lit_align.data.mixture import group_of, messages_hash
from lit_align.data.sources.messages_file import read_messages
from lit_align.data.sources.read_rows import read_rows
from lit_align.data.sources.rows import Row, check_limit, describe
from lit_align.evals.judge.contract import Judged
from lit_align.types import Message, PairSource


@dataclass(frozen=True)
class KnownAnswers:
    """Answers and how good they are.

    Attributes:
        judged: The answers in their conversations.
        shares: Quality of each from 0 (the lowest score) to 1 (the highest).
        clusters: Answers to one prompt, or of one group, carry the same value; resampled together.
        pairs: Places of a better and a worse answer to the same prompt.
    """

    judged: Sequence[Judged]
    shares: Sequence[float]
    clusters: Sequence[str]
    pairs: Sequence[tuple[int, int]] = ()


class KnownQuality(ABC):
    """Where answers of known quality come from; a frozen dataclass whose fields are the options of the YAML."""

    @abstractmethod
    def read(self) -> KnownAnswers:
        """Read all answers, in a fixed order.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A row breaks a rule; the message names file, row, key, rule and value.
        """


@dataclass(frozen=True)
class PreferredAnswers(KnownQuality):
    """Preference pairs: the chosen answers are good, the rejected ones bad.

    Args:
        source: Any source of pairs.
        limit: The first so many pairs only, at least 1; null takes all.

    Raises:
        ValueError: ``limit`` is below 1.
    """

    source: PairSource
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "PreferredAnswers")

    def read(self) -> KnownAnswers:
        """See :meth:`KnownQuality.read`."""
        pairs = self.source.pairs(lambda _: True)[: self.limit]
        judged = [
            Judged(f"{one.id}, {side}", one.prompt, answer)
            for one in pairs
            for side, answer in (("chosen", one.chosen), ("rejected", one.rejected))
        ]
        clusters = [group_of(one) for one in pairs for _ in range(2)]
        places = [(place, place + 1) for place in range(0, len(judged), 2)]
        return KnownAnswers(judged, [1.0, 0.0] * len(pairs), clusters, places)


@dataclass(frozen=True)
class RatedFile(KnownQuality):
    """Answers with ratings from 1 to 10: a JSON, JSON Lines or Parquet file with prompt, answer and rating.

    Args:
        path: The file; its rows hold a ``prompt`` (a text, or turns that end with the user's), an ``answer`` (a text)
            and a ``rating`` (a number from 1 to 10).
        limit: The first so many rows only, at least 1; null takes all.

    Raises:
        ValueError: ``limit`` is below 1.
    """

    path: str
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "RatedFile")

    def read(self) -> KnownAnswers:
        """See :meth:`KnownQuality.read`."""
        rows = list(read_rows(self.path, self.limit))
        judged = [Judged(row.id, _prompt(row), row.text("answer")) for row in rows]
        shares = [(_rating(row) - 1) / 9 for row in rows]
        return KnownAnswers(judged, shares, [messages_hash(one.prompt) for one in judged])


def _prompt(row: Row) -> tuple[Message, ...]:
    if not isinstance(row.value("prompt"), str):
        return read_messages(row, "prompt")
    text = row.text("prompt")
    if not text.strip():
        raise ValueError(f"{row.where}: prompt: is blank; drop the row")
    return (Message("user", text),)


def _rating(row: Row) -> float:
    value = row.value("rating")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 10:
        raise ValueError(f"{row.where}: rating: must be a number from 1 to 10, not {describe(value)}")
    return float(value)

"""orca_dpo_pairs, as it was published and as it was rated again."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lit_align.data.mixture import messages_hash
from lit_align.data.sources.read_rows import read_rows, stream_rows
from lit_align.data.sources.rows import Row, check_limit, describe, usable_rows
from lit_align.types import Message, PairSource, PreferencePair, stop_at

logger = logging.getLogger(__name__)

_SOURCE = "orca-dpo"
_STATUSES = ("unchanged", "swapped", "tie")
# What 46 % of the rejected and 11 % of the chosen answers open with: DPO can win on it.
_OPENINGS = ("sure", "of course", "certainly")


@dataclass(frozen=True)
class OrcaDPO(PairSource):
    """Pairs of Intel/orca_dpo_pairs (Apache-2.0), or of Argilla's relabelled copy of it, or of a file with the columns.

    12,859 rows. As published (``system``, ``question``, ``chosen``, ``rejected``) the answer of GPT-4 or GPT-3.5 is
    chosen and that of Llama-2-13B-chat rejected, without anybody having judged them. In
    ``argilla/distilabel-intel-orca-dpo-pairs`` (``input`` in place of ``question``) a model has rated both: ``status``
    says whether the answers were ``swapped`` after it, which a row must agree with, or are a ``tie``; ties and the 42
    unrated rows are left out and counted.

    Style tells the answers apart: the log says how many of each side open with *Sure*, *Of course* or *Certainly*,
    and how long they are. The group of a pair is the hash of its question: one question with several system turns is on
    one side of a split.

    Args:
        path: Id on the hub, or a file or folder with the columns of either form.
        min_gap: Pairs whose two ratings (1 to 10) differ by less are left out, >= 0; only 0 for a file without ratings.
        gsm8k: Whether rows with questions of GSM8K's training split are kept, where a row says (``in_gsm8k_train``);
            drop them where GSM8K measures.
        limit: Read the first so many rows only, at least 1; null reads all.

    Raises:
        ValueError: ``limit`` is below 1, or ``min_gap`` is out of its range.
    """

    path: str = "Intel/orca_dpo_pairs"
    min_gap: float = 0.0
    gsm8k: bool = True
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "OrcaDPO")
        if not 0 <= self.min_gap <= 10:
            raise ValueError(f"OrcaDPO.min_gap: must be in [0, 10], not {self.min_gap}")

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Read the pairs of one side of a split, in the file's order; ids are ``name.jsonl:17``.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: A row lacks a column or holds something else than it must, an answer or the question is blank,
                the answers do not stand as ``status`` says, or no pair is left. The message names file, row, column
                and value.
        """
        return self.usable(keep, stop_at)

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        return list(self._usable(read_rows(self.path, self.limit), keep, refuse))

    def stream(
        self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]
    ) -> Iterator[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        return self._usable(stream_rows(self.path, self.limit), keep, refuse)

    def _usable(
        self, rows: Iterable[Row], keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]
    ) -> Iterator[PreferencePair]:
        counts: Counter[str] = Counter()
        kept, chosen, rejected = 0, _Style(), _Style()

        def pair(row: Row) -> PreferencePair | None:
            why = self._left_out(row) if "status" in row.values else self._unrated(row)
            counts[why or str(row.values.get("status", "unjudged"))] += 1
            return None if why else _pair(row)

        for one in usable_rows(rows, pair, lambda _: _SOURCE, refuse):
            if one is not None:
                chosen.add(one.chosen)
                rejected.add(one.rejected)
                if keep(one.group):
                    kept += 1
                    yield one
        told = ", ".join(f"{number} {what}" for what, number in counts.most_common()) or "none"
        if not chosen.answers:
            raise ValueError(f"{self.path}: no pair is left of its rows: {told}")
        logger.info(
            f"{self.path}: {chosen.answers} pairs, {kept} on this side of the split; rows: {told}; chosen {chosen}; "
            f"rejected {rejected}"
        )

    def _unrated(self, row: Row) -> str:
        if self.min_gap:
            raise ValueError(
                f"{row.where}: no column 'status': the file is not rated, and OrcaDPO.min_gap = {self.min_gap} asks "
                "for ratings; set it to 0, or read argilla/distilabel-intel-orca-dpo-pairs"
            )
        return ""

    def _left_out(self, row: Row) -> str:
        """Why a rated row is no pair, in a few words for the log; empty where it is one."""
        status = row.value("status")
        if status not in _STATUSES:
            raise ValueError(f"{row.where}: status: must be one of {', '.join(_STATUSES)}, not {describe(status)}")
        first, second = ("rejected", "chosen") if status == "swapped" else ("chosen", "rejected")
        for column, original in (("chosen", first), ("rejected", second)):
            if row.text(column) != row.text(f"original_{original}"):
                raise ValueError(
                    f"{row.where}: {column}: is not original_{original}, as status {status!r} says; drop the row"
                )
        if not self.gsm8k and row.value("in_gsm8k_train"):
            return "of GSM8K"
        ratings = _ratings(row)
        if ratings is None:
            return "unrated"
        if status == "tie" or ratings[0] == ratings[1]:
            return "tie"
        return "rated too nearly equally" if abs(ratings[0] - ratings[1]) < self.min_gap else ""


def _ratings(row: Row) -> tuple[float, float] | None:
    ratings = row.value("rating")
    if ratings is None or (isinstance(ratings, list) and None in ratings):
        return None
    numbers = [one for one in ratings if isinstance(one, int | float)] if isinstance(ratings, list) else []
    if len(numbers) != 2 or len(ratings) != 2:
        raise ValueError(f"{row.where}: rating: must be two numbers, or null, not {describe(ratings)}")
    return float(numbers[0]), float(numbers[1])


def _pair(row: Row) -> PreferencePair:
    question = "question" if "question" in row.values else "input"
    texts = {column: row.text(column) for column in (question, "chosen", "rejected")}
    for column, text in texts.items():
        if not text.strip():
            raise ValueError(f"{row.where}: {column}: is blank ({text!r}); drop the row")
    system = "" if row.value("system") is None else row.text("system").strip()
    asked = Message("user", texts[question])
    prompt = (*((Message("system", system),) if system else ()), asked)
    group = messages_hash([asked])
    return PreferencePair(prompt, texts["chosen"], texts["rejected"], row.id, _SOURCE, group)


@dataclass
class _Style:
    """How the answers of one side open, and how long they are."""

    answers: int = 0
    opened: int = 0
    characters: int = 0

    def add(self, answer: str) -> None:
        self.answers += 1
        self.opened += answer.strip().casefold().startswith(_OPENINGS)
        self.characters += len(answer)

    def __str__(self) -> str:
        opened, mean = self.opened / self.answers, self.characters / self.answers
        return f"{opened:.0%} open with Sure and the like, {mean:,.0f} characters"

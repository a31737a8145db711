"""Preference pairs from columns of a file."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lit_align.data.mixture import group_of
from lit_align.data.sources.prompt_and_answer import read_answer, read_group, read_prompt
from lit_align.data.sources.read_rows import read_rows, stream_rows
from lit_align.data.sources.rows import Row, check_limit, describe, usable_rows
from lit_align.types import PairSource, PreferencePair, stop_at

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreferenceFile(PairSource):
    """Pairs from a JSON, JSON Lines or Parquet file whose rows hold a prompt, a chosen and a rejected answer.

    Each of the three is text, or turns: a list of ``{"role", "content"}`` or of ShareGPT's ``{"from", "value"}`` (one
    such turn may stand alone). Where the answers repeat the prompt before their last turn, its column need not be named
    (``prompt: []``). UltraFeedback as ``HuggingFaceH4/ultrafeedback_binarized`` holds it is ``prompt: []`` with
    ``scores: [score_chosen, score_rejected]``, some of its pairs being ties; its splits have names of their own, so
    ``path`` is a folder with the files of ``train_prefs``.

    Args:
        path: A ``.json`` file (a list of objects), a ``.jsonl`` file (an object a line), a ``.parquet`` file, a folder
            of such files, or the id of a data set on the hub.
        prompt: Column of the prompt, a text or turns that end with the user's; or several columns of text, of which
            those that are not blank are joined by a blank line (Alpaca's ``[instruction, input]``); none where the
            answers repeat it.
        chosen: Column of the better answer.
        rejected: Column of the worse answer.
        system: Column of a system turn, for prompts that are text; empty for none. A blank cell is no turn.
        group: Column whose value, text or a number, names what pairs share (a table, a post); empty for none. Where it
            is null or empty text, the pair stands alone.
        scores: Columns of the scores of the chosen and of the rejected answer; none where there are none. Pairs whose
            rejected answer has the larger score, or an equal one, are left out and counted.
        min_margin: Pairs whose scores differ by less are left out too, >= 0; needs ``scores``.
        limit: Read the first so many rows only, at least 1; null reads all.

    Raises:
        ValueError: ``limit`` is below 1, a column is named twice, ``scores`` are not two, or ``min_margin`` is out of
            its range or has no scores.
    """

    path: str
    prompt: list[str] = field(default_factory=lambda: ["prompt"])
    chosen: str = "chosen"
    rejected: str = "rejected"
    system: str = ""
    group: str = ""
    scores: list[str] = field(default_factory=list)
    min_margin: float = 0.0
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "PreferenceFile")
        columns = [*self.prompt, self.chosen, self.rejected, *self.scores]
        if len({*columns}) < len(columns):
            raise ValueError(
                f"PreferenceFile: a column is named twice among prompt, chosen, rejected, scores: {columns}"
            )
        if len(self.scores) not in (0, 2):
            raise ValueError(f"PreferenceFile.scores: must be two columns or none, not {self.scores}")
        if not 0 <= self.min_margin < math.inf or (self.min_margin and not self.scores):
            raise ValueError(
                f"PreferenceFile.min_margin: must be >= 0 and finite, and 0 without `scores`, not {self.min_margin}"
            )

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Read the pairs of one side of a split, in the file's order; ids are ``name.jsonl:17``.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not what its name says or holds no row; a row lacks a column or holds something else
                than text, turns or, for a score, a number; an answer is blank, or does not repeat the other's prompt;
                or the scores leave no pair. The message names file, row, column and value.
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
        name = Path(self.path).name
        left_out: Counter[str] = Counter()

        def pair(row: Row) -> PreferencePair | None:
            one, why = self._pair(row), self._left_out(row) if self.scores else ""
            left_out[why] += 1
            return None if why else one

        for found in usable_rows(rows, pair, lambda _: name, refuse):
            if found is not None and keep(group_of(found)):
                yield found
        if self.scores:
            pairs = left_out.pop("", 0)
            told = ", ".join(f"{number} {what}" for what, number in left_out.most_common()) or "none"
            if not pairs and left_out:
                raise ValueError(f"{self.path}: no pair; left out by their scores: {told}; look at {self.scores}")
            logger.info(f"{self.path}: {pairs} pairs; left out by their scores: {told}")

    def _left_out(self, row: Row) -> str:
        """Why the scores make a row no pair, in a few words for the log; empty where they do."""
        chosen, rejected = (_number(row, column) for column in self.scores)
        if chosen <= rejected:
            return "equal" if chosen == rejected else "the other way round"
        return "nearer than min_margin" if chosen - rejected < self.min_margin else ""

    def _pair(self, row: Row) -> PreferencePair:
        before, chosen = read_answer(row, self.chosen)
        other, rejected = read_answer(row, self.rejected)
        if before != other:
            raise ValueError(
                f"{row.where}: {self.chosen} and {self.rejected} do not repeat the same turns before their last one; "
                "a pair has one prompt: drop the row"
            )
        prompt = read_prompt(row, self.prompt, self.system) if self.prompt else before
        if not prompt:
            raise ValueError(f"{row.where}: no prompt: name its column, or write its turns before both answers")
        if before and before != prompt:
            raise ValueError(
                f"{row.where}: the turns of {self.chosen} before the answer are not those of {', '.join(self.prompt)}; "
                "set `prompt: []` to take them from the answers"
            )
        return PreferencePair(prompt, chosen, rejected, row.id, Path(self.path).name, read_group(row, self.group))


def _number(row: Row, column: str) -> float:
    value = row.value(column)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{row.where}: {column}: must be a finite number, not {describe(value)}")
    return float(value)

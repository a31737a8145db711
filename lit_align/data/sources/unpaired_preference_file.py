"""Unpaired preference data from columns of a file: a prompt, an answer, and whether it is a good one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lit_align.data.mixture import group_of
from lit_align.data.sources.prompt_and_answer import read_answer, read_group, read_prompt
from lit_align.data.sources.read_rows import read_rows, stream_rows
from lit_align.data.sources.rows import Row, check_limit, describe, usable_rows
from lit_align.rated import RatedAnswer, RatedSource
from lit_align.types import stop_at


@dataclass(frozen=True)
class UnpairedPreferenceFile(RatedSource):
    """Rated answers from a JSON, JSON Lines or Parquet file: TRL's unpaired preference format.

    Prompt and answer are text, or turns: a list of ``{"role", "content"}`` or of ShareGPT's ``{"from", "value"}``.
    Where the answer repeats the prompt before its last turn, the prompt's column need not be named (``prompt: []``).

    Args:
        path: A ``.json`` file (a list of objects), a ``.jsonl`` file (an object a line), a ``.parquet`` file, a folder
            of such files, or the id of a data set on the hub.
        prompt: Column of the prompt, a text or turns that end with the user's; or several columns of text, of which
            those that are not blank are joined by a blank line; none where the answer repeats it.
        completion: Column of the answer.
        label: Column that says whether the answer is a good one, true or false.
        system: Column of a system turn, for prompts that are text; empty for none. A blank cell is no turn.
        group: Column whose value, text or a number, names what rows share (a table, a post); empty for none. Where it
            is null or empty text, the row shares with those of its prompt alone.
        limit: Read the first so many rows only, at least 1; null reads all.

    Raises:
        ValueError: ``limit`` is below 1, or a column is named twice.

    Example:
        >>> UnpairedPreferenceFile("votes.jsonl", prompt=["question"], completion="question")
        Traceback (most recent call last):
        ...
        ValueError: UnpairedPreferenceFile: a column is named twice among prompt, completion, label: ['question', \
'question', 'label']
    """

    path: str
    prompt: list[str] = field(default_factory=lambda: ["prompt"])
    completion: str = "completion"
    label: str = "label"
    system: str = ""
    group: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "UnpairedPreferenceFile")
        columns = [*self.prompt, self.completion, self.label]
        if len({*columns}) < len(columns):
            raise ValueError(
                f"UnpairedPreferenceFile: a column is named twice among prompt, completion, label: {columns}"
            )

    def rated(self, keep: Callable[[str], bool]) -> list[RatedAnswer]:
        """Read the answers of one side of a split, in the file's order; ids are ``name.jsonl:17``.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not what its name says or holds no row; a row lacks a column or holds something else
                than text, turns or a label; or the answer is blank, or repeats another prompt than that of its row. The
                message names file, row, column and value.
        """
        return self.usable(keep, stop_at)

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[RatedAnswer]:
        """See :class:`~lit_align.rated.RatedSource`."""
        return list(self._usable(read_rows(self.path, self.limit), keep, refuse))

    def stream(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> Iterator[RatedAnswer]:
        """See :class:`~lit_align.rated.RatedSource`."""
        return self._usable(stream_rows(self.path, self.limit), keep, refuse)

    def _usable(
        self, rows: Iterable[Row], keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]
    ) -> Iterator[RatedAnswer]:
        found = usable_rows(rows, self._answer, lambda _: Path(self.path).name, refuse)
        return (one for one in found if keep(group_of(one)))

    def _answer(self, row: Row) -> RatedAnswer:
        before, completion = read_answer(row, self.completion)
        prompt = read_prompt(row, self.prompt, self.system) if self.prompt else before
        if not prompt:
            raise ValueError(f"{row.where}: no prompt: name its column, or write its turns before the answer")
        if before and before != prompt:
            raise ValueError(
                f"{row.where}: the turns of {self.completion} before the answer are not those of "
                f"{', '.join(self.prompt)}; set `prompt: []` to take them from the answer"
            )
        label = row.value(self.label)
        if not isinstance(label, bool):
            raise ValueError(f"{row.where}: {self.label}: must be true (good) or false (bad), not {describe(label)}")
        return RatedAnswer(prompt, completion, label, row.id, Path(self.path).name, read_group(row, self.group))

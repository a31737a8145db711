"""One part of the data while it is prepared: its records are read, asked for their tokens, and counted."""

from __future__ import annotations

import pickle
from abc import ABC
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import refuse_over_budget
from lit_align.data.mixture import Record, group_of, questions_of
from lit_align.data.prepared.ahead import Ahead
from lit_align.data.prepared.columns import Place
from lit_align.data.prepared.examples import Examples, GrowingExamples, Tokenised
from lit_align.data.prepared.in_order import cores, in_order
from lit_align.data.prepared.prepared import Prepared
from lit_align.data.prepared.records import Records
from lit_align.data.weighing import TokenCount
from lit_align.forest import TokenClass
from lit_align.types import Outline

BadRows = Literal["stop", "drop"]

MANY = 20_000
"""Records that are tokenised by several processes, if none are asked for; fewer are done before those have started."""

_DROPPED, _UNKNOWN, _ASKED_FOR = -1, -2, -3


class Workshop:
    """What the parts of one preparation share: the records, the place for files, the processes; close it at the end.

    Args:
        folder: Where files lie; None holds what is small in memory, and the rest in temporary files.
        processes: Processes that tokenise, >= 1; None for one, and all processors for many records.
        ranks: Runs of this preparation at the same time on this machine.
    """

    def __init__(self, folder: Path | None = None, processes: int | None = 1, ranks: int = 1) -> None:
        self.place = Place(folder)
        self.records = Records(self.place)
        self._processes, self._ranks = processes, ranks
        self._pools = ExitStack()

    def processes_for(self, records: int) -> int:
        """How many processes are to tokenise so many records."""
        if self._processes is not None:
            return self._processes
        return max(1, cores() // self._ranks) if records > MANY else 1

    def ahead(self, tokenise: Callable[[Any], Tokenised], processes: int) -> Ahead[Tokenised]:
        """Tokenised records before they are asked for; closed with the workshop at the latest."""
        return self._pools.enter_context(closing(Ahead(tokenise, processes)))

    def close(self) -> None:
        """End all processes, of a preparation that ended in an error too."""
        self._pools.close()


class Part(ABC):
    """Tokenises the records of one part of the data, each once, and counts what becomes of them.

    Args:
        name: Of the part, for messages.
        tokenise: Tokenises a record; pure, so that another process can do it.
        report: Counts.
        token_budget: Rows a forest.
        weight: Weight of the targets in the NLL.
        bad_rows: What a row does that its source or the chat format refuses: ``stop`` the run, or be counted and left
            out (``drop``).
        workshop: Of the preparation.

    Attributes:
        report: What became of the records so far.
    """

    undivided: ClassVar[str]  # what must be in one forest

    def __init__(
        self,
        name: str,
        tokenise: Callable[[Any], Tokenised],
        report: LengthReport,
        token_budget: int,
        weight: float,
        bad_rows: BadRows,
        workshop: Workshop,
    ) -> None:
        self._tokenise, self.report, self._budget, self._bad_rows = tokenise, report, token_budget, bad_rows
        self._workshop = workshop
        self._examples = GrowingExamples(workshop.place, name, weight)
        self._numbers = array("q")  # of the example of each record, or one of the three above
        self._answers = array("q")  # answer tokens of each example
        self._ahead: Ahead[Tokenised] | None = None

    @property
    def trained_tokens(self) -> TokenCount:
        """Answer tokens that a record brings into training; 0 if it is dropped. A drawing asks for them."""
        return TokenCount(self._trained_tokens, self._coming)  # held by nothing here: files go with the last reference

    def read(self, records: Iterable[Record]) -> list[Outline]:
        """Keep records in the workshop; their outlines stand for them from here on."""
        return self._workshop.records.read(records)

    def refuse_absent(self, sources: Sequence[object], read: Sequence[Sequence[Outline]]) -> None:
        """Refuse a source that brings nothing where others bring something; for none at all see :meth:`examples`.

        Args:
            sources: ``data.sources``.
            read: What each of them has, on both sides of the split.

        Raises:
            ValueError: Names the source by its number and class.
        """
        for number, (source, own) in enumerate(zip(sources, read, strict=True), 1):
            if not own and any(read):
                raise ValueError(
                    f"{self.report.part}: `data.sources`, number {number} of {len(sources)} "
                    f"({type(source).__name__}), brings no example: all its rows are filtered out or refused; "
                    f"look at its options, or leave it out. {'; '.join(self.report.lines())}".rstrip()
                )

    def refuse(self, source: str, error: ValueError) -> None:
        """Stop at a row that its source cannot read, or count it, as ``bad_rows`` says."""
        self._refuse(source, error, read=False)

    def _trained_tokens(self, one: Outline) -> int:
        if self._number(one) == _UNKNOWN:
            made = None if self._ahead is None else self._ahead.take(one.place)
            self._numbers[one.place] = self._counted(self._tokenised(one) if made is None else made)
        number = self._number(one)
        return 0 if number == _DROPPED else self._answers[number]

    def _coming(self, pool: Iterable[Outline]) -> Iterable[Outline]:
        """Records that are about to be asked for, in their order; several processes tokenise the next ones."""
        processes = self._workshop.processes_for(len(self._workshop.records))
        if processes == 1:
            return pool
        self._ahead = self._ahead or self._workshop.ahead(self._tokenise, processes)

        def pickled(one: Outline) -> bytes | None:
            return self._workshop.records.pickled(one) if self._number(one) == _UNKNOWN else None

        return self._ahead.rows(pool, lambda one: one.place, pickled)

    def _tokenised(self, one: Outline) -> Tokenised:
        return self._tokenise(pickle.loads(self._workshop.records.pickled(one)))

    def say(self, line: str) -> None:
        """Log a line about this part of the data."""
        self.report.say(line)

    def pass_over(self, outlines: Iterable[Outline]) -> None:
        """Count those that a mix had no use for, and that were never tokenised."""
        for one in outlines:
            if self._number(one) == _UNKNOWN:
                self.report.pass_over(one.source)

    def examples(self, drawn: Iterable[Outline]) -> Examples:
        """Tokenise what an epoch holds, and say what was kept, cut and dropped, by source.

        Args:
            drawn: The records of an epoch in their order; one that is repeated occurs several times.

        Raises:
            ValueError: A row is refused and ``bad_rows`` is ``stop``; one is over the token budget; a source loses
                more than ``lengths.max_dropped`` allows; or nothing is left.
            OSError: The disk is full.
        """
        drawn = list(drawn)
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        new = []
        for one in drawn:
            if self._number(one) == _UNKNOWN:
                self._numbers[one.place] = _ASKED_FOR  # an epoch may repeat it
                new.append(one)
        self._tokenise_all(new, self._workshop.processes_for(len(new)))
        numbers = np.fromiter(map(self._number, drawn), np.int64, len(drawn))
        kept = np.flatnonzero(numbers != _DROPPED)
        self.report.tell()
        self.report.stop_if_empty(len(kept))
        self.report.stop_at_losses()
        return self._examples.finished(numbers[kept], kept)

    def _number(self, one: Outline) -> int:
        if one.place >= len(self._numbers):
            missing = len(self._workshop.records) - len(self._numbers)
            self._numbers.extend([_UNKNOWN] * missing)
        return self._numbers[one.place]

    def _tokenise_all(self, outlines: list[Outline], processes: int) -> None:
        pickled = map(self._workshop.records.pickled, outlines)
        with closing(in_order(self._tokenise, pickled, processes)) as results:
            for one, result in zip(outlines, results, strict=True):
                self._numbers[one.place] = self._counted(result)

    def _counted(self, one: Tokenised) -> int:
        self.report.row()
        if one.refused is not None:
            self._refuse(one.source, one.refused, read=True)
            return _DROPPED
        for outcome, prompt, size in one.outcomes:
            self.report.count(one.source, outcome, prompt, size)
        self.report.lost_tokens[one.source] += one.lost
        if not one.paths:
            return _DROPPED
        refuse_over_budget(one.name, one.least, self._budget, self.undivided)
        self._answers.append(sum(int((path.classes == TokenClass.ANSWER).sum()) for path in one.paths))
        return self._examples.append(one)

    def _refuse(self, source: str, error: ValueError, read: bool) -> None:
        if self._bad_rows == "stop":
            raise error
        self.report.refuse(source, str(error), read)


def prepared(parts: Mapping[str, tuple[Part, Sequence[Outline]]], trained: Sequence[Outline]) -> Prepared:
    """Tokenise what all parts hold.

    Args:
        parts: ``training``, and ``validation`` and ``replay`` where there are any: each with the records of its epoch.
        trained: All records on the training side of the split, drawn or not.

    Raises:
        ValueError: See :meth:`Part.examples`.
        OSError: The disk is full.
    """
    _, replayed = parts.get("replay", (None, ()))
    return Prepared(
        {name: part.examples(epoch) for name, (part, epoch) in parts.items()},
        {name: part.report for name, (part, _) in parts.items()},
        frozenset(map(group_of, trained)),
        questions_of([*trained, *replayed]),
    )

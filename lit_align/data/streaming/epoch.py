"""The examples of an epoch of a stream, one after another, tokenised and mixed, and what became of them so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

import numpy as np

from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import refuse_over_budget
from lit_align.data.mix import Mix, refuse_other_shares
from lit_align.data.mixture import drawing
from lit_align.data.part import BadRows
from lit_align.data.prepared.examples import Tokenised
from lit_align.data.streaming.held_out import HeldOut
from lit_align.data.streaming.order import runs, through_buffer
from lit_align.data.windows import Tree, group_of_copy
from lit_align.forest import TokenClass

Refuse = Callable[[str, ValueError], None]

JUDGED = 1000
"""So many rows of a source are looked at before `lengths.max_dropped` is held against it, and between two looks."""
_SIZES = 100_000  # of so many answers of each source the length is kept, for a message


@dataclass(frozen=True, eq=False)
class Stream:
    """Sources, and how they are read: all that decides the windows of each epoch, on every rank and in every worker.

    Attributes:
        sources: Each source by its name in the mix, the log and the curves.
        read: Reads a source row by row; given what becomes of a row that it cannot read.
        tokenise: Tokenises a record; pure.
        report: Makes what counts the records of an epoch.
        bad_rows: Whether a row that breaks a rule stops the run, or is counted and left out.
        token_budget: Rows a forest.
        undivided: What of an example must be in one forest: an ``answer``, or a ``pair`` of them.
        mix: Shares of the sources; None where there is one.
        window: Examples a window, over all ranks, > 0.
        shuffle_buffer: Runs of a group held in memory and drawn from, of each source, >= 1.
        seed: Seed of the orders.
        held_out: What is passed over.
    """

    sources: Mapping[str, Any]
    read: Callable[[Any, Refuse], Iterator[Any]]
    tokenise: Callable[[Any], Tokenised]
    report: Callable[[], LengthReport]
    bad_rows: BadRows
    token_budget: int
    undivided: Literal["answer", "pair"]
    mix: Mix | None
    window: int
    shuffle_buffer: int
    seed: int
    held_out: HeldOut

    @property
    def together(self) -> int:
        """Paths that are never parted."""
        return 2 if self.undivided == "pair" else 1

    def passing_over(self, held_out: HeldOut) -> Stream:
        """The stream without what is held out.

        Args:
            held_out: In place of what was before.
        """
        return replace(self, held_out=held_out)

    def epoch(self, number: int) -> StreamedEpoch:
        """An epoch from its beginning; each has an order of its own.

        Args:
            number: From 0.
        """
        return StreamedEpoch(self, number)


class StreamedEpoch:
    """One pass over a stream, which is read as far as windows are asked for.

    Args:
        stream: The stream.
        number: Number of the epoch, from 0.
    """

    def __init__(self, stream: Stream, number: int) -> None:
        self._stream, self._number = stream, number
        self._report = stream.report()
        self._rows = 0
        self._passed_over = Counter[str]()
        self._examples = dict.fromkeys(stream.sources, 0)
        self._weights = dict.fromkeys(stream.sources, 0)
        self._largest = 1
        self._ended: dict[str, None] = {}  # sources that were read to their end, in that order

    def windows(self) -> Iterator[list[Tree]]:
        """The examples of each window; the last one may be shorter.

        Raises:
            ValueError: A row is refused and ``bad_rows`` is ``stop``; a source loses more than ``lengths.max_dropped``
                allows, or has nothing to train; or the mix cannot be met.
        """
        members: list[Tree] = []
        for example in self._all():
            members.append(example)
            if len(members) == self._stream.window:
                yield members
                members = []
        if members:
            yield members

    def lines(self) -> list[str]:
        """What became of each source so far, a line each, and the shares that were drawn."""
        lines = self._report.lines()
        lines += [f"{key}: {rows} rows passed over, being held out" for key, rows in self._passed_over.items()]
        if (mix := self._stream.mix) is not None and (total := sum(self._weights.values())):
            lines += [
                f"mix: {key}: {self._examples[key]} examples, {self._weights[key] / total:.2%} of the {mix.of} (asked "
                f"for: {share:.2%})"
                for key, share in mix.shares.items()
            ]
        return lines

    def _all(self) -> Iterator[Tree]:
        mix = self._stream.mix
        drawn = 0
        for run in self._drawn(mix):
            for tree in run:
                self._examples[tree.paths[0].source] += 1
                self._weights[tree.paths[0].source] += self._weight(tree)
                drawn += 1
                yield tree
                if mix is not None and drawn == mix.size:
                    return
        self._report.stop_at_losses()
        if mix is None:
            return
        short = next(reversed(self._ended))
        if mix.size is not None:
            raise ValueError(
                f"`data.mix` cannot be met: {drawn} examples keep the weights, {mix.size - drawn} fewer than `size` = "
                f"{mix.size}, for {short!r} has ended; lower `size`, change the weights, or set `by: repeat`"
            )
        # Each source may be a run ahead of its share, and the others behind by as much.
        refuse_other_shares(self._weights, mix.shares, self._largest * (len(mix.shares) - 1), mix.of)

    def _drawn(self, mix: Mix | None) -> Iterator[list[Tree]]:
        if mix is None:
            [key] = self._stream.sources
            return self._pass(key, 0)
        pools = {key: self._supply(key, mix) for key in self._stream.sources}
        return drawing(pools, mix.shares, self._weigh)

    def _weigh(self, run: list[Tree]) -> int:
        weight = sum(map(self._weight, run))
        self._largest = max(self._largest, weight)
        return weight

    def _weight(self, tree: Tree) -> int:
        if self._stream.mix is None or self._stream.mix.of == "examples":
            return 1
        return sum(int((path.classes == TokenClass.ANSWER).sum()) for path in tree.paths)

    def _supply(self, key: str, mix: Mix) -> Iterator[list[Tree]]:
        """What a source gives to the mix: all of it, once, or until all sources were read whole."""
        for number in count():
            yield from self._pass(key, number)
            self._ended.setdefault(key)
            if mix.by == "subsample" or (mix.size is None and len(self._ended) == len(self._stream.sources)):
                return

    def _pass(self, key: str, number: int) -> Iterator[list[Tree]]:
        """One pass over a source; ``number`` counts those of the epoch."""
        stream = self._stream
        generator = np.random.Generator(np.random.PCG64([stream.seed, self._number, number, *key.encode()]))
        empty = True
        for run in through_buffer(runs(self._records(key), stream.window), stream.shuffle_buffer, generator):
            trees = [tree for record in run if (tree := self._tree(record)) is not None]
            if trees:
                empty = False
                yield [replace(tree, group=group_of_copy(tree.group, number)) for tree in trees]
        if empty:
            if rows := self._passed_over[key]:
                raise ValueError(
                    f"`data.sources`: {key!r} has nothing to train: {rows} rows are held out for validation or for a "
                    f"benchmark; {'; '.join(self.lines())}"
                )
            self._report.stop_if_empty(0, key)

    def _records(self, key: str) -> Iterator[Any]:
        stream = self._stream
        for record in stream.read(stream.sources[key], lambda _, error: self._refuse(key, error)):
            self._refuse_other_weight(record.source, key)
            if stream.held_out.holds(record):
                self._passed_over[key] += 1
            else:
                yield replace(record, source=key)

    def _refuse_other_weight(self, source: str, key: str) -> None:
        if source == key or source.startswith(f"{key}/"):
            return
        raise ValueError(
            f"`data.sources`: the source of {key!r} also yields {source!r}; in a stream each source has one name and "
            "one weight: read its parts as sources of their own, or wrap it in NamedConversations or NamedPairs"
        )

    def _tree(self, record: Any) -> Tree | None:
        stream = self._stream
        one = stream.tokenise(record)
        if one.refused is not None:
            self._refuse(one.source, one.refused, read=True)
            return None
        for outcome, prompt, size in one.outcomes:
            self._report.count(one.source, outcome, prompt, size)
        self._judge()
        if not one.paths:
            return None
        refuse_over_budget(one.name, one.least, stream.token_budget, stream.undivided)
        paths = tuple(replace(path, source=one.source) for path in one.paths)
        return Tree(one.name, paths, one.size, one.group)

    def _refuse(self, key: str, error: ValueError, read: bool = False) -> None:
        if self._stream.bad_rows == "stop":
            raise error
        self._report.refuse(key, str(error), read)
        self._judge()

    def _judge(self) -> None:
        self._rows += 1
        if self._rows % JUDGED == 0:
            self._report.forget_sizes(_SIZES)
            self._report.stop_at_losses(least=JUDGED)

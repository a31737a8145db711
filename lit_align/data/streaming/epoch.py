"""The examples of an epoch of a stream, one after another, tokenised and mixed, and what became of them so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol

import numpy as np

from lit_align.data.length_report import LengthReport
from lit_align.data.mix import Mix, refuse_other_shares
from lit_align.data.mixture import drawing
from lit_align.data.streaming.held_out import HeldOut
from lit_align.data.streaming.order import runs, through_buffer
from lit_align.data.windows import Tree, group_of_copy
from lit_align.forest import TokenClass

Refuse = Callable[[str, ValueError], None]

JUDGED = 1000
"""So many rows of a source are looked at before `lengths.max_dropped` is held against it, and between two looks."""


class Tokeniser(Protocol):
    """Tokenises the records of one kind and counts what becomes of them."""

    @property
    def report(self) -> LengthReport:
        """What became of the records so far."""

    def tree(self, record: Any) -> Tree | None:
        """The tree of a record, or None where it is dropped or refused."""

    def refuse(self, source: str, error: ValueError) -> None:
        """Stop at a row that its source cannot read, or count it."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Sources, and how they are read: all that decides the windows of each epoch, on every rank and in every worker.

    Attributes:
        sources: Each source by its name in the mix, the log and the curves.
        read: Reads a source row by row; given what becomes of a row that it cannot read.
        tokenising: Makes what tokenises the records of an epoch.
        mix: Shares of the sources; None where there is one.
        window: Examples a window, over all ranks, > 0.
        shuffle_buffer: Runs of a group held in memory and drawn from, of each source, >= 1.
        seed: Seed of the orders.
        held_out: What is passed over.
        together: Paths of an example that are never parted: 2 for the answers of a pair.
    """

    sources: Mapping[str, Any]
    read: Callable[[Any, Refuse], Iterator[Any]]
    tokenising: Callable[[], Tokeniser]
    mix: Mix | None
    window: int
    shuffle_buffer: int
    seed: int
    held_out: HeldOut
    together: int

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
        self._tokenising = stream.tokenising()
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
        lines = self._tokenising.report.lines()
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
        self._tokenising.report.stop_at_losses()
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
            self._tokenising.report.stop_if_empty(0, key)

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

    def _refuse(self, key: str, error: ValueError) -> None:
        self._tokenising.refuse(key, error)
        self._judge()

    def _tree(self, record: Any) -> Tree | None:
        tree = self._tokenising.tree(record)
        self._judge()
        return tree

    def _judge(self) -> None:
        self._rows += 1
        if self._rows % JUDGED == 0:
            self._tokenising.report.stop_at_losses(least=JUDGED)

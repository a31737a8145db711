"""The mix of the training set: which examples of several sources are trained, at which true shares."""

from __future__ import annotations

import hashlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import cycle
from typing import Literal, TypeVar

from lit_align.data.mixture import draw, group_of
from lit_align.data.weighing import Weighing
from lit_align.types import Conversation, Outline, PreferencePair

Record = TypeVar("Record", Conversation, PreferencePair, Outline)

TOLERANCE = 0.01
"""Largest difference of a realised share from the one asked for, as a part of the latter; or one example."""


@dataclass(frozen=True)
class Mix:
    """True shares of the sources in what is trained.

    An epoch is drawn once, from the training side of the split, after each source's own sampling: validation is the
    same whatever the mix. Examples that ``data.lengths`` drops are passed over and others drawn in their place, so the
    shares are those of what is trained. The log has the mix that was drawn; one that is more than 1 % (and one example)
    off is an error. What is drawn depends on the texts, the weights and ``seed`` alone. The examples of a group are
    drawn one after another and stay together, of whichever source they are; in an epoch that repeats, the second copies
    of a group's examples form a group of their own, and so on.

    Args:
        weights: Weight of each source by its name in the log (``tat-qa/span``; for a file that of the file), > 0; a
            share is a weight over their sum. ``tat-qa`` stands for all names that begin with ``tat-qa/`` together.
            ``NamedPairs``, ``NamedConversations`` and ``NamedRated`` give a source a name of your own.
        of: Whether shares are of ``examples`` (conversations, pairs or rated answers) or of trained ``tokens``.
        by: How the weights are met. ``subsample`` draws no example twice, and ends where a source has run out;
            ``repeat`` goes through the smaller sources again, and ends where the one that is largest for its weight was
            drawn whole.
        size: Examples an epoch, >= 1; null makes it as long as ``by`` says.
        seed: Seed of the draw, apart from ``data.seed`` so that runs with several seeds train the same examples.

    Raises:
        ValueError: A weight or ``size`` is out of its range, or there is no weight.

    Example:
        >>> Mix({"reddit": 0.5, "finance": 0})
        Traceback (most recent call last):
        ...
        ValueError: `data.mix.weights`: that of 'finance' must be > 0, got 0; to leave a source out, leave it out of \
`data.sources`
    """

    weights: dict[str, float]
    of: Literal["examples", "tokens"] = "examples"
    by: Literal["subsample", "repeat"] = "subsample"
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("`data.mix.weights` is empty: give each of `data.sources` a weight, or set `mix: null`")
        for name, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise ValueError(
                    f"`data.mix.weights`: that of {name!r} must be > 0, got {weight}; to leave a source out, leave it "
                    "out of `data.sources`"
                )
        if self.size is not None and self.size < 1:
            raise ValueError(f"`data.mix.size` must be >= 1, or null, got {self.size}")
        # The order of the keys decides ties and stands in the identity of a run; in a file it means nothing.
        object.__setattr__(self, "weights", dict(sorted(self.weights.items())))

    def drawn(
        self, sources: Sequence[Sequence[Record]], tokens: Callable[[Record], int], say: Callable[[str], None]
    ) -> list[Record]:
        """Draw an epoch.

        Args:
            sources: The training examples of each of ``data.sources``, or their outlines.
            tokens: Trained tokens of an example, 0 for one that is dropped; asking for it tokenises the example.
            say: Logs a line.

        Returns:
            The examples of an epoch; one that is repeated occurs several times, as the same object.

        Raises:
            ValueError: Two sources have one name; a source has no weight, or a weight no source; the weights cannot be
                met, and how far off they are.
        """
        _refuse_shared_names(sources)
        pools = self._pools([one for source in sources for one in source])
        shares = self.shares

        weigh = Weighing(tokens, self.of)
        for name, pool in pools.items():
            if not any(weigh(one) for one in pool):
                raise ValueError(
                    f"`data.mix.weights` cannot be met: none of {len(pool)} examples of {name!r} is usable, and it is "
                    f"to be {shares[name]:.1%}; look at `data.lengths` and at the log, or leave the source out"
                )
        ended: list[str] = []
        supply = {name: _ending(name, pool, ended) for name, pool in self._supply(pools, shares, weigh).items()}
        epoch = draw(supply, shares, self.size or sys.maxsize, weigh)
        if ended:
            self._cut_back(epoch, ended[0], shares, weigh)
        drawn = {name: [one for one in epoch if self.key_of(one.source) == name] for name in pools}
        sizes = {name: sum(map(weigh, some)) for name, some in drawn.items()}
        for line in self._account(pools, drawn, sizes, shares):
            say(line)
        if self.size and len(epoch) < self.size:
            [short] = ended
            raise ValueError(
                f"`data.mix` cannot be met: {len(epoch)} examples keep the weights, {self.size - len(epoch)} fewer "
                f"than `size` = {self.size}, for {short!r} is to be {shares[short]:.1%} and has {len(drawn[short])} "
                "usable examples; lower `size`, change the weights, or set `by: repeat`"
            )
        refuse_other_shares(sizes, shares, max(map(weigh, epoch)), self.of)
        return epoch

    @property
    def shares(self) -> dict[str, float]:
        """Share of each key of the weights; they add up to 1."""
        total = sum(self.weights.values())
        return {name: weight / total for name, weight in self.weights.items()}

    def key_of(self, source: str) -> str:
        """Key of the weight that a source's name falls under.

        Args:
            source: Name of the source of an example.

        Raises:
            ValueError: There is none, or several.

        Example:
            >>> Mix({"tat-qa": 1, "reddit": 1}).key_of("tat-qa/span")
            'tat-qa'
        """
        keys = [key for key in self.weights if source == key or source.startswith(f"{key}/")]
        if len(keys) != 1:
            raise ValueError(
                f"`data.mix.weights` has {'no weight' if not keys else 'several weights'} for source {source!r}: its "
                f"keys are {', '.join(self.weights)}; name each source once, or leave it out of `data.sources`"
            )
        return keys[0]

    def _pools(self, records: Sequence[Record]) -> dict[str, list[Record]]:
        """The examples under each weight, in the order in which they are drawn."""
        names = list(dict.fromkeys(one.source for one in records))
        keys = {name: self.key_of(name) for name in names}
        pools: dict[str, list[Record]] = {key: [] for key in self.weights}
        for one in sorted(records, key=lambda one: _turn(one, self.seed)):
            pools[keys[one.source]].append(one)
        for key, pool in pools.items():
            if not pool:
                near = get_close_matches(key, names, n=1)
                raise ValueError(
                    f"`data.mix.weights` cannot be met: no training example is of source {key!r}; "
                    + (f"did you mean {near[0]!r}? " if near else "")
                    + f"there are: {', '.join(names) or 'none'}"
                )
        return pools

    def _supply(
        self, pools: Mapping[str, list[Record]], shares: Mapping[str, float], weigh: Weighing
    ) -> Mapping[str, Iterable[Record]]:
        """What is drawn from: all ends with the first pool that does."""
        if self.by == "subsample":
            return {name: weigh.coming(pool) for name, pool in pools.items()}
        endless: dict[str, Iterable[Record]] = {name: cycle(weigh.coming(pool)) for name, pool in pools.items()}
        if self.size is None:
            longest = max(pools, key=lambda name: sum(map(weigh, weigh.coming(pools[name]))) / shares[name])
            endless[longest] = pools[longest]
        return endless

    def _cut_back(self, epoch: list[Record], ended: str, shares: Mapping[str, float], weigh: Weighing) -> None:
        """Take back what was drawn after the end of a source in the hope of more of it."""
        enough = sum(weigh(one) for one in epoch if self.key_of(one.source) == ended) / shares[ended]
        total = sum(map(weigh, epoch))
        while self.key_of(epoch[-1].source) != ended and total - weigh(epoch[-1]) >= enough * (1 - 1e-9):
            total -= weigh(epoch.pop())

    def _account(
        self,
        pools: Mapping[str, list[Record]],
        drawn: Mapping[str, list[Record]],
        sizes: Mapping[str, int],
        shares: Mapping[str, float],
    ) -> Iterator[str]:
        """A line for each source: what is drawn of it, and the share that this makes."""
        examples, total = sum(map(len, drawn.values())), sum(sizes.values())
        for name, pool in pools.items():
            times = Counter(map(id, drawn[name])).values()
            most = max(times, default=0)
            yield (
                f"mix: {name}: {len(drawn[name])} of {examples} examples, "
                f"{sizes[name] / total:.2%} of the {self.of} (asked for: {shares[name]:.2%}); "
                f"{len(times)} of its {len(pool)}" + (f", up to {most} times" if most > 1 else "")
            )


def _ending(name: str, pool: Iterable[Record], ended: list[str]) -> Iterator[Record]:
    """The examples of a pool; its name is noted where they end."""
    yield from pool
    ended.append(name)


def refuse_other_shares(drawn: Mapping[str, float], shares: Mapping[str, float], largest: float, of: str) -> None:
    """Refuse a mix that is not the one asked for.

    Args:
        drawn: What was drawn of each source, examples or tokens.
        shares: Share of each that was asked for; they add up to 1.
        largest: What the largest example counts.
        of: What is counted, for the message.

    Raises:
        ValueError: A share is more than 1 % of it, and more than one example, off; the message says how far.

    Example:
        >>> refuse_other_shares({"reddit": 50, "finance": 50}, {"reddit": 0.5, "finance": 0.5}, 1, "examples")
        >>> refuse_other_shares({"reddit": 7528, "finance": 1800}, {"reddit": 0.5, "finance": 0.5}, 1, "examples")
        Traceback (most recent call last):
        ...
        ValueError: `data.mix.weights` are not met: 'reddit' is 80.7% of 9328 examples, not 50.0% (2864 too many)
    """
    total = sum(drawn.values())
    for name, share in shares.items():
        off = drawn.get(name, 0) - share * total
        if abs(off) > max(TOLERANCE * share * total, largest):
            raise ValueError(
                f"`data.mix.weights` are not met: {name!r} is {drawn.get(name, 0) / total:.1%} of {total} {of}, not "
                f"{share:.1%} ({abs(off):.0f} too {'many' if off > 0 else 'few'})"
                + (
                    "; the examples are too few and too unequal in length: add some, or set `of: examples`"
                    if of == "tokens"
                    else ""
                )
            )


def _refuse_shared_names(sources: Sequence[Sequence[Record]]) -> None:
    first: dict[str, int] = {}
    for number, source in enumerate(sources, start=1):
        for name in dict.fromkeys(one.source for one in source):
            if (other := first.setdefault(name, number)) != number:
                raise ValueError(
                    f"`data.sources`: number {other} and number {number} have one name, {name!r}, and `data.mix` "
                    "cannot tell them apart; wrap one in NamedPairs, NamedConversations or NamedRated"
                )


def _turn(one: Conversation | PreferencePair | Outline, seed: int) -> bytes:
    """Where an example stands in the draw: a random place that it shares with its group, by what is said in it."""
    return hashlib.sha256(f"mix {seed}:{group_of(one)}".encode()).digest()

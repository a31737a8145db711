"""Texts that are nearly the same, found by MinHash and verified."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from lit_align.data.audit.examples import Example, Text
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table

Item = TypeVar("Item")

_WORD = re.compile(r"\w+")
_SHINGLE = 5  # words
_PERMUTATIONS = 128
_WEIGHTS = (0.1, 0.9)  # of false candidates and of missed ones, when bands are set


@dataclass(frozen=True, eq=False)
class Sketch:
    """What a text is compared by.

    Attributes:
        shingles: Its word 5-grams.
        signature: Their MinHash.
    """

    shingles: frozenset[str]
    signature: Any

    @classmethod
    def of(cls, text: str) -> Sketch:
        """Take all runs of five words of a text, in lower case without punctuation; of a shorter one all its words.

        Args:
            text: Any.

        Example:
            >>> sorted(Sketch.of("One, two three four five SIX.").shingles)
            ['one two three four five', 'two three four five six']
        """
        words = _WORD.findall(text.casefold())
        found = frozenset(" ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1)))
        signature = _blank().copy()
        signature.update_batch([shingle.encode() for shingle in found])
        return cls(found, signature)


@cache
def _blank() -> Any:
    """The signature of no text; drawing its permutations takes longer than most texts do."""
    from datasketch import MinHash

    return MinHash(num_perm=_PERMUTATIONS, seed=1)


@cache
def _bands(jaccard: float) -> tuple[int, int]:
    """Bands and rows of a band for a limit; finding them takes half a second."""
    from datasketch import MinHashLSH

    # Rather a candidate too many than one too few: each is verified. Above 0.9 there would be one band alone.
    index = MinHashLSH(threshold=min(jaccard, 0.9), num_perm=_PERMUTATIONS, weights=_WEIGHTS)
    return index.b, index.r


class Neighbours(Generic[Item]):
    r"""Items by their texts, and which of them are nearly a given one.

    The likeness of two texts is that of their sets of word 5-grams, :math:`J = |A \cap B| / |A \cup B|`. Candidates
    are those with an equal band of their MinHash signatures (Broder 1997; 128 permutations, bands set to the limit by
    datasketch); each is verified on the sets themselves, so none is found that is below the limit, while one just above
    it may be missed.

    Args:
        jaccard: The limit, in (0, 1].

    Example:
        >>> known = Neighbours[str](0.8)
        >>> known.add("q1", Sketch.of("What was the revenue of the whole company in 2019?"))
        >>> known.nearest(Sketch.of("what was the revenue of the whole company in 2019"))
        ('q1', 1.0)
        >>> known.nearest(Sketch.of("What was the profit of the whole company in 2019?")) is None
        True
    """

    def __init__(self, jaccard: float) -> None:
        from datasketch import MinHashLSH

        self._jaccard = jaccard
        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(jaccard))
        self._sketches: dict[str, Sketch] = {}
        self._items: dict[str, list[Item]] = {}  # by key; those whose texts are the same share one

    def add(self, item: Item, sketch: Sketch) -> None:
        """Remember an item.

        Args:
            item: Any.
            sketch: Of its text.
        """
        key = hashlib.blake2b("\n".join(sorted(sketch.shingles)).encode(), digest_size=16).hexdigest()
        if key not in self._sketches:
            self._sketches[key] = sketch
            self._index.insert(key, sketch.signature)
        self._items.setdefault(key, []).append(item)

    def nearest(self, sketch: Sketch, allowed: Callable[[Item], bool] = lambda _: True) -> tuple[Item, float] | None:
        """The item that is most like a text, and its likeness; None where none reaches the limit.

        Args:
            sketch: Of the text.
            allowed: Which items count.
        """
        best: tuple[Item, float] | None = None
        for key in sorted(self._index.query(sketch.signature)):
            other = self._sketches[key].shingles
            likeness = len(sketch.shingles & other) / len(sketch.shingles | other)
            if likeness >= max(self._jaccard, best[1] if best else 0.0):
                item = next(filter(allowed, self._items[key]), None)
                best = best if item is None else (item, likeness)
        return best


def near_repeats(texts: Sequence[Text], settings: AuditSettings) -> Measured:
    """Examples of a source, and of validation and training, whose texts are nearly the same.

    Within a source two examples of one group share a context by design and are not compared. See :class:`Neighbours`.

    Args:
        texts: Examples, those of training first.
        settings: The limits.
    """
    trained = Neighbours[Example](settings.jaccard)
    by_place: dict[str, Neighbours[Example]] = {}
    counts: dict[tuple[str, str], dict[str, int]] = {}
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for text in tqdm(texts, desc="comparing examples", delay=2, leave=False, unit=" examples"):
        one, sketch = text.example, Sketch.of(text.whole)
        place = (one.part, one.source)
        count = counts.setdefault(place, {"n": 0, "repeats": 0, "trained": 0})
        count["n"] += 1
        before = by_place.setdefault(one.place, Neighbours(settings.jaccard))

        def in_other_group(other: Example, group: str = one.group) -> bool:
            return other.group != group

        found = {"repeats": before.nearest(sketch, in_other_group)}
        if one.part == "validation":
            found["trained"] = trained.nearest(sketch)
        for kind, near in found.items():
            if near is not None:
                count[kind] += 1
                shown.setdefault(place, {}).setdefault(kind, f"{one.id} ~ {near[0].id} ({near[1]:.2f})")
        before.add(one, sketch)
        if one.part == "training":
            trained.add(one, sketch)
    rows: list[tuple[Cell, ...]] = []
    checks = []
    for (part, source), count in counts.items():
        such = "; ".join(shown.get((part, source), {}).values())
        held_out = part == "validation"
        leaked = count["trained"] if held_out else None
        rows.append((part, source, count["n"], count["repeats"], count["repeats"] / count["n"], leaked, such))
        limit = settings.max_near_leaked if held_out else settings.max_near_repeated
        if limit is not None and part != "replay":
            key, kind = ("leaked", "trained") if held_out else ("repeated", "repeats")
            advice = f"take them out, or raise it where the texts follow a pattern by design{f': {such}' * bool(such)}"
            checks.append(Check(f"audit.max_near_{key}", f"{part}: {source}", count[kind] / count["n"], limit, advice))
    about = (
        f"Word 5-grams in common by at least {settings.jaccard:g} (Jaccard), exact repeats too; within a source "
        "those of other groups alone. "
        f"Of a source up to {settings.sample} examples are compared."
    )
    columns = ("part", "source", "compared", "near-repeats", "near-repeats, share", "nearly trained too", "such as")
    return Measured((Table("near-repeats", about, columns, tuple(rows)),), tuple(checks))

"""Examples that are nearly the same, found by MinHash and verified."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tqdm import tqdm

from lit_align.data.audit.examples import Text
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table

_WORD = re.compile(r"\w+")
_SHINGLE = 5  # words
_PERMUTATIONS = 128


def shingles(text: str) -> frozenset[str]:
    """All runs of five words of a text, in lower case and without punctuation; of a shorter one all its words.

    Args:
        text: Any.

    Example:
        >>> sorted(shingles("One, two three four five SIX."))
        ['one two three four five', 'two three four five six']
    """
    words = _WORD.findall(text.casefold())
    return frozenset(" ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1)))


def near_repeats(texts: Sequence[Text], settings: AuditSettings) -> Measured:
    r"""Examples of a source, and of validation and training, whose texts are nearly the same.

    The likeness of two texts is that of their sets of word 5-grams, :math:`J = |A \cap B| / |A \cup B|`. Candidates
    are those with an equal band of their MinHash signatures (Broder 1997; 128 permutations, bands set to the limit by
    datasketch); each is verified on the sets themselves, so no pair is counted that is below the limit, while one that
    is just above it may be missed. Two examples of one group share a context by design and are not compared.

    Args:
        texts: Examples, those of training first.
        settings: The limits.
    """
    from datasketch import MinHash, MinHashLSH

    sets = [shingles(text.whole) for text in texts]
    index = MinHashLSH(threshold=settings.jaccard, num_perm=_PERMUTATIONS)
    signatures = MinHash.generator(
        ([shingle.encode() for shingle in sorted(one)] for one in sets), num_perm=_PERMUTATIONS, seed=1
    )
    counts: dict[tuple[str, str], dict[str, int]] = {}
    shown: dict[tuple[str, str, str], tuple[float, str]] = {}
    bar = tqdm(signatures, total=len(sets), desc="comparing examples", delay=2, leave=False, unit=" examples")
    for number, signature in enumerate(bar):
        one = texts[number].example
        count = counts.setdefault((one.part, one.source), {"n": 0, "repeats": 0, "trained": 0})
        count["n"] += 1
        best: dict[str, tuple[float, str]] = {}
        for candidate in sorted(index.query(signature)):
            other = texts[candidate].example
            if other.group == one.group:
                continue
            kind = _kind(texts[number], texts[candidate])
            if kind and kind not in best:
                union = len(sets[number] | sets[candidate])
                likeness = len(sets[number] & sets[candidate]) / union
                if likeness >= settings.jaccard:
                    best[kind] = (likeness, f"{one.id} ~ {other.id} ({likeness:.2f})")
        for kind, found in best.items():
            count[kind] += 1
            shown.setdefault((one.part, one.source, kind), found)
        index.insert(number, signature)
    rows: list[tuple[Cell, ...]] = []
    checks = []
    for (part, source), count in counts.items():
        kind, limit, key = "repeats", settings.max_near_repeated, "audit.max_near_repeated"
        trained: Cell = None
        if part == "validation":
            kind, limit, key, trained = "trained", settings.max_near_leaked, "audit.max_near_leaked", count["trained"]
        found = [told for name in ("trained", "repeats") if (told := shown.get((part, source, name)))]
        such = "; ".join(told for _, told in found)
        rows.append((part, source, count["n"], count["repeats"], count["repeats"] / count["n"], trained, such))
        if limit is not None and part != "replay":
            advice = f"take them out, or raise it where the texts follow a pattern by design{f': {such}' * bool(such)}"
            checks.append(Check(key, f"{part}: {source}", count[kind] / count["n"], limit, advice))
    about = (
        f"Word 5-grams in common by at least {settings.jaccard:g} (Jaccard), other groups alone; exact repeats count. Of "
        f"a source up to {settings.sample} examples are compared."
    )
    columns = ("part", "source", "compared", "near-repeats", "near-repeats, share", "nearly trained too", "such as")
    return Measured((Table("near-repeats", about, columns, tuple(rows)),), tuple(checks))


def _kind(one: Text, other: Text) -> str:
    """What the second of two near-duplicates is: a repeat in its source, or a validation text that is trained."""
    a, b = one.example, other.example
    if a.part == "validation" and b.part == "training":
        return "trained"
    return "repeats" if a.place == b.place else ""

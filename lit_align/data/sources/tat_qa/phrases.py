"""Parts of the passages that begin and end as the gold span does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_WORDS = """
    a an the of to in for on by with from and or as at is are was were be been that which it its our we this these due
    because based primarily mainly than not
"""
FUNCTION_WORDS = frozenset(_WORDS.split())
_MOST_WINDOWS = 12  # a passage
_NEAR = 3  # words that a trimmed or extended span loses or gains at most

Edge = tuple[str, bool]  # what stands beside a part, and whether its own outermost word is a function word


def other_phrases(gold: str, passages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Take other parts of passages, and the gold span with a few words more or fewer.

    Each begins and ends as the gold span does: where that one follows a comma and ends a sentence, so do they; where
    it does not end with a function word, nor do they. By its edges alone, then, none is told from the gold one.

    Args:
        gold: The gold span.
        passages: The texts, their blanks folded.

    Yields:
        How it came about (``window``, ``trim`` or ``extend``), and the text.
    """
    length = len(gold.split())
    spots = [_spot(gold, passage) for passage in passages]
    edges = next((_edges(passages[i].split(), *spot) for i, spot in enumerate(spots) if spot), None)
    for passage, spot in zip(passages, spots, strict=True):
        words = passage.split()
        if spot:
            yield from _nearby(words, spot, edges)
            yield from _windows(words[: spot[0]], length, edges)
            yield from _windows(words[spot[1] :], length, edges)
        else:
            yield from _windows(words, length, edges)


def _spot(gold: str, passage: str) -> tuple[int, int] | None:
    """The words of a passage that the gold span is, first and one past the last."""
    at = passage.find(gold)
    if at < 0 or (at and not passage[at - 1].isspace()):
        return None
    start = len(passage[:at].split())
    return start, start + len(gold.split())


def _edges(words: Sequence[str], start: int, stop: int) -> tuple[Edge, Edge]:
    """How a part of a passage begins and ends."""
    before, last, after = words[start - 1] if start else "", words[stop - 1], words[stop : stop + 1]
    if not before or before[-1] in ".:;":
        left = "start"
    else:
        left = "mark" if before[-1] in ",(" else "function" if before.lower() in FUNCTION_WORDS else "word"
    if not after or last[-1] in ".:;":
        right = "end"
    else:
        right = "mark" if last[-1] in ",)" else "function" if after[0].lower() in FUNCTION_WORDS else "word"
    return (left, words[start].lower() in FUNCTION_WORDS), (right, last.lower() in FUNCTION_WORDS)


def _fits(words: Sequence[str], start: int, stop: int, edges: tuple[Edge, Edge] | None) -> bool:
    """Whether a part has the wished edges; where the gold span is in no passage, any that do not cut a phrase."""
    (left, _), (right, ends_open) = found = _edges(words, start, stop)
    if edges is None:
        return "word" not in (left, right) and not ends_open
    return found == edges


def _text(words: Sequence[str]) -> str:
    return " ".join(words).rstrip(",;:")


def _nearby(words: Sequence[str], spot: tuple[int, int], edges: tuple[Edge, Edge] | None) -> Iterator[tuple[str, str]]:
    start, stop = spot
    for n in range(1, _NEAR + 1):
        for first, end in ((start - n, stop), (start, stop + n), (start + n, stop), (start, stop - n)):
            longer = end - first > stop - start
            # A span of two or three words, trimmed, is another thing altogether.
            if first < 0 or end > len(words) or (not longer and end - first < n + 3):
                continue
            # Only the edge that moved is compared: the other one is the gold span's own.
            side = 0 if first != start else 1
            if edges and _edges(words, first, end)[side] == edges[side]:
                yield "extend" if longer else "trim", _text(words[first:end])


def _windows(words: Sequence[str], length: int, edges: tuple[Edge, Edge] | None) -> Iterator[tuple[str, str]]:
    shortest, longest = max(1, round(0.75 * length)), max(1, round(1.3 * length))
    found = []
    for start in range(len(words)):
        stops = range(start + shortest, min(start + longest, len(words)) + 1)
        stop = next((stop for stop in stops if _fits(words, start, stop, edges)), None)
        if stop is not None:
            found.append(_text(words[start:stop]))
    # Evenly over the passage: its beginning alone would be a place of its own.
    step = max(1, -(-len(found) // _MOST_WINDOWS))
    yield from (("window", text) for text in found[::step])

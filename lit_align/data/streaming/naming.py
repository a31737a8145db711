"""The name that each source of a stream has in the mix, the log and the curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from lit_align.data.length_report import LengthReport
from lit_align.data.mix import Mix
from lit_align.data.part import BadRows
from lit_align.data.streaming.epoch import Refuse
from lit_align.types import ConversationSource


def named_sources(
    sources: Sequence[Any],
    read: Callable[[Any, Refuse], Iterator[Any]],
    report: Callable[[], LengthReport],
    bad_rows: BadRows,
    mix: Mix | None,
) -> dict[str, Any]:
    """Name sources by their first rows: the key of the weight, or without a mix the name up to its ``/``.

    Args:
        sources: One, or several with a mix.
        read: See :class:`~lit_align.data.streaming.epoch.Stream`.
        report: See there.
        bad_rows: See there.
        mix: The mix.

    Raises:
        ValueError: A source has no row that can be read, samples from all of its rows, or has no weight of its own; or
            a weight has no source.
    """
    named: dict[str, Any] = {}
    first: list[str] = []
    for number, source in enumerate(sources, start=1):
        where = f"`data.sources`, number {number} ({type(source).__name__})"
        name = _first_name(source, read, report(), bad_rows, where)
        key = mix.key_of(name) if mix else name.partition("/")[0]
        if key in named:
            raise ValueError(
                f"{where}: its weight {key!r} is that of an earlier source; in a stream each weight is of one source: "
                "wrap one in NamedConversations or NamedPairs"
            )
        named[key] = source
        first.append(name)
    for key in mix.weights if mix else ():
        if key not in named:
            near = get_close_matches(key, first, n=1)
            raise ValueError(
                f"`data.mix.weights` cannot be met: no source begins with a row of {key!r}; "
                f"{f'did you mean {near[0]!r}? ' if near else ''}they begin with: {', '.join(first)}"
            )
    return named


def _first_name(
    source: Any, read: Callable[[Any, Refuse], Iterator[Any]], report: LengthReport, bad_rows: BadRows, where: str
) -> str:
    if isinstance(source, ConversationSource) and source.sampling:
        raise ValueError(
            f"{where}: {source.sampling} draws from all of its rows, and a stream is not known before it is read: "
            "leave it out, and set shares in `data.mix`"
        )

    def refuse(name: str, error: ValueError) -> None:
        if bad_rows == "stop":
            raise error
        report.refuse(name, str(error), read=False)

    record = next(read(source, refuse), None)
    if record is None:
        try:
            report.stop_if_empty(0)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    assert record is not None, "an empty report stops"
    return str(record.source)

"""Which records a benchmark measures: those that training holds out, all of them or some whole groups."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from tqdm import tqdm

from lit_align.data.mixture import first_held_out, group_of, is_held_out
from lit_align.data.tokenising import BadRows
from lit_align.types import Conversation, ConversationSource, PreferencePair, stop_at

logger = logging.getLogger(__name__)

Keep = Callable[[str], bool]
Refuse = Callable[[str, ValueError], None]
Record = TypeVar("Record", Conversation, PreferencePair)


def kept_conversations(source: ConversationSource, keep: Keep, refuse: Refuse) -> list[Conversation]:
    """The conversations of a source whose group is kept; for :func:`held_out`, with the source given.

    Args:
        source: Any.
        keep: Tells by the group.
        refuse: Given what a row that breaks a rule is refused for.
    """
    # One row after another: a benchmark of a large set holds its own rows alone.
    rows = tqdm(source.stream(refuse), desc="reading what is held out", delay=2, leave=False, unit=" rows")
    return [one for one in rows if keep(group_of(one))]


def held_out(
    read: Callable[[Keep, Refuse], list[Record]],
    *,
    val_fraction: float,
    split_seed: int,
    limit: int | None,
    bad_rows: BadRows,
    what: str,
    benchmark: str,
) -> dict[str, Record]:
    """Read what a source holds out.

    Args:
        read: Reads the records whose group is kept; given what becomes of a row that breaks a rule.
        val_fraction: Share of the groups that are held out, in (0, 1].
        split_seed: Seed of the split.
        limit: Records, at least 1, taken as whole groups at random; null takes all that are held out.
        bad_rows: Whether a row that breaks a rule stops the run or is counted in the log.
        what: What a record is called, for messages.
        benchmark: Name of the benchmark, for messages.

    Returns:
        The records by id, in the order of the source.

    Raises:
        ValueError: A row breaks a rule and ``bad_rows`` is ``stop``; nothing is held out; or two have the same id.

    Example:
        >>> def read(keep, refuse):
        ...     return [Conversation((), f"row {i}", "file", group=f"t{i}") for i in range(3) if keep(f"t{i}")]
        >>> options = {"split_seed": 0, "bad_rows": "stop", "what": "conversation", "benchmark": "drift"}
        >>> list(held_out(read, val_fraction=1.0, limit=None, **options))
        ['row 0', 'row 1', 'row 2']
    """
    refused: list[str] = []

    def refuse(source: str, error: ValueError) -> None:
        if bad_rows == "stop":
            stop_at(source, error)
        refused.append(str(error))

    found = read(lambda group: is_held_out(group, val_fraction, split_seed), refuse)
    if refused:
        # Not held against `lengths.max_dropped`: they are rows of the whole source, and this is a part of it.
        logger.info(f"{benchmark}: {len(refused)} rows of the source refused; first refusal: {refused[0]}")
    if not found:
        raise ValueError(
            f"benchmark {benchmark!r}: val_fraction = {val_fraction} with split_seed = {split_seed} holds out no "
            f"{what}; raise it, or set it to 1 for a source that training does not see"
        )
    if limit is not None:
        kept = first_held_out([group_of(one) for one in found], limit, split_seed)
        found = [one for one in found if group_of(one) in kept]
    records: dict[str, Record] = {}
    for one in found:
        if one.id in records:
            raise ValueError(f"benchmark {benchmark!r} has two {what}s with the id {one.id!r}")
        records[one.id] = one
    return records

"""Which side of the split a conversation is on, and which are drawn at what share."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from lit_align.rated import RatedAnswer
from lit_align.types import Conversation, Drawn, Message, Outline, PreferencePair

Record = Conversation | PreferencePair | RatedAnswer
"""What a source reads."""

T = TypeVar("T")


def content_hash(conversation: Conversation) -> str:
    """Hash what is said in a conversation: roles and texts, in order.

    Id, source and group do not enter, so a duplicate under another id has the same hash. The hash is the same on
    every machine and in every process.

    Args:
        conversation: Any conversation.

    Returns:
        64 hexadecimal digits (SHA-256).

    Example:
        >>> from lit_align.types import Message
        >>> turns = (Message("user", "2 + 2?"), Message("assistant", "4"))
        >>> first, second = Conversation(turns, id="a", source="x"), Conversation(turns, id="b", source="y")
        >>> content_hash(first) == content_hash(second)
        True
    """
    return messages_hash(conversation.messages)


def messages_hash(messages: Sequence[Message]) -> str:
    """Hash some turns as :func:`content_hash` does those of a conversation.

    Args:
        messages: Roles and texts, in order.
    """
    turns = [[message.role, message.content] for message in messages]
    # JSON quotes what it joins: two turns can never be mistaken for one that holds both texts.
    return hashlib.sha256(json.dumps(turns).encode("ascii")).hexdigest()


def split(conversations: Iterable[Drawn], val_fraction: float, seed: int) -> tuple[list[Drawn], list[Drawn]]:
    """Divide conversations into training and validation by their groups, and by what is said in those without one.

    A group is never parted; its side depends on its name, the fraction and the seed alone, as that of a group of pairs
    does. So does the side of a conversation without a group, with its texts for a name: not on its position, its id, or
    which others are there. So its duplicates are always on one side, and sampling, shuffling or adding rows moves no
    conversation from one side to the other. A larger fraction with the same seed keeps all that a smaller one held
    out. The price: the fraction holds in expectation, and a small set may have an empty side, which is for the caller
    to check. Only whole conversations are compared: one prompt with two different answers may be on both sides, and so
    may one conversation in two groups.

    Args:
        conversations: Any number of conversations or of their outlines; the order is kept on each side.
        val_fraction: Expected share of groups and distinct conversations in validation, in [0, 1); 0 holds out nothing.
        seed: Any integer; another seed is another division.

    Returns:
        The training and the validation conversations.

    Raises:
        ValueError: ``val_fraction`` is outside [0, 1).

    Example:
        >>> split([], val_fraction=0.1, seed=0)
        ([], [])
    """
    if not 0.0 <= val_fraction < 1.0:
        raise ValueError(f"val_fraction must be at least 0 and below 1, got {val_fraction}")
    train: list[Drawn] = []
    val: list[Drawn] = []
    for conversation in conversations:
        (val if is_held_out(group_of(conversation), val_fraction, seed) else train).append(conversation)
    return train, val


def group_of(one: Record | Outline) -> str:
    """Name what the split never parts: a group, or what stands alone: the prompt of answers, a whole conversation.

    Args:
        one: Any record, or its outline.
    """
    if isinstance(one, Outline):
        return one.name
    return one.group or (content_hash(one) if isinstance(one, Conversation) else messages_hash(one.prompt))


def question_hash(text: str) -> str:
    """Name of a question: the hash of a user turn that opens a conversation.

    Args:
        text: The user's words.
    """
    return messages_hash([Message("user", text)])


def question_of(one: Record | Outline) -> str:
    """Name of the question that a record opens with, whatever its group, system turn and later turns; empty for none.

    Args:
        one: Any record, or its outline.

    Example:
        >>> asked = (Message("system", "Be short."), Message("user", "2 + 2?"), Message("assistant", "4"))
        >>> question_of(Conversation(asked, "a", "x")) == question_hash("2 + 2?")
        True
    """
    if isinstance(one, Outline):
        return one.question
    turns = one.messages if isinstance(one, Conversation) else one.prompt
    return next((question_hash(turn.content) for turn in turns if turn.role == "user"), "")


def questions_of(records: Iterable[Record | Outline]) -> frozenset[str]:
    """Names of the questions that records open with.

    Args:
        records: Any, or their outlines.
    """
    return frozenset(name for one in records if (name := question_of(one)))


def outlined(place: int, record: Record) -> Outline:
    """The outline of a record.

    Args:
        place: Its number among the records that were read.
        record: Any.
    """
    name, question = group_of(record), question_of(record)
    # One string in memory where the group is the question, as in Finance-Instruct.
    return Outline(place, record.source, name, name if name == question else question)


def is_held_out(name: str, val_fraction: float, seed: int) -> bool:
    """Whether what has this name is on the validation side.

    Args:
        name: A content hash, or the name of a group that is never parted.
        val_fraction: Expected share of the names in validation, in [0, 1]; 1 holds out all.
        seed: Any integer; another seed is another division.

    Example:
        >>> [is_held_out("table 7", fraction, seed=0) for fraction in (0.0, 0.999)]
        [False, True]
    """
    return place(name, seed) < val_fraction


def first_held_out(names: Sequence[str], limit: int, seed: int) -> set[str]:
    """Choose some of the groups that are held out: those that a small enough ``val_fraction`` would hold out alone.

    So a limited evaluation sees a random sample of the groups, not the beginning of a file.

    Args:
        names: The group of each item.
        limit: Groups are taken until they have this many items together, or all are taken; >= 1.
        seed: The seed of the split.

    Example:
        >>> sorted(first_held_out(["a", "a", "b", "b", "c"], limit=3, seed=0))
        ['a', 'c']
    """
    sizes = Counter(names)
    chosen: set[str] = set()
    for name in sorted(sizes, key=lambda name: place(name, seed)):
        if sum(sizes[one] for one in chosen) >= limit:
            break
        chosen.add(name)
    return chosen


def place(name: str, seed: int) -> float:
    """Where in [0, 1) a name lies: a random number that depends on name and seed alone.

    Args:
        name: Any text.
        seed: Any integer.

    Example:
        >>> place("table 7", seed=0) == place("table 7", seed=0) != place("table 7", seed=1)
        True
    """
    # Hashed (again) with the seed: the digits of a content hash itself would give every seed the same division.
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # 48 bits are exact in a float, so always below 1


def shuffled(conversations: Iterable[Drawn], seed: int) -> list[Drawn]:
    """Put conversations into an order that depends on their groups, or what is said in them, and on the seed alone.

    Args:
        conversations: Any number, or their outlines; those of a group, and duplicates, stay beside one another, in the
            order given.
        seed: Any integer; unrelated to the seed of :func:`split`, whose hashes are others.

    Example:
        >>> shuffled([], seed=0)
        []
    """
    return sorted(conversations, key=lambda one: hashlib.sha256(f"draw {seed}:{group_of(one)}".encode()).digest())


def draw(
    pools: Mapping[str, Iterable[T]], shares: Mapping[str, float], size: int, weigh: Callable[[T], float]
) -> list[T]:
    r"""Draw from several pools at given shares, to the last example.

    One example after another is taken from a pool that has no more than its share :math:`s_k` of what is drawn; where
    there are several, from the one that is due first: the one with the least :math:`(w_k + \bar w) / s_k`, where
    :math:`w_k` is the weight drawn from it and :math:`\bar w` the mean weight of an example so far (in the manner of
    the quota method, Balinski and Young 1975). So the shares of examples hold at every size, to within one of them. The
    draw ends at ``size``, or where the pool whose turn it is has run out: going on would break the shares.

    Args:
        pools: Candidates by name, each in the order in which they are drawn. An endless one has one that counts.
        shares: Share of each pool, > 0; they add up to 1.
        size: Number of examples to draw.
        weigh: What an example counts, 1 or its tokens; 0 passes it over. Asked for candidates alone, in their order.

    Returns:
        At most ``size`` examples, in the order drawn.

    Example:
        >>> "".join(draw({"a": "aaaaaaaa", "b": "bbb"}, {"a": 0.75, "b": 0.25}, 8, len))
        'abaaabaa'
        >>> "".join(draw({"a": "aaaaaaaa", "b": "b"}, {"a": 0.75, "b": 0.25}, 8, len))
        'abaaa'
    """
    return list(islice(drawing(pools, shares, weigh), size))


def drawing(pools: Mapping[str, Iterable[T]], shares: Mapping[str, float], weigh: Callable[[T], float]) -> Iterator[T]:
    """Draw as :func:`draw` does, one example when it is asked for, until a pool whose turn it is has run out.

    Args:
        pools: As for :func:`draw`; read no further than what is drawn.
        shares: As for :func:`draw`.
        weigh: As for :func:`draw`.

    Example:
        >>> from itertools import cycle
        >>> endless = drawing({"a": cycle("a"), "b": cycle("b")}, {"a": 0.75, "b": 0.25}, len)
        >>> "".join(islice(endless, 8))
        'abaaabaa'
    """
    left = {name: iter(pool) for name, pool in pools.items()}
    weights = dict.fromkeys(pools, 0.0)
    drawn, total = 0, 0.0
    while True:
        one = total / drawn if drawn else 1.0  # what the next example will count, as far as one knows
        behind = [name for name in pools if weights[name] <= shares[name] * total + 1e-9 * (total + 1)]
        name = min(behind, key=lambda name: (weights[name] + one) / shares[name])
        for candidate in left[name]:
            if (weight := weigh(candidate)) > 0:
                weights[name] += weight
                total += weight
                drawn += 1
                yield candidate
                break
        else:
            return

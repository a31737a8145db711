"""Records that the floors exchange: conversations, preference pairs, questions, prompts, and where they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: The text of the turn, without any template token.
    """

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """A dialogue whose assistant turns may be trained.

    Attributes:
        messages: An optional leading system turn, then user and assistant turns.
        id: Unique within its source; for a file, the file's name and the row (``chat.jsonl:17``).
        source: Name of the source, for reports.
        group: Conversations of one group share a context (a table, a post), also across sources: they share a tree of
            tokens, and a split never parts them. Empty means that the conversation is alone.
    """

    messages: tuple[Message, ...]
    id: str
    source: str
    group: str = ""


@dataclass(frozen=True)
class PreferencePair:
    """A prompt with a better and a worse answer.

    Attributes:
        prompt: The turns that both answers follow; the last one is the user's.
        chosen: The better answer.
        rejected: The worse one.
        id: Unique within its source.
        source: Name of the source, for reports.
        group: Pairs of one group share a context (a table, a post), also across sources: they share a tree of tokens,
            and a split never parts them. Empty means that the pair is alone.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    id: str
    source: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Outline:
    """What is held in memory of a record whose texts are not: enough to split, draw and mix it.

    Attributes:
        place: Its number among the records that were read.
        source: Name of the source, as in the record.
        name: What a split never parts: its group, or the hash of what stands alone
            (:func:`lit_align.data.mixture.group_of`).
        question: Name of the question that it opens with (:func:`lit_align.data.mixture.question_hash`); empty for
            none.
    """

    place: int
    source: str
    name: str
    question: str


@dataclass(frozen=True)
class EvalItem:
    """A question with its gold answer.

    Attributes:
        id: Unique within its benchmark.
        prompt: The turns that the model sees; the last one is the user's.
        answer: The gold answer.
        skill: Name of the line of the result table that the item counts in.
        cluster: Items that are not independent (one table, one post) carry the same value; resampled together.
    """

    id: str
    prompt: tuple[Message, ...]
    answer: str
    skill: str
    cluster: str


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt that a model is to answer, for ``lit-align sample``.

    Attributes:
        id: Unique within its source.
        messages: The turns that the model sees; the last one is the user's.
        gold: The answer that the source has for it; empty for none.
        source: Name of the source, for reports.
        group: As of the pairs that are to be made of it, see :class:`PreferencePair`.
        score: The source's own metric of an answer: numbers by name, the main one first, larger is better; None
            where it has no metric.
    """

    id: str
    messages: tuple[Message, ...]
    gold: str
    source: str
    group: str = ""
    score: Callable[[str], Mapping[str, float]] | None = None


Drawn = TypeVar("Drawn", Conversation, Outline)
"""A conversation, or its outline: what a source may draw by is the same of both."""


def stop_at(source: str, error: ValueError) -> None:
    """Raise the error of a row that breaks a rule: what a source does unless its bad rows are to be counted."""
    del source
    raise error


class PromptSource(ABC):
    """Where prompts come from: every source of conversations, pairs or questions is one."""

    @abstractmethod
    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """Read all prompts, in a fixed order.

        Args:
            refuse: Given the source's name and the error of each row that breaks a rule; may raise it, as it does by
                default. A source that does not read row by row raises instead of calling it.

        Raises:
            ValueError: A row breaks a rule; the message names file, row, key, rule and value.
        """


class ConversationSource(PromptSource):
    """Where conversations come from; a frozen dataclass whose fields are the options of the YAML."""

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """The turns before the last answer of each conversation, which is the gold answer."""
        return [
            SamplePrompt(one.id, one.messages[:-1], one.messages[-1].content, one.source, one.group)
            for one in self.usable(refuse)
        ]

    @abstractmethod
    def conversations(self) -> list[Conversation]:
        """Read all conversations, in a fixed order.

        Raises:
            ValueError: A row breaks a rule; the message names file, row, key, rule and value.
        """

    def usable(self, refuse: Callable[[str, ValueError], None]) -> list[Conversation]:
        """Read the conversations of the rows that break no rule.

        Args:
            refuse: Given the source's name and the error of each other row; may raise it. A source that does not
                read row by row raises instead of calling it.
        """
        del refuse
        return self.conversations()

    def stream(self, refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        """Read what :meth:`usable` does, in its order, one after another: a source that reads row by row holds no list.

        What it says of the whole file (a line of the log, that no row is left) comes with the last row, and it shows no
        progress bar: the reader has one.

        Args:
            refuse: As for :meth:`usable`.
        """
        return iter(self.usable(refuse))

    @property
    def sampling(self) -> str:
        """The options by which :meth:`draw` leaves rows out, with their values, for messages; empty where it is all."""
        return ""

    def draw(self, rows: Sequence[Drawn], tokens: Callable[[Drawn], int]) -> list[Drawn]:
        """Choose what is used of one side of the split; all of it, unless a source samples.

        Args:
            rows: Conversations of this source, or their outlines, that are all for training or all for validation.
            tokens: Trained tokens of a conversation, 0 for one that is dropped; asking for it tokenises the row.
        """
        del tokens
        return list(rows)


class PairSource(PromptSource):
    """Where preference pairs come from; a frozen dataclass whose fields are the options of the YAML."""

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """The prompt of each pair; its chosen answer is the gold answer."""
        pairs = self.usable(lambda _: True, refuse)
        return [SamplePrompt(one.id, one.prompt, one.chosen, one.source, one.group) for one in pairs]

    @abstractmethod
    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Read the pairs of one side of a split, in a fixed order.

        A source that chooses rejected answers jointly chooses them among what is kept: were they chosen before the
        split, each side would hold the mirror image of the other.

        Args:
            keep: Whether a group belongs to the side that is asked for; the group is named as in the pairs. A pair
                without a group is asked for by its prompt (:func:`lit_align.data.mixture.group_of`).

        Raises:
            ValueError: A row breaks a rule; the message names file, row, key, rule and value.
        """

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[PreferencePair]:
        """Read the pairs of one side of a split of the rows that break no rule.

        Args:
            keep: As for :meth:`pairs`.
            refuse: Given the source's name and the error of each other row, of whichever side: a row that cannot be
                read has none; may raise it. A source that does not read row by row raises instead of calling it.
        """
        del refuse
        return self.pairs(keep)

    def stream(
        self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]
    ) -> Iterator[PreferencePair]:
        """Read what :meth:`usable` does, in its order, one after another: a source that reads row by row holds no list.

        What it says of the whole file (a line of the log, that no pair is left) comes with the last row, and it shows
        no progress bar: the reader has one.

        Args:
            keep: As for :meth:`pairs`.
            refuse: As for :meth:`usable`.
        """
        return iter(self.usable(keep, refuse))


class EvalSource(PromptSource):
    """Where a benchmark's items come from; a frozen dataclass whose fields are the options of the YAML."""

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """The items, scored by equality with the gold answer, white space at both ends apart."""
        del refuse

        def equality(gold: str) -> Callable[[str], Mapping[str, float]]:
            return lambda answer: {"exact_match": float(answer.strip() == gold.strip())}

        return [
            SamplePrompt(one.id, one.prompt, one.answer, one.skill, one.cluster, equality(one.answer))
            for one in self.items()
        ]

    @abstractmethod
    def items(self) -> list[EvalItem]:
        """Read all items, in a fixed order."""

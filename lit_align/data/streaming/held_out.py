"""What a stream passes over: the rows of the validation set and of benchmarks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from lit_align.data.mixture import content_hash, group_of, messages_hash, questions_of
from lit_align.types import Conversation, PreferencePair


@dataclass(frozen=True)
class HeldOut:
    """Names of what is measured and must not be trained.

    Data that are read before training are compared with a benchmark at the start, and the run is refused where they
    meet. A stream is not known then: what it shares with a benchmark is passed over when it comes.

    Attributes:
        names: Groups, and hashes of what is said (:func:`~lit_align.data.mixture.group_of`): of conversations all of
            it, of pairs the prompt.
        questions: Names of questions that no example may open with
            (:func:`~lit_align.data.mixture.question_hash`).
    """

    names: frozenset[str] = frozenset()
    questions: frozenset[str] = frozenset()

    def holds(self, record: Conversation | PreferencePair) -> bool:
        """Whether a record is of a group, says the same, or opens with a question that is held out.

        Args:
            record: Any.

        Example:
            >>> from lit_align.types import Message
            >>> asked = (Message("user", "2 + 2?"),)
            >>> pair = PreferencePair(asked, "4", "5", "a", "x", group="sums")
            >>> [HeldOut(frozenset(names)).holds(pair) for names in (["sums"], [messages_hash(asked)], ["other"])]
            [True, True, False]
        """
        if self.names and (group_of(record) in self.names or _text_hash(record) in self.names):
            return True
        return bool(self.questions and questions_of([record]) & self.questions)

    def also(self, names: Iterable[str] = (), questions: Iterable[str] = ()) -> HeldOut:
        """With further names.

        Args:
            names: Groups, or hashes of what is said.
            questions: Names of questions.
        """
        return HeldOut(self.names | frozenset(names), self.questions | frozenset(questions))

    def digest(self) -> str:
        """A short hash of all names: it decides which windows a stream makes."""
        text = "\n".join(["names", *sorted(self.names), "questions", *sorted(self.questions)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def names_of(records: Iterable[Conversation | PreferencePair]) -> frozenset[str]:
    """Groups of records, and the hashes of what they say.

    Args:
        records: Of a validation set.
    """
    return frozenset(name for one in records for name in (group_of(one), _text_hash(one)))


def _text_hash(record: Conversation | PreferencePair) -> str:
    return content_hash(record) if isinstance(record, Conversation) else messages_hash(record.prompt)

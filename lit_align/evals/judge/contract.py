"""What a scorer is: it reads conversations that end with an answer, and gives each some numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lit_align.types import Message


@dataclass(frozen=True)
class Judged:
    """An answer in its conversation, as a scorer reads it.

    Attributes:
        id: Names the answer in messages.
        prompt: The turns before the answer, earlier answers included; the last one is the user's.
        answer: The answer without its thinking; may be empty.
        reference: A good answer to compare with; empty for none.
        category: What kind of question it is, such as ``math``; empty where nobody says.
        earlier_references: Good answers to the user turns before the last one, where there are any.
    """

    id: str
    prompt: tuple[Message, ...]
    answer: str
    reference: str = ""
    category: str = ""
    earlier_references: tuple[str, ...] = ()


class Scorer(ABC):
    """Gives numbers to answers; a frozen dataclass whose fields are the options of the YAML.

    A scorer reads its weights at the first answer and keeps them for the process, off the training device between
    evaluations. One object gives equal answers in equal conversations exactly equal scores, so that they tie.
    """

    @abstractmethod
    def measures(self) -> Mapping[str, tuple[float, float]]:
        """What is measured, with smallest and largest value (infinite for none); the main one first."""

    @abstractmethod
    def identity(self) -> dict[str, str | int]:
        """What must be the same for two scores to be compared: the judge, its settings, its calibration."""

    @abstractmethod
    def check(self) -> None:
        """Refuse at the start what would fail at the first answer.

        Raises:
            ImportError: A package is missing; the message names the extra.
            ValueError: A file or a value breaks a rule.
        """

    def check_asked(self, asked: Sequence[Judged]) -> None:  # noqa: B027  many scorers take any prompt
        """Refuse before anything is generated what could not be scored whatever the answers are.

        Args:
            asked: What will be scored, with empty answers.

        Raises:
            ValueError: A prompt or a reference breaks a rule of the scorer; the message names it by its id.
        """

    @abstractmethod
    def scores(
        self, answers: Sequence[Judged], device: torch.device, *, progress: str | None = None
    ) -> list[dict[str, float]]:
        """Score answers.

        Args:
            answers: What to score, at least one.
            device: Where a model may run.
            progress: Label of a progress bar, none if ``None``.

        Returns:
            The measures of each answer, in the order of the answers.

        Raises:
            ValueError: An answer or its prompt breaks a rule of the scorer; the message names it by its id.
        """

"""What a benchmark is: something that asks a model a fixed list of questions and scores each answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lit_align.evals.generate import CausalLM
from lit_align.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptRenderer(Protocol):
    """What a benchmark needs of the chat format: the very function that renders the training prompts."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the base model."""

    def prompt_ids(self, messages: Sequence[Message], example: str = "prompt") -> list[int]:
        """Token ids of ``messages`` followed by the opening of the assistant's turn; ``example`` is for messages."""


@dataclass(frozen=True)
class ItemResult:
    """One question, what the model answered, and how it scored.

    Attributes:
        id: The item's id, unique within its benchmark.
        cluster: Items of one cluster are resampled together.
        skill: The line of the result table that the item counts in.
        prompt: The rendered prompt, exactly as the model saw it.
        answer: The model's answer.
        gold: The right answer.
        score: Between 0 and 1.
        hit_cap: Whether the answer was ended by the length cap.
        new_tokens: Length of the answer in tokens, without the stop token.

    Raises:
        ValueError: The score is not between 0 and 1.

    Example:
        >>> ItemResult("a", "a", "sums", "1 + 1?", "3", "2", score=-1.0, hit_cap=False, new_tokens=1)
        Traceback (most recent call last):
        ValueError: item 'a': score must lie between 0 and 1, got -1.0
    """

    id: str
    cluster: str
    skill: str
    prompt: str
    answer: str
    gold: str
    score: float
    hit_cap: bool
    new_tokens: int

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ValueError(f"item {self.id!r}: score must lie between 0 and 1, got {self.score}")
        # A numpy scalar would do all the way to the checkpoint, which would then not load with weights_only=True.
        object.__setattr__(self, "score", float(self.score))


class Benchmark(ABC):
    """A fixed list of questions with a score for each answer; a frozen dataclass whose fields are the options.

    Attributes:
        name: Names the benchmark in tables, files and log keys; unique within a run.
    """

    name: str

    @abstractmethod
    def conditions(self) -> dict[str, str | int]:
        """Everything that must be the same before and after: a fingerprint of the items, and the settings."""

    @abstractmethod
    def run(self, model: CausalLM, chat: PromptRenderer, *, progress: str | None = None) -> list[ItemResult]:
        """Ask the model every question.

        Args:
            model: The causal language model, with the adapters that are to be measured active.
            chat: Renders the prompts.
            progress: Label of the progress bar, none if ``None``.

        Returns:
            One result an item, in the order of the items.

        Raises:
            ValueError: The items break a rule, for example two with the same id.
        """

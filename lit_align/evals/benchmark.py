"""What a benchmark is: something that measures a model on a fixed list of items, each by one or several numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_align.data.chat import ChatFormat
from lit_align.evals.answering import Answer
from lit_align.models.policy import Policy
from lit_align.types import Message, SamplePrompt

Bounds = tuple[float, float]
"""Smallest and largest value that a measure can have; infinite where there is no bound."""

SHARE: Bounds = (0.0, 1.0)
"""Bounds of a measure that is a share, or right or wrong."""


@dataclass(frozen=True)
class ItemResult:
    """One item, what the model made of it, and how that scored.

    Attributes:
        id: The item's id, unique within its benchmark.
        cluster: Items of one cluster are one unit of intervals and tests.
        skill: The line of the result table that the item counts in.
        prompt: The rendered prompt, exactly as the model saw it.
        answer: The model's answer.
        gold: The right answer.
        scores: A number for each measure of the benchmark, the main one first.
        hit_cap: Whether the answer was ended by the length cap; None where nothing was generated.
        new_tokens: Length of what was generated in tokens, without the stop token.
        think_tokens: How many of them are thoughts, which ``answer`` is without.
        ties: How many were chosen among two that tie, see :class:`~lit_align.evals.generate.Completion`.

    Raises:
        ValueError: There is no score, or one that is not finite.

    Example:
        >>> ItemResult("a", "a", "sums", "1 + 1?", "3", "2", {"nats": float("nan")}, hit_cap=False, new_tokens=1)
        Traceback (most recent call last):
        ValueError: item 'a': nats must be finite, got nan
    """

    id: str
    cluster: str
    skill: str
    prompt: str
    answer: str
    gold: str
    scores: dict[str, float]
    hit_cap: bool | None
    new_tokens: int
    think_tokens: int = 0
    ties: int = 0

    def __post_init__(self) -> None:
        if not self.scores:
            raise ValueError(f"item {self.id!r}: has no score")
        for measure, score in self.scores.items():
            if not math.isfinite(score):
                raise ValueError(f"item {self.id!r}: {measure} must be finite, got {score}")
        # A numpy scalar would do all the way to the checkpoint, which would then not load with weights_only=True.
        object.__setattr__(self, "scores", {measure: float(score) for measure, score in self.scores.items()})

    @classmethod
    def of(
        cls, answer: Answer, *, id: str, cluster: str, skill: str, gold: str, scores: Mapping[str, float]
    ) -> ItemResult:
        """The result of an item that was answered by generation.

        Args:
            answer: What the model wrote.
            id: See the attributes.
            cluster: See the attributes.
            skill: See the attributes.
            gold: See the attributes.
            scores: See the attributes.
        """
        return cls(
            id=id,
            cluster=cluster,
            skill=skill,
            prompt=answer.prompt,
            answer=answer.text,
            gold=gold,
            scores=dict(scores),
            hit_cap=answer.hit_cap,
            new_tokens=answer.tokens,
            think_tokens=answer.think_tokens,
            ties=answer.ties,
        )


class Benchmark(ABC):
    """A fixed list of items with scores for each; a frozen dataclass whose fields are the options.

    Attributes:
        name: Names the benchmark in tables, files and log keys; unique within a run.
    """

    name: str

    @property
    @abstractmethod
    def measures(self) -> Mapping[str, Bounds]:
        """What is measured of each item, with its bounds; the main one first. Most name them once, as a class."""

    @property
    def won_by(self) -> str:
        """The measure by which an answer beats another one to the same prompt, for a win rate; empty for none."""
        return ""

    def check(self) -> None:  # noqa: B027  most benchmarks need nothing
        """Refuse at the start what would fail at the first answer, such as a missing package; nothing by default."""

    @abstractmethod
    def conditions(self) -> dict[str, str | int]:
        """Everything that must be the same before and after: a fingerprint of the items, and the settings."""

    def groups(self) -> frozenset[str]:
        """Groups of the training data's split that the items are of; training may see none of them.

        Empty for items that no training data holds.
        """
        return frozenset()

    def published_questions(self) -> list[str]:
        """Questions of a published set, which training may not hold in whatever form; none by default."""
        return []

    def asked(self) -> list[SamplePrompt]:
        """What is asked, for a search for it in the training data; by default the published questions."""
        questions = enumerate(self.published_questions(), start=1)
        return [SamplePrompt(str(n), (Message("user", text),), "", self.name) for n, text in questions]

    @abstractmethod
    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Measure the model on every item, under ``torch.distributed`` on all ranks together.

        Args:
            policy: The model, with the adapters that are to be measured active; generation takes its ``causal_lm``.
            chat: The chat format of the training data.
            progress: Label of the progress bar, none if ``None``.

        Returns:
            One result an item, in the order of the items, scored by :attr:`measures`.

        Raises:
            ValueError: The items break a rule, for example two with the same id.
        """


def check_scores(benchmark: Benchmark, results: Sequence[ItemResult]) -> None:
    """Refuse results that are not of the measures that the benchmark declares.

    The tables are made at the end of a run; what they could not show is found here, before the first step.

    Args:
        benchmark: What was run.
        results: What it returned.

    Raises:
        ValueError: No result; an item with other measures, or one in another order; a score out of its bounds.
    """
    if not results:
        raise ValueError(f"benchmark {benchmark.name!r} returned no result")
    for item in results:
        where = f"benchmark {benchmark.name!r}, item {item.id!r}"
        if list(item.scores) != list(benchmark.measures):
            raise ValueError(f"{where}: measures must be {list(benchmark.measures)}, got {list(item.scores)}")
        for measure, (low, high) in benchmark.measures.items():
            if not low <= item.scores[measure] <= high:
                raise ValueError(f"{where}: {measure} must lie in [{low:g}, {high:g}], got {item.scores[measure]}")

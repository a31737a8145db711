"""Right or wrong by equality with the gold answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from lit_align.data.chat import ChatFormat
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import SHARE, Benchmark, Bounds, ItemResult
from lit_align.models.policy import Policy
from lit_align.types import EvalItem, EvalSource, SamplePrompt


@dataclass(frozen=True)
class ExactMatchBenchmark(Benchmark):
    """Greedy answers to the items of a source, right if equal to the gold answer.

    The one measure, ``exact_match``, is 1 if the answer, with white space stripped at both ends, is character for
    character the gold answer stripped likewise, else 0. Special tokens inside of an answer are kept, and so make it
    wrong.

    Args:
        items: Where the questions come from.
        name: Names the benchmark in tables, files and log keys.
        generation: How the answers are generated.

    Raises:
        ValueError: ``name`` is empty.

    Example:
        >>> from lit_align.types import Message
        >>> class Capitals(EvalSource):
        ...     def items(self) -> list[EvalItem]:
        ...         question = (Message("user", "The capital of France?"),)
        ...         return [EvalItem("fr", question, "Paris", skill="capitals", cluster="fr")]
        >>> ExactMatchBenchmark(Capitals(), name="geography").conditions()["n"]
        1
    """

    measures: ClassVar[Mapping[str, Bounds]] = {"exact_match": SHARE}

    items: EvalSource
    name: str = "exact_match"
    generation: Generation = Generation(max_new_tokens=64, batch_size=64)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("ExactMatchBenchmark: name must not be empty")

    def conditions(self) -> dict[str, str | int]:
        """Fingerprint of the items, number of items, and how answers are generated."""
        items = self._checked_items()
        text = json.dumps([asdict(item) for item in items], ensure_ascii=False)
        return {
            "items": hashlib.sha256(text.encode()).hexdigest()[:16],
            "n": len(items),
            **self.generation.conditions(),
        }

    def asked(self) -> list[SamplePrompt]:
        """See :meth:`Benchmark.asked`."""
        return self.items.prompts()

    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Ask the model every question; see :meth:`Benchmark.run`."""
        items = self._checked_items()
        prompts = self.generation.render(chat, ((item.id, item.prompt) for item in items))
        answers = self.generation.answers(policy, chat, prompts, progress=progress)
        return [
            ItemResult.of(
                answer,
                id=item.id,
                cluster=item.cluster,
                skill=item.skill,
                gold=item.answer,
                scores={"exact_match": float(answer.text.strip() == item.answer.strip())},
            )
            for item, answer in zip(items, answers, strict=True)
        ]

    def _checked_items(self) -> list[EvalItem]:
        items = self.items.items()
        if not items:
            raise ValueError(f"benchmark {self.name!r} has no items")
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                raise ValueError(f"benchmark {self.name!r} has two items with the id {item.id!r}")
            seen.add(item.id)
        return items

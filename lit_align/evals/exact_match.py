"""Right or wrong by equality with the gold answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from lit_align.data.chat import ChatFormat
from lit_align.evals.benchmark import SHARE, Benchmark, Bounds, ItemResult
from lit_align.evals.generate import generate
from lit_align.models.policy import Policy
from lit_align.tokenizer import end_of_turn_ids
from lit_align.types import EvalItem, EvalSource


@dataclass(frozen=True)
class ExactMatchBenchmark(Benchmark):
    """Greedy answers to the items of a source, right if equal to the gold answer.

    The one measure, ``exact_match``, is 1 if the answer, with white space stripped at both ends, is character for
    character the gold answer stripped likewise, else 0. Special tokens inside of an answer are kept, and so make it
    wrong.

    Args:
        items: Where the questions come from.
        name: Names the benchmark in tables, files and log keys.
        max_new_tokens: Cap on the length of an answer in tokens, at least 1.
        batch_size: Questions that are generated at once, at least 1.

    Raises:
        ValueError: ``name`` is empty, or ``max_new_tokens`` or ``batch_size`` is below 1.

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
    max_new_tokens: int = 64
    batch_size: int = 64

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("ExactMatchBenchmark: name must not be empty")
        for option in ("max_new_tokens", "batch_size"):
            if getattr(self, option) < 1:
                raise ValueError(f"ExactMatchBenchmark: {option} must be at least 1, got {getattr(self, option)}")

    def conditions(self) -> dict[str, str | int]:
        """Fingerprint of the items, number of items, cap and batch size."""
        items = self._checked_items()
        text = json.dumps([asdict(item) for item in items], ensure_ascii=False)
        return {
            "items": hashlib.sha256(text.encode()).hexdigest()[:16],
            "n": len(items),
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.batch_size,
        }

    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Ask the model every question; see :meth:`Benchmark.run`."""
        items = self._checked_items()
        prompts = [chat.prompt_ids(item.prompt, item.id) for item in items]
        completions = generate(
            policy.causal_lm,
            prompts,
            max_new_tokens=self.max_new_tokens,
            stop_ids=end_of_turn_ids(chat.tokenizer),
            batch_size=self.batch_size,
            progress=progress,
        )
        results = []
        for item, prompt, completion in zip(items, prompts, completions, strict=True):
            answer = str(chat.tokenizer.decode(list(completion.tokens), skip_special_tokens=False))
            results.append(
                ItemResult(
                    id=item.id,
                    cluster=item.cluster,
                    skill=item.skill,
                    prompt=str(chat.tokenizer.decode(prompt, skip_special_tokens=False)),
                    answer=answer,
                    gold=item.answer,
                    scores={"exact_match": float(answer.strip() == item.answer.strip())},
                    hit_cap=completion.hit_cap,
                    new_tokens=len(completion.tokens),
                )
            )
        return results

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

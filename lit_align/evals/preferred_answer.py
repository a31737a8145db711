"""How often a model, writing freely, gives the preferred one of two right answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from lit_align.data.chat import ChatFormat
from lit_align.data.mixture import group_of
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import SHARE, Benchmark, Bounds, ItemResult
from lit_align.evals.exact_match import ExactMatchBenchmark
from lit_align.models.policy import Policy
from lit_align.types import EvalItem, EvalSource, PairSource, PreferencePair, SamplePrompt


@dataclass(frozen=True)
class _Chosen(EvalSource):
    """The prompts of pairs, with the chosen answers as gold answers."""

    pairs: tuple[PreferencePair, ...]

    def items(self) -> list[EvalItem]:
        return [EvalItem(one.id, one.prompt, one.chosen, skill=one.source, cluster=group_of(one)) for one in self.pairs]


@dataclass(frozen=True)
class PreferredAnswerBenchmark(Benchmark):
    """Greedy answers to the prompts of pairs of which both answers are right, and one is preferred.

    The measures are ``preferred``, 1 if the answer is the chosen one, and ``exact_match``, 1 if it is the chosen or the
    rejected one: whether the model is right, in whichever form. Answers are compared as by
    :class:`~lit_align.evals.exact_match.ExactMatchBenchmark`.

    Args:
        source: Where the pairs come from; all of them are asked, so training must not see them.
        name: Names the benchmark in tables, files and log keys.
        generation: How the answers are generated.

    Raises:
        ValueError: ``name`` is empty.

    Example:
        >>> from lit_align.data.sources.scale_answers import ScalePairs
        >>> PreferredAnswerBenchmark(ScalePairs(split="eval", n=20)).conditions()["n"]
        20
    """

    measures: ClassVar[Mapping[str, Bounds]] = {"preferred": SHARE, "exact_match": SHARE}

    source: PairSource
    name: str = "preferred answers"
    generation: Generation = Generation(max_new_tokens=64, batch_size=64)

    def __post_init__(self) -> None:
        ExactMatchBenchmark(_Chosen(()), self.name, self.generation)  # refuses the options

    def conditions(self) -> dict[str, str | int]:
        """Fingerprints of prompts, chosen and rejected answers, their number, and how answers are generated."""
        text = json.dumps([one.rejected for one in self._pairs], ensure_ascii=False)
        return {**self._questions.conditions(), "rejected": hashlib.sha256(text.encode()).hexdigest()[:16]}

    def groups(self) -> frozenset[str]:
        """See :meth:`Benchmark.groups`."""
        return frozenset(group_of(pair) for pair in self._pairs)

    def asked(self) -> list[SamplePrompt]:
        """See :meth:`Benchmark.asked`."""
        return [SamplePrompt(one.id, one.prompt, one.chosen, one.source, one.group) for one in self._pairs]

    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Ask the model every question; see :meth:`Benchmark.run`."""
        results = []
        for pair, one in zip(self._pairs, self._questions.run(policy, chat, progress=progress), strict=True):
            preferred = one.scores["exact_match"]
            right = float(preferred == 1 or one.answer.strip() == pair.rejected.strip())
            results.append(replace(one, scores={"preferred": preferred, "exact_match": right}))
        return results

    @cached_property
    def _pairs(self) -> tuple[PreferencePair, ...]:
        """The pairs, read once, so that before and after are the same ones."""
        return tuple(self.source.pairs(lambda _: True))

    @property
    def _questions(self) -> ExactMatchBenchmark:
        return ExactMatchBenchmark(_Chosen(self._pairs), self.name, self.generation)

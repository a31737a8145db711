"""How often a model, writing freely, gives the preferred one of two right answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from lit_align.data.chat import ChatFormat
from lit_align.evals.benchmark import SHARE, Benchmark, Bounds, ItemResult
from lit_align.evals.exact_match import ExactMatchBenchmark
from lit_align.models.policy import Policy
from lit_align.types import EvalItem, EvalSource, PairSource


@dataclass(frozen=True)
class _Chosen(EvalSource):
    """The prompts of pairs, with the chosen answers as gold answers."""

    source: PairSource

    def items(self) -> list[EvalItem]:
        return [
            EvalItem(pair.id, pair.prompt, pair.chosen, skill=pair.source, cluster=pair.group or pair.id)
            for pair in self.source.pairs(lambda _: True)
        ]


@dataclass(frozen=True)
class PreferredAnswerBenchmark(Benchmark):
    """Greedy answers to the prompts of pairs of which both answers are right, and one is preferred.

    The measures are ``preferred``, 1 if the answer is the chosen one, and ``exact_match``, 1 if it is the chosen or the
    rejected one: whether the model is right, in whichever form. Answers are compared as by
    :class:`~lit_align.evals.exact_match.ExactMatchBenchmark`.

    Args:
        source: Where the pairs come from; all of them are asked, so training must not see them.
        name: Names the benchmark in tables, files and log keys.
        max_new_tokens: Cap on the length of an answer in tokens, at least 1.
        batch_size: Prompts that are generated at once, at least 1.

    Raises:
        ValueError: ``name`` is empty, or ``max_new_tokens`` or ``batch_size`` is below 1.

    Example:
        >>> from lit_align.data.sources.scale_answers import ScalePairs
        >>> PreferredAnswerBenchmark(ScalePairs(split="eval", n=20)).conditions()["n"]
        20
    """

    measures: ClassVar[Mapping[str, Bounds]] = {"preferred": SHARE, "exact_match": SHARE}

    source: PairSource
    name: str = "preferred answers"
    max_new_tokens: int = 64
    batch_size: int = 64

    def __post_init__(self) -> None:
        self._questions()  # refuses the options

    def conditions(self) -> dict[str, str | int]:
        """Fingerprint of the prompts and chosen answers, their number, cap and batch size."""
        return self._questions().conditions()

    def groups(self) -> frozenset[str]:
        """See :meth:`Benchmark.groups`."""
        return frozenset(pair.group for pair in self.source.pairs(lambda _: True) if pair.group)

    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Ask the model every question; see :meth:`Benchmark.run`."""
        rejected = {pair.id: pair.rejected.strip() for pair in self.source.pairs(lambda _: True)}
        results = []
        for one in self._questions().run(policy, chat, progress=progress):
            preferred = one.scores["exact_match"]
            right = float(preferred == 1 or one.answer.strip() == rejected[one.id])
            results.append(replace(one, scores={"preferred": preferred, "exact_match": right}))
        return results

    def _questions(self) -> ExactMatchBenchmark:
        return ExactMatchBenchmark(_Chosen(self.source), self.name, self.max_new_tokens, self.batch_size)

"""Answers to the held-out prompts of a source of conversations, scored by a scorer."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial

from lit_align.data.chat import ChatFormat
from lit_align.data.mixture import content_hash, group_of, messages_hash
from lit_align.data.tokenising import BadRows
from lit_align.evals.answering import Generation, Prompt
from lit_align.evals.benchmark import SHARE, Benchmark, Bounds, ItemResult
from lit_align.evals.held_out import held_out, kept_conversations
from lit_align.evals.judge.contract import Judged, Scorer
from lit_align.evals.scored import scored, scorer_conditions
from lit_align.models.policy import Policy
from lit_align.types import Conversation, ConversationSource, SamplePrompt

logger = logging.getLogger(__name__)

_SUCCESS = "success"


@dataclass(frozen=True)
class Threshold:
    """What an answer must reach to count as a success.

    Args:
        measure: The measure of the scorer that is looked at, by its name: a number that is meant for a score of 1 to 10
            is never held against a raw reward.
        least: The smallest value of it that is a success.
    """

    measure: str
    least: float

    def check(self, measures: Mapping[str, Bounds]) -> None:
        """Refuse a threshold that the scorer cannot be held to.

        Args:
            measures: The scorer's.

        Raises:
            ValueError: The scorer has no such measure, or all answers would reach ``least``, or none could.
        """
        if self.measure not in measures:
            calibrate = ""
            if any(math.isinf(bound) for bounds in measures.values() for bound in bounds):
                calibrate = "; a reward model needs its calibration for a score"
            raise ValueError(
                f"threshold.measure: the scorer does not measure '{self.measure}'; it has: {', '.join(measures)}"
                f"{calibrate}"
            )
        low, high = measures[self.measure]
        if not (low < self.least <= high and math.isfinite(self.least)):
            raise ValueError(
                f"threshold.least must be above {low:g} and at most {high:g}, the bounds of '{self.measure}', got "
                f"{self.least}"
            )


@dataclass(frozen=True)
class ScoredAnswersBenchmark(Benchmark):
    """Answers to the prompts that training holds out, scored by a reward model, a judge, or likeness to a reference.

    The prompts are those of training, since they come of the same source; the last answer of each conversation is the
    reference. A run on prompts that training sees is refused by ``BenchmarkEvaluation``: the split is that of the data
    module, by the group of a conversation, or by its texts where it has none.

    The measures are those of the scorer, and ``success`` where there is a threshold: the share of the answers that
    reach it. Conversations of a group are one cluster; a line of the table is a source's name.

    Args:
        scorer: What scores the answers; its main measure is that of the benchmark.
        val_fraction: Share of the groups that are held out, in (0, 1]: ``data.val_fraction``; 1 takes a whole file that
            training does not see.
        source: Where prompts and references come from: the source of the training data.
        split_seed: ``data.split_seed``.
        limit: Prompts, at least 1, taken as whole groups at random; null takes all that are held out.
        threshold: What counts as a success; null counts none.
        max_prompt_length: Tokens of a prompt, >= 0; a longer one is dropped and counted. 0 sets no limit.
        bad_rows: ``data.bad_rows``: what a row does that its source cannot read or that the chat format refuses.
        generation: How the answers are generated.
        name: Names the benchmark in tables, files and log keys.

    Raises:
        ValueError: A value is out of its range, or the scorer does not measure what the threshold is for.
    """

    scorer: Scorer
    val_fraction: float
    source: ConversationSource
    split_seed: int = 0
    limit: int | None = None
    threshold: Threshold | None = None
    max_prompt_length: int = 0
    bad_rows: BadRows = "stop"
    generation: Generation = Generation(max_new_tokens=512)
    name: str = "scored-answers"

    def __post_init__(self) -> None:
        for option, holds, rule in (
            ("name", bool(self.name), "not be empty"),
            ("val_fraction", 0 < self.val_fraction <= 1, "be in (0, 1]"),
            ("limit", self.limit is None or self.limit >= 1, "be at least 1 or null"),
            ("max_prompt_length", self.max_prompt_length >= 0, "be >= 0"),
        ):
            if not holds:
                raise ValueError(f"{type(self).__name__}: {option} must {rule}, got {getattr(self, option)!r}")
        if self.threshold is not None:
            self.threshold.check(self.scorer.measures())

    @property
    def measures(self) -> Mapping[str, Bounds]:
        """Those of the scorer, and the share of successes where there is a threshold."""
        measures = dict(self.scorer.measures())
        return measures if self.threshold is None else {**measures, _SUCCESS: SHARE}

    @property
    def won_by(self) -> str:
        """The scorer's main measure."""
        return next(iter(self.scorer.measures()))

    def check(self) -> None:
        """Read the prompts, and have the scorer look whether it could work."""
        _ = self._held_out
        self.scorer.check()

    def conditions(self) -> dict[str, str | int]:
        """Fingerprint of prompts and references, their number, and how answers are generated and scored."""
        items = [(one.id, [asdict(message) for message in one.messages]) for one in self._held_out]
        return {
            "items": hashlib.sha256(json.dumps(items, ensure_ascii=False).encode()).hexdigest()[:16],
            "n": len(items),
            "max_prompt_length": self.max_prompt_length,
            "threshold": "none" if self.threshold is None else f"{self.threshold.measure} >= {self.threshold.least:g}",
            **self.generation.conditions(),
            **scorer_conditions(self.scorer),
        }

    def groups(self) -> frozenset[str]:
        """See :meth:`Benchmark.groups`.

        Each item under all names that it may have in training: its group's; where another source without groups reads
        the same rows, its prompt's (in pairs) and that of its texts (in conversations).
        """
        return frozenset(
            name
            for one in self._held_out
            for name in (group_of(one), messages_hash(one.messages[:-1]), content_hash(one))
        )

    def asked(self) -> list[SamplePrompt]:
        """See :meth:`Benchmark.asked`."""
        return [
            SamplePrompt(one.id, one.messages[:-1], one.messages[-1].content, one.source, one.group)
            for one in self._held_out
        ]

    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Ask every prompt; see :meth:`Benchmark.run`."""
        asked = self._rendered(chat)
        self.scorer.check_asked([_judged(one, "") for one, _ in asked])
        prompts = [prompt for _, prompt in asked]
        answers = self.generation.answers(policy, chat, prompts, progress=progress)
        judged = [_judged(one, answer.text) for (one, _), answer in zip(asked, answers, strict=True)]
        scores = scored(self.scorer, judged, policy.device, progress=progress and f"{progress}, scoring")
        return [
            ItemResult.of(
                answer,
                id=one.id,
                cluster=one.group or one.id,
                skill=one.source,
                gold=one.messages[-1].content,
                scores={**score, **self._success(score)},
            )
            for (one, _), answer, score in zip(asked, answers, scores, strict=True)
        ]

    def _success(self, score: Mapping[str, float]) -> dict[str, float]:
        if self.threshold is None:
            return {}
        return {_SUCCESS: float(score[self.threshold.measure] >= self.threshold.least)}

    def _rendered(self, chat: ChatFormat) -> list[tuple[Conversation, Prompt]]:
        """What is asked; the log says what is not, and why."""
        kept: list[tuple[Conversation, Prompt]] = []
        refused: list[str] = []
        too_long = 0
        for one in self._held_out:
            try:
                [prompt] = self.generation.render(chat, [(one.id, one.messages[:-1])])
            except ValueError as error:
                if self.bad_rows == "stop":
                    raise
                refused.append(str(error))
                continue
            if self.max_prompt_length and len(prompt.tokens) > self.max_prompt_length:
                too_long += 1
            else:
                kept.append((one, prompt))
        told = f"{too_long} over max_prompt_length = {self.max_prompt_length} dropped, {len(refused)} refused"
        told += f" ({refused[0]})" if refused else ""
        if not kept:
            raise ValueError(f"benchmark {self.name!r}: of {len(self._held_out)} prompts {told}: none is left")
        logger.info(f"{self.name}: {len(kept)} of {len(self._held_out)} prompts; {told}")
        return kept

    @cached_property
    def _held_out(self) -> list[Conversation]:
        """The conversations in the source's order, read once, so that before and after are the same ones."""
        found = held_out(
            partial(kept_conversations, self.source),
            val_fraction=self.val_fraction,
            split_seed=self.split_seed,
            limit=self.limit,
            bad_rows=self.bad_rows,
            what="conversation",
            benchmark=self.name,
        )
        return list(found.values())


def _judged(one: Conversation, answer: str) -> Judged:
    return Judged(one.id, one.messages[:-1], answer, reference=one.messages[-1].content)

"""Answers to questions about financial tables, by the official metric of TAT-QA."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from lit_align.data.chat import ChatFormat
from lit_align.data.mixture import first_held_out, is_held_out
from lit_align.data.sources.tat_qa.answers import AnswerFormat, PlainAnswer, gold_text, parse
from lit_align.data.sources.tat_qa.prompt import DefaultPrompt, TATQAPrompt
from lit_align.data.sources.tat_qa.reading import Context, Question, read_contexts
from lit_align.data.sources.tat_qa.scoring import gold_of
from lit_align.evals.answering import Answer, Generation
from lit_align.evals.benchmark import SHARE, Benchmark, Bounds, ItemResult
from lit_align.metrics.tat_qa import TATQAPrediction, score_answer
from lit_align.models.policy import Policy
from lit_align.types import Message, SamplePrompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Asked:
    """A question as the model is asked it."""

    context: Context
    question: Question
    text: str


@dataclass(frozen=True)
class TATQABenchmark(Benchmark):
    """Greedy answers to the questions of held-out tables, read back and scored by the official metric.

    The measures are ``exact_match`` and ``f1`` of answer and scale together, ``scale`` of the scale alone,
    ``legacy_accuracy`` by the lenient rule of the recipe (generous: see
    :func:`~lit_align.metrics.tat_qa.is_leniently_right`; a derivation is not read), and ``unparsed``: 1 where no answer
    can be read, which is wrong by the others. ``skill`` is the type of the answer; the questions of a table are one
    cluster.

    The prompts are those of training as long as template, answer format and split are, so a run on the tables that
    training sees is refused by ``BenchmarkEvaluation``.

    Args:
        val_fraction: Share of the tables that are held out, in (0, 1]: ``data.val_fraction``; 1 takes a whole file
            that training does not see.
        path: As of the source: a published file, or the id on the hub.
        hub_file: As of the source: the file that is read when ``path`` is the id on the hub.
        prompt: As of the source: the template.
        answer: As of the source: what the answers say; its instruction is a part of the prompt.
        group: As of the source: whether training splits by ``table`` or by ``question``.
        split_seed: ``data.split_seed``.
        limit: Questions, at least 1, taken as whole tables at random; a few more where the last table holds them. Null
            takes all that are held out.
        max_prompt_length: Tokens of a prompt, >= 0; a question whose prompt is longer is dropped, as in training, and
            counted in the log and on the progress bar. 0 sets no limit.
        generation: How the answers are generated; those about one table come together and share its prefill.
        name: Names the benchmark in tables, files and log keys.

    Raises:
        ValueError: A value is out of its range.

    Example:
        >>> TATQABenchmark(val_fraction=0.2, limit=0)
        Traceback (most recent call last):
        ValueError: TATQABenchmark: limit must be at least 1 or null, got 0
    """

    measures: ClassVar[Mapping[str, Bounds]] = {
        "exact_match": SHARE,
        "f1": SHARE,
        "scale": SHARE,
        "legacy_accuracy": SHARE,
        "unparsed": SHARE,
    }

    val_fraction: float
    path: str = "next-tat/TAT-QA"
    hub_file: str = "tatqa_dataset_train.json"
    prompt: TATQAPrompt = DefaultPrompt()
    answer: AnswerFormat = PlainAnswer()
    group: Literal["table", "question"] = "table"
    split_seed: int = 0
    limit: int | None = None
    max_prompt_length: int = 768
    generation: Generation = Generation(max_new_tokens=128)
    name: str = "tat-qa"

    def __post_init__(self) -> None:
        for option, holds, rule in (
            ("name", bool(self.name), "not be empty"),
            ("val_fraction", 0 < self.val_fraction <= 1, "be in (0, 1]"),
            ("limit", self.limit is None or self.limit >= 1, "be at least 1 or null"),
            ("max_prompt_length", self.max_prompt_length >= 0, "be >= 0"),
        ):
            if not holds:
                raise ValueError(f"TATQABenchmark: {option} must {rule}, got {getattr(self, option)!r}")

    def conditions(self) -> dict[str, str | int]:
        """Fingerprint of the prompts and gold answers, number of questions, limit, and how answers are generated."""
        items = [(one.question.uid, one.text, gold_text(one.question)) for one in self._asked]
        return {
            "items": hashlib.sha256(json.dumps(items, ensure_ascii=False).encode()).hexdigest()[:16],
            "n": len(items),
            "max_prompt_length": self.max_prompt_length,
            **self.generation.conditions(),
        }

    def groups(self) -> frozenset[str]:
        """See :meth:`Benchmark.groups`."""
        return frozenset(self._group(one.context, one.question) for one in self._asked)

    def asked(self) -> list[SamplePrompt]:
        """See :meth:`Benchmark.asked`."""
        return [
            SamplePrompt(one.question.uid, (Message("user", one.text),), "", self.name, one.context.uid)
            for one in self._asked
        ]

    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Ask every question; see :meth:`Benchmark.run`."""
        asked = ((one.question.uid, [Message("user", one.text)]) for one in self._asked)
        prompts = self.generation.render(chat, asked)
        most = self.max_prompt_length or max(len(prompt.tokens) for prompt in prompts)
        kept = [i for i, prompt in enumerate(prompts) if len(prompt.tokens) <= most]
        dropped = len(prompts) - len(kept)
        told = f"{dropped} of {len(prompts)} prompts over max_prompt_length = {self.max_prompt_length} dropped"
        if not kept:
            raise ValueError(f"benchmark {self.name!r}: {told}, none is left; raise it")
        logger.info(f"{self.name}: {len(kept)} questions; {told}")
        answers = self.generation.answers(
            policy,
            chat,
            [prompts[i] for i in kept],
            progress=f"{progress}, {told}" if progress and dropped else progress,
        )
        return [self._result(self._asked[i], answer) for i, answer in zip(kept, answers, strict=True)]

    def _result(self, one: _Asked, answer: Answer) -> ItemResult:
        items, scale = parse(answer.text)
        # For the lenient rule, which takes the first number of a text: all but a derivation.
        told = "\n".join([*items, scale])
        scores = score_answer(TATQAPrediction(items, scale, told), gold_of(one.question))
        return ItemResult.of(
            answer,
            id=one.question.uid,
            cluster=one.context.uid,
            skill=one.question.answer_type,
            gold=gold_text(one.question),
            scores={
                "exact_match": scores.exact_match,
                "f1": scores.f1,
                "scale": scores.scale_score,
                "legacy_accuracy": scores.legacy_accuracy,
                "unparsed": float(not items),
            },
        )

    def _group(self, context: Context, question: Question) -> str:
        return context.uid if self.group == "table" else question.uid

    @cached_property
    def _asked(self) -> list[_Asked]:
        """The questions in the file's order, read once, so that before and after are the same ones."""
        held_out = [
            (context, question)
            for context in read_contexts(self.path, self.hub_file)
            for question in context.questions
            if is_held_out(self._group(context, question), self.val_fraction, self.split_seed)
        ]
        if not held_out:
            raise ValueError(
                f"benchmark {self.name!r}: val_fraction = {self.val_fraction} with split_seed = {self.split_seed} "
                f"holds out no {self.group} of {self.path}; raise it, or set it to 1 for a file that training does not "
                "see"
            )
        if self.limit is not None:
            # Whole tables, also where the split goes through them: they are the clusters of the intervals.
            kept = first_held_out([context.uid for context, _ in held_out], self.limit, self.split_seed)
            held_out = [(context, question) for context, question in held_out if context.uid in kept]
        instruction = self.answer.instruction()
        return [_Asked(context, one, self.prompt.text(context, one, instruction)) for context, one in held_out]

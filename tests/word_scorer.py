"""A scorer that counts words, and a model that says what it is told to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_align.data.chat import ChatFormat
from lit_align.evals import answering
from lit_align.evals.generate import Completion
from lit_align.evals.judge.contract import Judged, Scorer

SPEAKER: Any = SimpleNamespace(causal_lm=object(), device=torch.device("cpu"))  # a policy whose model is never run


@dataclass(frozen=True)
class WordScorer(Scorer):
    """A score of 1 to 10, a point for each word, and the words themselves; remembers what it was shown."""

    unit: int = 1
    shown: list[Judged] = field(default_factory=list, compare=False)
    checks: list[str] = field(default_factory=list, compare=False)

    def measures(self) -> Mapping[str, tuple[float, float]]:
        return {"score": (1.0, 10.0), "words": (0.0, math.inf)}

    def identity(self) -> dict[str, str | int]:
        return {"scorer": "words", "unit": self.unit}

    def check(self) -> None:
        self.checks.append("checked")

    def scores(
        self, answers: Sequence[Judged], device: torch.device, *, progress: str | None = None
    ) -> list[dict[str, float]]:
        assert device == torch.device("cpu")
        assert len(answers) > 0
        self.shown.extend(answers)
        words = [len(one.answer.split()) / self.unit for one in answers]
        return [{"score": min(10.0, 1 + n), "words": n} for n in words]


def says(monkeypatch: pytest.MonkeyPatch, chat: ChatFormat, answer: Callable[[str], str]) -> list[list[str]]:
    """Have generation say what ``answer`` makes of a rendered prompt; returns the prompts, a list for each call."""
    asked: list[list[str]] = []

    def generate(model: object, prompts: Sequence[Sequence[int]], **options: Any) -> list[Completion]:
        assert model is SPEAKER.causal_lm
        texts = [chat.tokenizer.decode(list(ids), skip_special_tokens=False) for ids in prompts]
        asked.append(texts)
        written = [chat.tokenizer.encode(answer(text), add_special_tokens=False) for text in texts]
        cap = options["max_new_tokens"]
        return [Completion(tuple(ids[:cap]), len(ids) > cap) for ids in written]

    monkeypatch.setattr(answering, "generate", generate)
    return asked

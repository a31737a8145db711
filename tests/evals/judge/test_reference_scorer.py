"""Likeness to references: against a naive longest common subsequence, and what it refuses."""

from __future__ import annotations

import random
import re

import pytest
import torch

from lit_align.evals.judge import Judged, ReferenceScorer
from lit_align.types import Message

CPU = torch.device("cpu")


def score(answer: str, reference: str) -> float:
    judged = Judged("one", (Message("user", "?"),), answer, reference=reference)
    return ReferenceScorer().scores([judged], CPU)[0]["rouge_l"]


def naive(answer: str, reference: str) -> float:
    first, second = (re.findall(r"\w+", text.lower()) for text in (answer, reference))
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return 2 * table[-1][-1] / (len(first) + len(second))


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("It is 4", "It is 4, of course.", 0.75), ("The SAME words!", "the same words", 1.0), ("", "x", 0.0),
        ("...", "x", 0.0), ("Привет, мир", "привет МИР", 1.0), ("no", "yes", 0.0), ("b a", "a b", 0.5),
    ],
)  # fmt: skip
def test_likeness_by_hand(answer: str, reference: str, expected: float) -> None:
    assert score(answer, reference) == pytest.approx(expected)


def test_likeness_is_that_of_the_longest_common_subsequence() -> None:
    draw = random.Random(0)
    for _ in range(50):
        texts = [" ".join(draw.choices("abcdeж", k=draw.randint(1, 15))) for _ in range(2)]
        assert score(*texts) == pytest.approx(naive(*texts), abs=1e-6)


@pytest.mark.parametrize("reference", ["", "  ", "--"])
def test_a_missing_reference_is_an_error_that_names_the_answer(reference: str) -> None:
    with pytest.raises(ValueError, match=r"^one: has no reference answer"):
        score("4", reference)

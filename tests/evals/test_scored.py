"""Each rank scores its share, and all have all scores in the order of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from word_scorer import WordScorer

from lit_align.evals import scored as module
from lit_align.evals.judge.contract import Judged
from lit_align.evals.scored import scored, scorer_conditions
from lit_align.types import Message

CPU = torch.device("cpu")
ANSWERS = [Judged(str(n), (Message("user", "?"),), "word " * n) for n in range(5)]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_ranks_share_the_answers_and_all_have_the_scores(monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    alone = scored(WordScorer(), ANSWERS, CPU)
    scorers = [WordScorer() for _ in range(world)]
    parts: dict[int, Mapping[int, Any]] = {}

    def meet(own: Mapping[int, Any]) -> dict[int, Any]:
        parts[rank] = own
        return dict(sorted(pair for part in parts.values() for pair in part.items()))

    monkeypatch.setattr(module, "gathered", meet)
    together: list[dict[str, float]] = []
    for rank in range(world):  # one after another: the last one to meet has all
        monkeypatch.setattr(module, "rank_and_world", lambda rank=rank: (rank, world))
        together = scored(scorers[rank], ANSWERS, CPU)

    assert together == alone
    assert sorted(one.id for scorer in scorers for one in scorer.shown) == ["0", "1", "2", "3", "4"]
    assert max(len(scorer.shown) for scorer in scorers) == -(-5 // world)


def test_a_scorer_that_skips_an_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WordScorer, "scores", lambda *_, **__: [{"score": 1.0}])

    with pytest.raises(ValueError, match="WordScorer: gave 1 scores for 5 answers"):
        scored(WordScorer(), ANSWERS, CPU)


def test_a_scorers_conditions_hide_no_option_of_a_benchmark() -> None:
    assert scorer_conditions(WordScorer()) == {"judge.scorer": "words", "judge.unit": 1}

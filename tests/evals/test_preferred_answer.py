from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from lit_align.data.chat import ChatFormat
from lit_align.data.mixture import group_of
from lit_align.data.sources.scale_answers import ScalePairs
from lit_align.evals import answering
from lit_align.evals.generate import Completion
from lit_align.evals.preferred_answer import PreferredAnswerBenchmark
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Message, PairSource, PreferencePair

SPEAKER = SimpleNamespace(causal_lm=object())  # a policy whose model is never run
SAID = ["See cash 2019 47 in million.", "See cash 2019 47.", "See cash 2019 74.", " See cash 2019 47 in million. "]


@dataclass(frozen=True)
class Four(PairSource):
    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        return [
            PreferencePair((Message("user", f"{i}?"),), SAID[0], SAID[1], f"q{i}", "four", f"table {i % 2}")
            for i in range(4)
            if keep(f"table {i % 2}")
        ]


@dataclass(frozen=True)
class Listed(PairSource):
    listed: tuple[PreferencePair, ...]

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        return [pair for pair in self.listed if keep(group_of(pair))]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    chat = ChatFormat(load_tokenizer("tiny-qwen3"))

    def generate(model: object, prompts: list[list[int]], **options: Any) -> list[Completion]:
        ids = [chat.tokenizer.encode(text, add_special_tokens=False) for text in SAID]
        return [Completion(tuple(tokens), hit_cap=False) for tokens in ids]

    monkeypatch.setattr(answering, "generate", generate)
    return PreferredAnswerBenchmark(Four()).run(SPEAKER, chat)  # type: ignore[arg-type]


def test_the_chosen_form_alone_is_preferred(results: list[Any]) -> None:
    assert [one.scores["preferred"] for one in results] == [1, 0, 0, 1]


def test_either_form_is_right(results: list[Any]) -> None:
    assert [one.scores["exact_match"] for one in results] == [1, 1, 0, 1]


def test_pairs_of_a_table_are_one_cluster_and_known_to_the_guard_against_trained_items(results: list[Any]) -> None:
    assert [one.cluster for one in results] == ["table 0", "table 1", "table 0", "table 1"]
    assert PreferredAnswerBenchmark(Four()).groups() == {"table 0", "table 1"}


def test_pairs_that_stand_alone_are_known_to_the_guard_by_the_name_that_the_data_module_gives_them() -> None:
    lone = [replace(pair, group="") for pair in Four().pairs(lambda _: True)]
    assert PreferredAnswerBenchmark(Listed(tuple(lone))).groups() == {group_of(pair) for pair in lone}
    assert "" not in PreferredAnswerBenchmark(Listed(tuple(lone))).groups()


def test_other_rejected_answers_are_other_conditions() -> None:
    pairs = Four().pairs(lambda _: True)
    other = [replace(pairs[0], rejected="See cash 2019 4."), *pairs[1:]]
    before, after = (PreferredAnswerBenchmark(Listed(tuple(one))).conditions() for one in (pairs, other))
    assert before["items"] == after["items"]
    assert before != after


def test_other_pairs_are_other_conditions() -> None:
    first, second = (PreferredAnswerBenchmark(ScalePairs("eval", 5, seed)).conditions() for seed in (0, 1))
    assert first["items"] != second["items"]
    assert first["n"] == 5


@pytest.mark.parametrize("options", [{"name": ""}])
def test_an_option_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        PreferredAnswerBenchmark(Four(), **options)

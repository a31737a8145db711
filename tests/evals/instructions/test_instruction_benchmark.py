from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from followed_answers import followed_answer

from lit_align.data.chat import ChatFormat
from lit_align.evals import answering
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import ItemResult, check_scores
from lit_align.evals.generate import Completion
from lit_align.evals.instructions.benchmark import InstructionBenchmark
from lit_align.evals.instructions.reading import InstructionPrompt
from lit_align.models.loading import Weights, load_base
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Message

SPEAKER: Any = SimpleNamespace(causal_lm=object())  # a policy whose model is never run
OWN = InstructionBenchmark(generation=Generation(4000))  # the tiny tokenizer's tokens are short


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(load_tokenizer("tiny-qwen3"))


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch, chat: ChatFormat) -> Callable[..., list[ItemResult]]:
    """Runs a benchmark on a model that says what it is told to."""

    def run(benchmark: InstructionBenchmark, says: Callable[[InstructionPrompt], str]) -> list[ItemResult]:
        def generate(model: object, prompts: list[list[int]], **options: Any) -> list[Completion]:
            asked = [chat.prompt_ids([Message("user", prompt.text)], prompt.key) for prompt in benchmark.prompts]
            assert list(map(list, prompts)) == asked
            texts = [says(prompt) for prompt in benchmark.prompts]
            tokens = [chat.tokenizer.encode(text, add_special_tokens=False) for text in texts]
            return [Completion(tuple(ids), hit_cap=False) for ids in tokens]

        monkeypatch.setattr(answering, "generate", generate)
        return benchmark.run(SPEAKER, chat)

    return run


def mean(results: list[ItemResult], measure: str) -> float:
    return sum(item.scores[measure] for item in results) / len(results)


def test_answers_that_follow_score_one_and_others_nothing(answered: Callable[..., list[ItemResult]]) -> None:
    right, blank, echo = (answered(OWN, says) for says in (followed_answer, lambda _: " \n", lambda p: p.text))

    check_scores(OWN, right)
    assert {tuple(item.scores.values()) for item in right} == {(1.0, 1.0, 1.0, 1.0)}
    assert {tuple(item.scores.values()) for item in blank} == {(0.0, 0.0, 0.0, 0.0)}
    assert mean(echo, "prompt_strict") == 0
    assert 0 < mean(echo, "instruction_strict") < 0.5


def test_talk_around_the_answer_costs_the_strict_score_alone(answered: Callable[..., list[ItemResult]]) -> None:
    results = answered(OWN, lambda prompt: f"Sure!\n{followed_answer(prompt)}\nWas that it?")

    assert mean(results, "prompt_loose") > 0.9
    assert mean(results, "prompt_strict") < 0.7


def test_a_thought_does_not_count(answered: Callable[..., list[ItemResult]]) -> None:
    results = answered(OWN, lambda prompt: f"<think>\nHm, a, b.\n</think>\n\n{followed_answer(prompt)}")

    assert mean(results, "prompt_strict") == 1.0
    assert all(item.think_tokens for item in results)


def test_results_say_what_was_asked(answered: Callable[..., list[ItemResult]]) -> None:
    results = answered(OWN, followed_answer)

    first = results[0]
    assert (first.id, first.cluster, first.skill) == ("en-01", "en-01", "several")
    assert "Describe how the penguin lives." in first.prompt
    assert first.gold.startswith("keywords:frequency(keyword='penguin', frequency=2, relation='at least'); ")
    assert {item.skill for item in results} == {
        "several", "startend", "detectable_format", "length_constraints", "language"
    }  # fmt: skip


def test_the_log_says_what_scores_without_a_model(
    answered: Callable[..., list[ItemResult]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lit_align.evals.instructions.benchmark"):
        answered(replace(OWN, name="ours"), followed_answer)

    [message] = caplog.messages
    assert message == "ours: 89 prompts; prompt_strict without a model: echo 0.000, best constant 0.011"


def test_a_limit_takes_a_random_part_that_the_seed_decides() -> None:
    every = [prompt.key for prompt in OWN.prompts]
    taken = [[prompt.key for prompt in replace(OWN, limit=20, seed=seed).prompts] for seed in (0, 0, 1)]

    assert taken[0] == taken[1] != taken[2]
    assert [len(keys) for keys in taken] == [20, 20, 20]
    assert taken[0] != every[:20]
    assert taken[0] == [key for key in every if key in taken[0]]
    assert [prompt.key for prompt in replace(OWN, limit=1000).prompts] == every


def test_conditions_change_with_prompts_parameters_and_generation(tmp_path: Path) -> None:
    def conditions(text: str, words: int, **options: Any) -> dict[str, str | int]:
        row = {"key": 1, "prompt": text, "instruction_id_list": ["length_constraints:number_words"]}
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        file.write_text(json.dumps({**row, "kwargs": [{"num_words": words, "relation": "less than"}]}) + "\n")
        return InstructionBenchmark(str(file), **options).conditions()

    before = conditions("Say hi.", 5)

    assert conditions("Say hi.", 5, name="other") == before
    others = [
        conditions("Say ho.", 5), conditions("Say hi.", 6), conditions("Say hi.", 5, generation=Generation(9)),
    ]  # fmt: skip
    assert all(other != before for other in others)


def test_every_prompt_is_a_question_that_training_may_not_hold() -> None:
    assert OWN.published_questions() == [prompt.text for prompt in OWN.prompts]
    assert len(set(OWN.published_questions())) == 89


def test_check_reads_the_file() -> None:
    OWN.check()
    with pytest.raises(FileNotFoundError, match="no file of instructions at absent"):
        InstructionBenchmark("absent").check()


@pytest.mark.parametrize("options", [{"name": ""}, {"limit": 0}])
def test_unusable_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"InstructionBenchmark: {next(iter(options))} must"):
        InstructionBenchmark(**options)


def test_a_real_model_is_asked_and_scored(chat: ChatFormat) -> None:
    policy: Any = SimpleNamespace(causal_lm=load_base("tiny-qwen3", Weights(dtype="float32")))
    benchmark = replace(OWN, limit=3, generation=Generation(5))

    results = benchmark.run(policy, chat)

    check_scores(benchmark, results)
    assert [item.id for item in results] == [prompt.key for prompt in benchmark.prompts]
    assert all(0 < item.new_tokens <= 5 for item in results)

"""Questions of held-out tables, asked as in training and scored by the official metric."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tat_qa_tables import table_of, write

from lit_align.data.chat import ChatFormat
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sources.tat_qa.answers import AnswerFormat, DerivationThenAnswer, PlainAnswer, gold_text
from lit_align.data.sources.tat_qa.prompt import DefaultPrompt, RecipePrompt, TATQAPrompt
from lit_align.data.sources.tat_qa.reading import Question
from lit_align.data.sources.tat_qa.recipe import RecipeNegatives
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.evals import answering
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import ItemResult, check_scores
from lit_align.evals.generate import Completion
from lit_align.evals.tat_qa import TATQABenchmark
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Message

DEV = Path("/work/shared/data/tat-qa/tatqa_dataset_dev.json")
SPEAKER = SimpleNamespace(causal_lm=object())  # a policy whose model is never run
RIGHT = {"exact_match": 1.0, "f1": 1.0, "scale": 1.0, "legacy_accuracy": 1.0, "unparsed": 0.0}


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(load_tokenizer("tiny-qwen3"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("tat-qa"), [table_of(i) for i in range(24)])


@pytest.fixture
def every(path: str) -> TATQABenchmark:
    # The tiny tokenizer's tokens are short.
    return TATQABenchmark(1.0, path, max_prompt_length=0, generation=Generation(1000))


Said = Callable[[Question], str]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch, chat: ChatFormat) -> Callable[..., list[ItemResult]]:
    """Runs a benchmark on a model that says what it is told to; keeps what generation was asked."""

    def run(benchmark: TATQABenchmark, says: Said, progress: str | None = None) -> list[ItemResult]:
        def generate(model: object, prompts: list[list[int]], **options: Any) -> list[Completion]:
            run.options = {"model": model, **options}  # type: ignore[attr-defined]
            limit = benchmark.max_prompt_length or 10**6
            asked = [one for one in benchmark._asked if len(chat.prompt_ids(messages_of(one))) <= limit]
            assert list(map(list, prompts)) == [chat.prompt_ids(messages_of(one)) for one in asked]
            texts = [says(one.question) for one in asked]
            tokens = [chat.tokenizer.encode(text, add_special_tokens=False) for text in texts]
            return [
                Completion(tuple(ids[: options["max_new_tokens"]]), len(ids) > options["max_new_tokens"])
                for ids in tokens
            ]

        monkeypatch.setattr(answering, "generate", generate)
        return benchmark.run(SPEAKER, chat, progress=progress)  # type: ignore[arg-type]

    return run


def messages_of(asked: Any) -> list[Message]:
    return [Message("user", asked.text)]


def gold(question: Question) -> str:
    return gold_text(question)


@pytest.mark.parametrize("answer", [PlainAnswer(), DerivationThenAnswer()])
def test_gold_answers_are_all_right(
    every: TATQABenchmark, answered: Callable[..., list[ItemResult]], answer: AnswerFormat
) -> None:
    benchmark = replace(every, answer=answer)

    results = answered(benchmark, lambda question: answer.text(gold(question), question.derivation))

    assert {item.skill for item in results} == {"arithmetic", "span", "multi-span", "count"}
    assert all(item.scores == RIGHT for item in results)
    check_scores(benchmark, results)


@pytest.mark.skipif(not DEV.exists(), reason="the published file is not here")
def test_gold_answers_of_the_published_file_are_all_right(answered: Callable[..., list[ItemResult]]) -> None:
    benchmark = TATQABenchmark(0.15, str(DEV), max_prompt_length=0, generation=Generation(1000))

    results = answered(benchmark, gold)

    assert len(results) > 200
    assert all(item.scores == RIGHT for item in results)


def test_an_answer_with_another_scale_number_or_item_is_wrong(
    every: TATQABenchmark, answered: Callable[..., list[ItemResult]]
) -> None:
    without_scale = answered(every, lambda question: gold(question).splitlines()[0])
    other = answered(every, lambda question: f"7{gold(question)}")

    for item, question in zip(without_scale, (one.question for one in every._asked), strict=True):
        assert item.scores["scale"] == float(question.scale == "")
        if question.answer_type == "multi-span":
            assert item.scores["exact_match"] == 0
    assert {item.scores["exact_match"] for item in other} == {0.0}


@pytest.mark.parametrize("text", ["", " \n", "Derivation: 1 + 1"])
def test_what_cannot_be_read_is_wrong_and_counted(
    every: TATQABenchmark, answered: Callable[..., list[ItemResult]], text: str
) -> None:
    for item in answered(every, lambda _: text):
        assert item.scores == {**dict.fromkeys(RIGHT, 0.0), "unparsed": 1.0}


def test_results_record_the_question_and_the_cap(
    every: TATQABenchmark, answered: Callable[..., list[ItemResult]]
) -> None:
    benchmark = replace(every, generation=Generation(6, batch_size=3))

    results = answered(benchmark, gold, "label")

    for item, one in zip(results, benchmark._asked, strict=True):
        assert (item.id, item.cluster, item.skill) == (one.question.uid, one.context.uid, one.question.answer_type)
        assert item.gold == gold(one.question)
        assert gold(one.question).startswith(item.answer)
        assert item.hit_cap == (item.answer != item.gold)
    assert {item.hit_cap for item in results} == {True, False}
    options = answered.options  # type: ignore[attr-defined]
    assert (options["max_new_tokens"], options["batch_size"], options["progress"]) == (6, 3, "label")
    assert options["model"] is SPEAKER.causal_lm


@pytest.mark.parametrize("prompt", [DefaultPrompt(), DefaultPrompt("gold"), DefaultPrompt(max_passage_chars=80)])
@pytest.mark.parametrize("answer", [PlainAnswer(), DerivationThenAnswer()])
def test_questions_are_asked_as_in_training(
    path: str, chat: ChatFormat, answered: Callable[..., list[ItemResult]], prompt: TATQAPrompt, answer: AnswerFormat
) -> None:
    pairs = TATQA(path, prompt=prompt, answer=answer, limit=4).pairs(lambda _: True)
    benchmark = TATQABenchmark(1.0, path, prompt=prompt, answer=answer, max_prompt_length=0)

    asked = {item.id: item.prompt for item in answered(benchmark, gold)}

    for pair in pairs:
        assert asked[pair.id] == chat.tokenizer.decode(chat.prompt_ids(pair.prompt))


@pytest.mark.parametrize("group", ["table", "question"])
def test_what_is_asked_is_what_training_holds_out(path: str, group: Any) -> None:
    split: dict[str, Any] = {"val_fraction": 0.3, "split_seed": 2}
    source = TATQA(path, group=group, negatives=RecipeNegatives())  # the quickest
    data = PreferenceDataModule(sources=[source], token_budget=20_000, window=8, **split)
    data.setup("fit")
    benchmark = TATQABenchmark(path=path, group=group, **split)

    assert {tree.name.partition(" part ")[0] for tree in data._validation} <= benchmark.groups()
    assert not benchmark.groups() & data.trained_groups
    every_group = replace(benchmark, val_fraction=1.0).groups()
    assert benchmark.groups() | data.trained_groups <= every_group
    other = replace(benchmark, split_seed=3)
    assert other.groups() & data.trained_groups, "with another seed the two would overlap"


def test_a_limit_takes_whole_tables(path: str) -> None:
    whole = TATQABenchmark(0.9, path)
    limited = replace(whole, limit=15)

    tables = {one.context.uid: len(one.context.questions) for one in limited._asked}
    assert 15 <= len(limited._asked) == sum(tables.values()) < 15 + 8
    order = [one.context.uid for one in whole._asked]
    assert set(tables) < set(order)
    assert list(tables) != list(dict.fromkeys(order))[: len(tables)], "a random sample, not the file's beginning"


def test_prompts_over_the_limit_are_dropped_and_counted(
    every: TATQABenchmark,
    chat: ChatFormat,
    answered: Callable[..., list[ItemResult]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes = {one.question.uid: len(chat.prompt_ids(messages_of(one))) for one in every._asked}
    limit = sorted(sizes.values())[len(sizes) // 2]
    caplog.set_level(logging.INFO)

    results = answered(replace(every, max_prompt_length=limit), gold, "label")

    fit = [uid for uid, size in sizes.items() if size <= limit]
    assert [item.id for item in results] == fit
    told = f"{len(sizes) - len(fit)} of {len(sizes)} prompts over max_prompt_length = {limit} dropped"
    assert told in caplog.text
    assert answered.options["progress"] == f"label, {told}"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="none is left"):
        answered(replace(every, max_prompt_length=1), gold)


def test_a_file_without_answers_is_refused(tmp_path: Path) -> None:
    context = table_of(0)
    context["questions"] = [{key: one[key] for key in ("uid", "order", "question")} for one in context["questions"]]

    with pytest.raises(ValueError, match=r"this file holds questions without answers .*use tatqa_dataset_test_gold"):
        TATQABenchmark(1.0, write(tmp_path, [context], "tatqa_dataset_test.json")).conditions()


def test_a_split_that_holds_out_nothing_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="'tat-qa': val_fraction = 1e-09 with split_seed = 0 holds out no table"):
        TATQABenchmark(1e-9, path).conditions()


def test_conditions_change_with_questions_prompts_and_settings(path: str, tmp_path: Path) -> None:
    benchmark = TATQABenchmark(0.9, path)
    changed = json.loads(Path(path).read_text(encoding="utf-8"))
    for context in changed:
        context["questions"][0]["question"] += "?"
    others: list[dict[str, Any]] = [
        {"generation": Generation(5)}, {"max_prompt_length": 5}, {"generation": Generation(1000, thinking=True)},
        {"limit": 9}, {"split_seed": 1},
        {"prompt": RecipePrompt()}, {"answer": DerivationThenAnswer()}, {"path": write(tmp_path, changed)},
    ]  # fmt: skip

    assert benchmark.conditions() == replace(benchmark, name="other").conditions()
    for change in others:
        assert replace(benchmark, **change).conditions() != benchmark.conditions()


@pytest.mark.parametrize(
    "options", [{"name": ""}, {"val_fraction": 0.0}, {"val_fraction": 1.5}, {"limit": 0}, {"max_prompt_length": -1},
                {"limit": -1}]
)  # fmt: skip
def test_unusable_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"TATQABenchmark: {next(iter(options))} must"):
        TATQABenchmark(**{"val_fraction": 0.5, **options})

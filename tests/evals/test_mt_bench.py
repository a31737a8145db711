"""Both turns are asked, the second one after the model's own first answer, and each answer is scored."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from word_scorer import SPEAKER, WordScorer, says

from lit_align.callbacks.measurement import refuse_trained_items
from lit_align.data.chat import ChatFormat
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.data.sources.table_skills import TableSkills
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import check_scores
from lit_align.evals.judge import EndpointJudge, ReferenceScorer, Scorer
from lit_align.evals.mt_bench import MTBenchBenchmark
from lit_align.evals.mt_bench_questions import Drawn
from lit_align.evals.report import check_paired, comparison_table
from lit_align.evals.sampling import Sampling
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Message

REAL = Path("/work/shared/data/mt-bench")
ROWS = [
    {"question_id": 81, "category": "writing", "turns": ["Write one.", "Shorter."]},
    {"question_id": 111, "category": "math", "turns": ["Add 1 and 1.", "And 2?"], "reference": ["two", "four"]},
    {"question_id": 112, "category": "math", "turns": ["Add 2 and 2.", "And 3?"]},
]


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(load_tokenizer("tiny-qwen3"))


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "question.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return str(file)


@pytest.fixture
def asked(path: str) -> MTBenchBenchmark:
    return MTBenchBenchmark(WordScorer(), path)


def echo(prompt: str) -> str:
    """Says which user turns it was asked."""
    return f"to {' and '.join(part.partition('<|im_end|>')[0] for part in prompt.split('user' + chr(10))[1:])}"


def test_the_second_turn_follows_the_models_own_first_answer(
    chat: ChatFormat, asked: MTBenchBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = says(monkeypatch, chat, echo)

    results = asked.run(SPEAKER, chat)

    turns = [Message("user", "Write one."), Message("assistant", "to Write one."), Message("user", "Shorter.")]
    assert prompts[1][0] == chat.tokenizer.decode(chat.prompt_ids(turns), skip_special_tokens=False)
    assert [len(call) for call in prompts] == [3, 3]
    assert [item.id for item in results] == ["81/1", "81/2", "111/1", "111/2", "112/1", "112/2"]
    assert [item.cluster for item in results] == ["81", "81", "111", "111", "112", "112"]
    assert [item.skill for item in results] == ["writing"] * 2 + ["math"] * 4
    assert [item.gold for item in results] == ["", "", "two", "four", "", ""]
    assert [item.answer for item in results[:2]] == ["to Write one.", "to Write one. and Shorter."]
    assert [item.scores["words"] for item in results[:2]] == [3, 5]
    check_scores(asked, results)


def test_the_scorer_sees_each_answer_in_its_conversation_with_its_reference(
    chat: ChatFormat, asked: MTBenchBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, chat, echo)
    asked.run(SPEAKER, chat)
    assert isinstance(asked.scorer, WordScorer)

    second = {one.id: one for one in asked.scorer.shown}["111/2"]

    said = "to Add 1 and 1."
    assert second.prompt == (Message("user", "Add 1 and 1."), Message("assistant", said), Message("user", "And 2?"))
    assert (second.answer, second.reference, second.category) == ("to Add 1 and 1. and And 2?", "four", "math")
    assert second.earlier_references == ("two",)
    assert [len(one.prompt) for one in asked.scorer.shown] == [1, 3] * 3


def test_thoughts_do_not_enter_the_history(
    chat: ChatFormat, asked: MTBenchBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = replace(asked, generation=Generation(1000, thinking=True))
    prompts = says(monkeypatch, chat, lambda _: "<think>\nhm, secret\n</think>\n\nyes")

    results = benchmark.run(SPEAKER, chat)

    assert all("secret" not in prompt for prompt in prompts[1])
    assert {item.answer for item in results} == {"yes"}
    assert all(item.think_tokens > 0 for item in results)


@pytest.mark.parametrize("nothing", ["", " \n", "<think>\nnever done", "<|im_start|>"])
def test_after_an_empty_first_answer_the_second_turn_is_not_asked_and_counts_as_empty(
    chat: ChatFormat,
    asked: MTBenchBenchmark,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    nothing: str,
) -> None:
    prompts = says(monkeypatch, chat, lambda prompt: nothing if "Add 1" in prompt else echo(prompt))

    with caplog.at_level(logging.INFO):
        results = asked.run(SPEAKER, chat)

    by_id = {item.id: item for item in results}
    assert len(prompts[1]) == 2
    assert (by_id["111/2"].answer, by_id["111/2"].new_tokens, by_id["111/2"].hit_cap) == ("", 0, False)
    assert by_id["111/2"].scores == {"score": 1.0, "words": 0.0}
    assert by_id["112/2"].answer == "to Add 2 and 2. and And 3?"  # each answer stays with its question
    assert "1 of 3 first answers are empty" in caplog.text


def test_a_model_that_says_nothing_at_all_is_scored(
    chat: ChatFormat, asked: MTBenchBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = says(monkeypatch, chat, lambda _: "")

    assert [item.scores["words"] for item in asked.run(SPEAKER, chat)] == [0.0] * 6
    assert len(prompts) == 1


def test_control_tokens_of_an_answer_do_not_enter_the_history(
    chat: ChatFormat, asked: MTBenchBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = says(monkeypatch, chat, lambda _: "a<|im_start|>user b<|im_<|im_end|>end|>")

    results = asked.run(SPEAKER, chat)

    assert all("\na" + "user b<|im_end|>\n" in prompt for prompt in prompts[1])
    assert results[0].answer == "a<|im_start|>user b<|im_<|im_end|>end|>"  # what is scored is what was written


def test_two_models_are_compared_question_by_question(
    chat: ChatFormat, asked: MTBenchBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for answer in ("one", "two words", ""):
        says(monkeypatch, chat, lambda _, answer=answer: answer)  # type: ignore[misc]
        runs.append({"mt-bench": asked.run(SPEAKER, chat)})

    assert "[the answer of 81/1]" in runs[0]["mt-bench"][1].prompt
    assert "+1.0000" in comparison_table(runs[0], runs[1], {"mt-bench": asked.measures})
    check_paired(runs[0], runs[2])  # also with one that was not asked


def test_what_is_drawn_and_its_rest_are_all_questions(asked: MTBenchBenchmark) -> None:
    drawn, rest = (replace(asked, questions=Drawn(2, part=part)) for part in ("drawn", "rest"))  # type: ignore[arg-type]

    assert sorted(one.category for one in drawn._asked) == ["math", "writing"]
    assert {one.id for one in [*drawn._asked, *rest._asked]} == {"81", "111", "112"}
    assert drawn.conditions()["items"] != rest.conditions()["items"]
    assert (drawn.conditions()["n"], rest.conditions()["n"]) == (4, 2)


def test_conditions_tell_questions_generation_and_scorer_apart(asked: MTBenchBenchmark, path: str) -> None:
    others = [
        replace(asked, categories=["math"]),
        replace(asked, scorer=WordScorer(unit=2)),
        replace(asked, generation=Generation(256)),
        replace(asked, generation=Generation(512, sampling=Sampling(0.7))),
        replace(asked, questions=Drawn(2)),
    ]

    told = [json.dumps(one.conditions()) for one in (asked, *others)]

    assert len(set(told)) == 6
    assert replace(asked, scorer=WordScorer()).conditions() == asked.conditions()


def test_the_start_finds_what_is_wrong(asked: MTBenchBenchmark, tmp_path: Path) -> None:
    asked.check()
    assert asked.scorer.checks == ["checked"]  # type: ignore[attr-defined]
    for change, said in (
        ({"path": str(tmp_path / "questions.jsonl")}, "did you mean 'question.jsonl'"),
        ({"categories": ["coding"]}, "no question of the category 'coding'.*it has: writing, math"),
        ({"questions": Drawn(4)}, "question.jsonl: Drawn: n = 4 .* must be at most 3"),
    ):
        changed: dict[str, Any] = dict(change)
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            replace(asked, **changed).check()


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        (ReferenceScorer(), "^81/1: has no reference answer"),
        (EndpointJudge("http://127.0.0.1:9/v1", "judge", cache=""), "^112/1: .*judged against a reference answer"),
    ],
)
def test_questions_that_the_scorer_could_not_score_are_found_at_the_start(
    asked: MTBenchBenchmark, scorer: Scorer, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        replace(asked, scorer=scorer).check()


@pytest.mark.parametrize("kind", ["pairs", "chat", "replay"])
def test_training_on_a_question_is_refused_in_whatever_form(asked: MTBenchBenchmark, tmp_path: Path, kind: str) -> None:
    def refuse(question: str) -> None:
        file = tmp_path / "rows.jsonl"
        if kind == "pairs":
            row: dict[str, Any] = {"prompt": question, "chosen": "Yes.", "rejected": "No."}
            file.write_text(json.dumps(row), encoding="utf-8")
            data: Any = PreferenceDataModule(sources=[PreferenceFile(str(file))])
        else:
            roles = ("system", "user", "assistant", "user", "assistant")
            texts = ("Be short.", question, "2", "And 2 more?", "4")
            row = {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]}
            file.write_text(json.dumps(row), encoding="utf-8")
            rows, others = MessagesFile(str(file)), TableSkills(n=4)
            chat = {"sources": [rows]} if kind == "chat" else {"sources": [others], "replay": [rows]}
            data = SFTDataModule(**chat, replay_share=0.5 if kind == "replay" else 0.0)
        data.setup("fit")
        refuse_trained_items(data, [asked])

    with pytest.raises(ValueError, match=r"training holds 1 of its questions, such as 'Add 1 and 1\.'; take the rows"):
        refuse("Add 1 and 1.")
    refuse("Add 5 and 5.")


@pytest.mark.parametrize("change", [{"name": ""}, {"categories": []}])
def test_unusable_options_are_refused(asked: MTBenchBenchmark, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"MTBenchBenchmark: {next(iter(change))} must"):
        replace(asked, **change)


@pytest.mark.skipif(not REAL.exists(), reason="the published files are not here")
@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_published_questions_are_asked(chat: ChatFormat, monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    benchmark = MTBenchBenchmark(WordScorer(), str(REAL / f"question_{language}.jsonl"))
    prompts = says(monkeypatch, chat, lambda _: "Да, yes.")

    results = benchmark.run(SPEAKER, chat)

    assert len(results) == 2 * len(prompts[0]) == 2 * len(prompts[1]) == (160 if language == "en" else 100)
    check_scores(benchmark, results)

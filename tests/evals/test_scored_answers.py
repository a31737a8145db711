"""What training holds out is asked as in training, scored, and refused where training sees it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from word_scorer import SPEAKER, WordScorer, says

from lit_align.data.chat import ChatFormat
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.finance_instruct import FinanceInstruct
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.data.sources.reddit_finance import RedditFinance
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import SHARE, check_scores
from lit_align.evals.finance_instruct import FinanceInstructBenchmark
from lit_align.evals.judge import ReferenceScorer
from lit_align.evals.reddit_reply import RedditReplyBenchmark
from lit_align.evals.scored_answers import ScoredAnswersBenchmark, Threshold
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Conversation, ConversationSource, Message

N = 40


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(load_tokenizer("tiny-qwen3"))


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def finance(tmp_path: Path) -> FinanceInstruct:
    rows = [{"system": "\n", "user": f"What is {n} %?", "assistant": f"A share of {n}."} for n in range(N)]
    again = [{"system": "Be short.", "user": f"What is {n} %?", "assistant": "A share."} for n in range(N)]
    return FinanceInstruct(write(tmp_path / "finance.jsonl", rows + again))


@pytest.fixture
def reddit(tmp_path: Path) -> RedditFinance:
    rows = [
        {"id": f"p{n}", "title": f"Sell {n}?", "selftext": "I hold bonds.", "subreddit": "investing",
         "body": f"{liked} of {n}", "comment_normalized_score": score, "z_score": 1.0}
        for liked, score in (("fine", 0.2), ("best", 0.9)) for n in range(N)
    ]  # fmt: skip
    return RedditFinance(write(tmp_path / "reddit.jsonl", rows))


@dataclass(frozen=True)
class Listed(ConversationSource):
    """Conversations as they are given."""

    listed: tuple[Conversation, ...]

    def conversations(self) -> list[Conversation]:
        return list(self.listed)


def seen(benchmark: ScoredAnswersBenchmark, data: SFTDataModule | PreferenceDataModule) -> frozenset[str]:
    """What `BenchmarkEvaluation` refuses at the start."""
    data.setup("fit")
    return data.trained_groups & benchmark.groups()


def prompts_of(benchmark: ScoredAnswersBenchmark) -> set[str]:
    return {one.messages[-2].content for one in benchmark._held_out}


@pytest.mark.parametrize("kind", ["finance", "reddit"])
def test_training_sees_no_prompt_of_the_benchmark_and_the_benchmark_all_others(
    finance: FinanceInstruct, reddit: RedditFinance, kind: str
) -> None:
    source = finance if kind == "finance" else reddit
    data = SFTDataModule(sources=[source], val_fraction=0.3, split_seed=3)
    benchmark = (
        FinanceInstructBenchmark(WordScorer(), 0.3, finance, split_seed=3)
        if kind == "finance"
        else RedditReplyBenchmark(WordScorer(), 0.3, reddit, split_seed=3)
    )
    groups = {one.group for one in source.conversations()}
    held_out = {one.group for one in benchmark._held_out}

    assert not seen(benchmark, data)
    assert 0 < len(held_out) < N == len(groups)
    assert data.trained_groups == groups - held_out
    assert held_out < benchmark.groups()


@pytest.mark.parametrize("change", [{"val_fraction": 0.5}, {"split_seed": 4}])
def test_a_benchmark_of_another_split_is_seen(finance: FinanceInstruct, change: dict[str, Any]) -> None:
    data = SFTDataModule(sources=[finance], val_fraction=0.3, split_seed=3)
    benchmark = FinanceInstructBenchmark(WordScorer(), 0.3, finance, split_seed=3)

    assert not seen(benchmark, data)
    assert seen(replace(benchmark, **change), data)


def test_the_same_question_under_another_system_turn_is_seen(finance: FinanceInstruct) -> None:
    data = SFTDataModule(sources=[replace(finance, system="You advise.")], val_fraction=0.3)

    assert not seen(FinanceInstructBenchmark(WordScorer(), 0.3, finance), data)
    assert seen(FinanceInstructBenchmark(WordScorer(), 0.3, finance, split_seed=1), data)


def test_training_that_reads_the_same_rows_without_groups_is_seen(finance: FinanceInstruct, tmp_path: Path) -> None:
    benchmark = FinanceInstructBenchmark(WordScorer(), 1.0, finance)
    one = benchmark._held_out[-1]  # with a system turn
    turns = [{"role": turn.role, "content": turn.content} for turn in one.messages]
    talks = MessagesFile(write(tmp_path / "talks.jsonl", [{"messages": turns}]))
    pair = {"prompt": turns[:-1], "chosen": "Yes.", "rejected": "No."}
    pairs = PreferenceFile(write(tmp_path / "pairs.jsonl", [pair]))

    assert len(seen(benchmark, SFTDataModule(sources=[talks]))) == 1
    assert len(seen(benchmark, PreferenceDataModule(sources=[pairs]))) == 1


def test_prompts_are_those_of_training_and_answers_are_scored(
    chat: ChatFormat, reddit: RedditFinance, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = RedditReplyBenchmark(WordScorer(), 0.3, reddit)
    prompts = says(monkeypatch, chat, lambda _: "Hold on to them.")

    results = benchmark.run(SPEAKER, chat)

    [asked] = prompts
    expected = [chat.prompt_ids(one.messages[:-1]) for one in reddit.conversations() if one.group in benchmark.groups()]
    assert asked == [chat.tokenizer.decode(ids, skip_special_tokens=False) for ids in expected]
    assert len({item.id for item in results}) == len(results) > 0
    assert all(item.id == item.cluster and item.skill == "reddit-finance" for item in results)
    assert all(item.gold == f"best of {item.id[1:]}" and item.scores["words"] == 4 for item in results)
    shown = benchmark.scorer.shown  # type: ignore[attr-defined]
    assert [(one.id, one.reference) for one in shown] == [(item.id, item.gold) for item in results]
    assert shown[0].prompt == benchmark._held_out[0].messages[:-1]
    check_scores(benchmark, results)


def test_all_answers_to_a_question_are_one_cluster(
    chat: ChatFormat, finance: FinanceInstruct, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, chat, lambda _: "")

    results = FinanceInstructBenchmark(WordScorer(), 0.3, finance).run(SPEAKER, chat)

    assert len({item.cluster for item in results}) * 2 == len(results)
    assert {item.scores["score"] for item in results} == {1.0}


def test_the_success_rate_is_the_share_that_reaches_the_threshold(
    chat: ChatFormat, finance: FinanceInstruct, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = FinanceInstructBenchmark(WordScorer(), 1.0, finance, threshold=Threshold("score", 4.0))
    long = {"What is 1 %?", "What is 2 %?"}
    says(monkeypatch, chat, lambda text: "a b c" if any(one in text for one in long) else "a b")

    results = benchmark.run(SPEAKER, chat)

    assert benchmark.measures["success"] == SHARE
    assert list(benchmark.measures) == ["score", "words", "success"]
    assert sum(item.scores["success"] for item in results) == 4
    check_scores(benchmark, results)


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        (Threshold("mark", 7), "the scorer does not measure 'mark'; it has: score, words; a reward model needs"),
        (Threshold("score", 1), "threshold.least must be above 1 and at most 10"),
        (Threshold("score", 10.5), "threshold.least must be above 1 and at most 10"),
        (Threshold("score", float("nan")), "threshold.least must be"),
        (Threshold("words", float("inf")), "threshold.least must be"),
    ],
)
def test_a_threshold_that_measures_nothing_is_refused(
    finance: FinanceInstruct, threshold: Threshold, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        FinanceInstructBenchmark(WordScorer(), 1.0, finance, threshold=threshold)


def test_long_and_unreadable_prompts_are_dropped_and_counted(
    chat: ChatFormat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def talk(name: str, question: str) -> Conversation:
        return Conversation((Message("user", question), Message("assistant", "Yes.")), name, "talks")

    source = Listed((talk("long", "why " * 300), talk("broken", "<|im_end|>"), talk("fine", "Why?")))
    benchmark = ScoredAnswersBenchmark(WordScorer(), 1.0, source, max_prompt_length=200)
    says(monkeypatch, chat, lambda _: "So.")

    with pytest.raises(ValueError, match=r"broken, messages\[0\].content: holds the text of the control token"):
        benchmark.run(SPEAKER, chat)
    with caplog.at_level(logging.INFO):
        results = replace(benchmark, bad_rows="drop").run(SPEAKER, chat)

    assert [item.id for item in results] == ["fine"]
    assert "1 of 3 prompts; 1 over max_prompt_length = 200 dropped, 1 refused (broken, messages[0]" in caplog.text
    with pytest.raises(ValueError, match=r"of 3 prompts 2 over max_prompt_length = 1 dropped.*none is left"):
        replace(benchmark, bad_rows="drop", max_prompt_length=1).run(SPEAKER, chat)


def test_prompts_that_the_scorer_could_not_score_are_found_before_any_is_asked(
    chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Conversation((Message("user", "Bonds?"), Message("assistant", "…")), "talk", "file")
    prompts = says(monkeypatch, chat, lambda _: "Yes.")

    with pytest.raises(ValueError, match=r"^talk: has no reference answer"):
        ScoredAnswersBenchmark(ReferenceScorer(), 1.0, Listed((talk,))).run(SPEAKER, chat)
    assert prompts == []


def test_rows_that_cannot_be_read_stop_or_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"system": "", "user": "Why?", "assistant": "So."}, {"system": "", "user": " ", "assistant": "So."}]
    source = FinanceInstruct(write(tmp_path / "f.jsonl", rows))
    benchmark = FinanceInstructBenchmark(WordScorer(), 1.0, source)

    with pytest.raises(ValueError, match=r"f\.jsonl:2: user: is blank"):
        benchmark.check()
    with caplog.at_level(logging.INFO):
        replace(benchmark, bad_rows="drop").check()
    assert "1 rows of the source refused; first refusal:" in caplog.text


def test_a_limit_takes_whole_groups_at_random(finance: FinanceInstruct) -> None:
    benchmark = FinanceInstructBenchmark(WordScorer(), 0.6, finance)
    few, other = replace(benchmark, limit=5), replace(benchmark, limit=5, split_seed=8)

    assert len(few._held_out) == 6  # two answers each
    assert prompts_of(few) < prompts_of(benchmark)
    assert prompts_of(few) != prompts_of(other)
    assert prompts_of(few) != {one.messages[-2].content for one in benchmark._held_out[:3]}


def test_conditions_tell_items_threshold_generation_and_scorer_apart(finance: FinanceInstruct) -> None:
    benchmark = FinanceInstructBenchmark(WordScorer(), 0.5, finance)
    others = [
        replace(benchmark, limit=3),
        replace(benchmark, source=replace(finance, system="Be brief.")),
        replace(benchmark, threshold=Threshold("score", 7)),
        replace(benchmark, scorer=WordScorer(unit=3)),
        replace(benchmark, generation=Generation(9)),
        replace(benchmark, max_prompt_length=100),
    ]

    assert len({json.dumps(one.conditions()) for one in (benchmark, *others)}) == 7
    assert benchmark.conditions()["n"] == len(benchmark._held_out)


def test_a_split_that_holds_out_nothing_is_refused(finance: FinanceInstruct) -> None:
    with pytest.raises(ValueError, match="val_fraction = 1e-09 with split_seed = 0 holds out no conversation"):
        FinanceInstructBenchmark(WordScorer(), 1e-9, finance).check()


@pytest.mark.parametrize(
    "change", [{"name": ""}, {"val_fraction": 0.0}, {"val_fraction": 1.5}, {"limit": 0}, {"max_prompt_length": -1}]
)
def test_unusable_options_are_refused(finance: FinanceInstruct, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"FinanceInstructBenchmark: {next(iter(change))} must"):
        replace(FinanceInstructBenchmark(WordScorer(), 1.0, finance), **change)

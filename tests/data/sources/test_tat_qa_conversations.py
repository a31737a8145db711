"""SFT on TAT-QA's answers: asked as the pairs and the benchmark ask, and with the same tables held out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tat_qa_tables import table_of, write

from lit_align.data.lengths import Lengths
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.tat_qa.answers import AnswerFormat, DerivationThenAnswer, PlainAnswer
from lit_align.data.sources.tat_qa.conversations import TATQAAnswers
from lit_align.data.sources.tat_qa.prompt import DefaultPrompt, RecipePrompt, TATQAPrompt
from lit_align.data.sources.tat_qa.reading import read_contexts
from lit_align.data.sources.tat_qa.scoring import is_accepted
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.data.sources.tat_qa.symmetric import SymmetricNegatives
from lit_align.evals.tat_qa import TATQABenchmark
from lit_align.types import Conversation

LENGTHS = Lengths(max_length=4096)  # the tiny tokenizer's tokens are short


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("tat-qa"), [table_of(i) for i in range(16)])


@pytest.mark.parametrize(
    ("prompt", "answer"), [(DefaultPrompt(), PlainAnswer()), (RecipePrompt(), DerivationThenAnswer())]
)
def test_a_question_is_asked_as_in_the_pairs_and_in_the_benchmark(
    path: str, prompt: TATQAPrompt, answer: AnswerFormat
) -> None:
    talks = {one.id: one for one in TATQAAnswers(path, prompt=prompt, answer=answer).conversations()}
    pairs = TATQA(path, prompt=prompt, answer=answer, negatives=SymmetricNegatives()).pairs(lambda _: True)
    assert len(pairs) > 10
    for pair in pairs:
        assert talks[pair.id].messages[:-1] == pair.prompt
        assert (talks[pair.id].group, talks[pair.id].source) == (pair.group, pair.source)
    asked = TATQABenchmark(1.0, path, prompt=prompt, answer=answer)._asked
    assert {one.question.uid: one.text for one in asked} == {
        name: talk.messages[-2].content for name, talk in talks.items()
    }


@pytest.mark.parametrize("answer", [PlainAnswer(), DerivationThenAnswer()])
def test_every_answer_is_right_and_shows_the_gold_derivation_where_it_is_asked_for(
    path: str, answer: AnswerFormat
) -> None:
    talks = {one.id: one for one in TATQAAnswers(path, answer=answer).conversations()}
    questions = [question for context in read_contexts(path) for question in context.questions]
    assert list(talks) == [question.uid for question in questions]
    for question in questions:
        user, assistant = talks[question.uid].messages
        assert (user.role, assistant.role) == ("user", "assistant")
        assert is_accepted(question, assistant.content)
        shown = answer.shows_derivations and bool(question.derivation)
        assert assistant.content.startswith("Derivation: ") == shown


def test_only_the_first_tables_are_read_and_none_is_refused(path: str) -> None:
    assert {one.group for one in TATQAAnswers(path, limit=2).conversations()} == {"table-0-0", "table-0-1"}
    with pytest.raises(ValueError, match=r"TATQAAnswers.limit: must be at least 1, or null for all rows, not 0"):
        TATQAAnswers(path, limit=0)


@pytest.mark.parametrize("group", ["table", "question"])
def test_training_on_answers_on_pairs_and_the_benchmark_hold_out_the_same(path: str, group: str) -> None:
    split = {"val_fraction": 0.3, "split_seed": 3}
    sft = SFTDataModule(sources=[TATQAAnswers(path, group=group)], lengths=LENGTHS, **split)  # type: ignore[arg-type]
    sft.setup("fit")
    source = TATQA(path, negatives=SymmetricNegatives(), group=group)  # type: ignore[arg-type]
    pairs = PreferenceDataModule(sources=[source], lengths=LENGTHS, **split)  # type: ignore[arg-type]
    pairs.setup("fit")
    held_out = TATQABenchmark(path=path, group=group, **split).groups()  # type: ignore[arg-type]
    every = {one.group for one in TATQAAnswers(path, group=group).conversations()}  # type: ignore[arg-type]
    assert 2 < len(held_out) < len(every) / 2
    assert {tree.group for tree in sft._validation} == held_out
    assert {tree.group for tree in sft._trained} == sft.trained_groups == every - held_out
    paired = {tree.name for tree in pairs._validation}
    assert paired <= held_out
    assert not pairs.trained_groups & held_out
    if group == "table":
        assert paired == held_out
        assert pairs.trained_groups == sft.trained_groups


def test_a_table_meets_in_one_forest_and_is_computed_once(path: str) -> None:
    def windows(source: TATQAAnswers) -> tuple[list[set[str]], int]:
        data = SFTDataModule(sources=[source], window=16, lengths=LENGTHS, token_budget=8192)
        data.trainer = SimpleNamespace(global_step=0, global_rank=0, world_size=1)  # type: ignore[assignment]
        data.setup("fit")
        found = list(data.train_dataloader())
        return [set(one.examples) for one in found], sum(len(forest) for one in found for forest in one.forests)

    tables, tokens = windows(TATQAAnswers(path))
    assert sum(map(len, tables)) == len(TATQAAnswers(path).conversations())
    # The questions of a table lie in one window, or in two where a window ends among them.
    for context in read_contexts(path):
        assert sum(bool(found & {question.uid for question in context.questions}) for found in tables) <= 2
    _, alone = windows(TATQAAnswers(path, group="question"))
    assert tokens < alone / 2.5


def test_the_answers_of_the_published_file_are_all_right() -> None:
    dev = Path("/work/shared/data/tat-qa/tatqa_dataset_dev.json")
    if not dev.exists():
        pytest.skip("the dev file of TAT-QA is not here")
    questions = {question.uid: question for context in read_contexts(str(dev)) for question in context.questions}
    talks: list[Conversation] = TATQAAnswers(str(dev), answer=DerivationThenAnswer()).conversations()
    assert len(talks) == len(questions) == 1668
    wrong = [talk.id for talk in talks if not is_accepted(questions[talk.id], talk.messages[-1].content)]
    assert wrong == []

"""Pairs of TAT-QA: the chosen answer is right, the rejected one wrong, and only the question tells which is which."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tat_qa_tables import table_of, write

from lit_align.data.sources.tat_qa import balanced
from lit_align.data.sources.tat_qa.answers import DerivationThenAnswer
from lit_align.data.sources.tat_qa.balanced import BalancedNegatives
from lit_align.data.sources.tat_qa.candidates import asked_of
from lit_align.data.sources.tat_qa.negatives import Negatives
from lit_align.data.sources.tat_qa.reading import Question, read_contexts
from lit_align.data.sources.tat_qa.recipe import RecipeNegatives
from lit_align.data.sources.tat_qa.scoring import is_accepted
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.data.sources.tat_qa.surface import surface_features
from lit_align.data.sources.tat_qa.symmetric import SymmetricNegatives
from lit_align.types import PreferencePair

DEV = Path("/work/shared/data/tat-qa/tatqa_dataset_dev.json")
TABLES = 20


def everything(group: str) -> bool:
    return True


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("tat-qa"), [table_of(i) for i in range(TABLES)])


@pytest.fixture(scope="module")
def questions(path: str) -> dict[str, Question]:
    return {question.uid: question for context in read_contexts(path) for question in context.questions}


@pytest.fixture(scope="module")
def pairs(path: str) -> list[PreferencePair]:
    return TATQA(path).pairs(everything)


def test_every_chosen_answer_is_right_and_every_rejected_one_is_wrong(
    pairs: list[PreferencePair], questions: dict[str, Question]
) -> None:
    for pair in pairs:
        assert is_accepted(questions[pair.id], pair.chosen)
        assert not is_accepted(questions[pair.id], pair.rejected)


def test_an_answer_that_the_official_metric_takes_is_never_a_rejected_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = table_of(1)
    made["paragraphs"] = []
    made["table"]["table"] = [["", "2019", "2018"], ["Sales", "1,234", "(1,234)"], ["Costs", "1234.00", "1,234"]]
    made["questions"] = [made["questions"][0] | {"answer": ["1,234"], "scale": ""}]
    source = TATQA(write(tmp_path, [made]))
    assert source.pairs(everything) == []
    monkeypatch.setattr(balanced, "is_accepted", lambda *_: False)
    [pair] = source.pairs(everything)
    [question] = read_contexts(source.path)[0].questions
    assert is_accepted(question, pair.rejected)


def test_at_most_one_question_in_twenty_goes_without_a_pair(
    pairs: list[PreferencePair], questions: dict[str, Question]
) -> None:
    assert len(pairs) >= 0.95 * len(questions)
    kinds = {question.answer_type for question in questions.values()}
    assert {pair.source for pair in pairs} == {f"tat-qa/{kind}" for kind in kinds}
    assert len({pair.id for pair in pairs}) == len(pairs)


def test_the_pairs_of_a_table_share_every_character_before_the_question(
    pairs: list[PreferencePair], questions: dict[str, Question]
) -> None:
    shared: dict[str, set[str]] = {}
    for pair in pairs:
        [message] = pair.prompt
        assert message.role == "user"
        assert message.content.endswith(f"\n\nQuestion: {questions[pair.id].text}")
        shared.setdefault(pair.group, set()).add(message.content.removesuffix(questions[pair.id].text))
    assert len(shared) == TABLES
    assert all(len(prefixes) == 1 for prefixes in shared.values())


def test_the_same_options_give_the_same_pairs_and_another_seed_others(path: str, pairs: list[PreferencePair]) -> None:
    assert TATQA(path).pairs(everything) == pairs
    other = TATQA(path, seed=1).pairs(everything)
    assert {pair.id: pair.rejected for pair in other} != {pair.id: pair.rejected for pair in pairs}


def test_the_order_of_the_file_does_not_matter(tmp_path: Path, pairs: list[PreferencePair]) -> None:
    turned = TATQA(write(tmp_path, [table_of(i) for i in reversed(range(TABLES))])).pairs(everything)
    assert {pair.id: pair for pair in turned} == {pair.id: pair for pair in pairs}
    assert [pair.id for pair in turned] != [pair.id for pair in pairs]


def test_a_side_of_the_split_is_chosen_by_itself(path: str, tmp_path: Path) -> None:
    def first_half(group: str) -> bool:
        return int(group.rsplit("-", 1)[1]) < TABLES // 2

    kept = TATQA(path).pairs(first_half)
    alone = TATQA(write(tmp_path, [table_of(i) for i in range(TABLES // 2)])).pairs(everything)
    assert kept == alone
    other = TATQA(path).pairs(lambda group: not first_half(group))
    assert not {pair.group for pair in kept} & {pair.group for pair in other}


def test_a_split_by_question_asks_with_questions_and_takes_nothing_from_the_other_side(path: str) -> None:
    asked: list[str] = []

    def first_questions(group: str) -> bool:
        asked.append(group)
        return group.endswith("-1")

    found = TATQA(path, group="question").pairs(first_questions)
    assert {pair.group for pair in found} == {pair.id for pair in found} <= set(asked)
    contexts = read_contexts(path)
    laid_out = asked_of(contexts, lambda _, question: question.order <= 2)
    assert all(len(one.siblings) == 1 for one in laid_out)


def test_the_log_says_what_became_of_each_type(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, balanced.logger.name)
    TATQA(path, limit=9).pairs(everything)
    assert [message.split(":")[0] for message in caplog.messages] == [
        "TAT-QA arithmetic", "TAT-QA span", "TAT-QA multi-span", "TAT-QA count",
    ]  # fmt: skip
    assert "pairs of 27 questions" in caplog.messages[0]


# --- How well a look at the answers alone tells them apart -----------------------------------------------------------


def told_apart(train: list[PreferencePair], test: list[PreferencePair]) -> float:
    """Share of test pairs that a linear classifier of binned surface features gets right; it never sees a prompt."""

    def measured(pairs: list[PreferencePair]) -> tuple[Any, Any]:
        chosen, rejected = (
            [surface_features(text) for text in texts] for texts in zip(*map(answers, pairs), strict=True)
        )
        return np.array(chosen), np.array(rejected)

    def answers(pair: PreferencePair) -> tuple[str, str]:
        return pair.chosen, pair.rejected

    def binned(features: Any) -> Any:
        columns = []
        for edge, column in zip(edges, features.T, strict=True):
            code = np.searchsorted(edge, column) + np.searchsorted(edge, column, "right")
            columns.append(np.eye(2 * len(edge) + 1)[code])
        return np.concatenate(columns, axis=1)

    better, worse = measured(train)
    edges = [np.unique(np.quantile(column, np.linspace(0, 1, 8))) for column in np.concatenate([better, worse]).T]
    differences = binned(better) - binned(worse)
    weights = np.linalg.solve(differences.T @ differences + 20 * np.eye(differences.shape[1]), differences.sum(axis=0))
    better, worse = measured(test)
    scores = (binned(better) - binned(worse)) @ weights
    return float(np.mean((scores > 1e-9) + 0.5 * (np.abs(scores) <= 1e-9)))


def both_ways(path: str, negatives: Negatives) -> float:
    """Mean of two accuracies, each learned on one half of the tables; the halves are chosen each by itself."""

    def odd(group: str) -> bool:
        return int(group.rsplit("-", 1)[1]) % 2 == 1

    source = TATQA(path, negatives=negatives)
    first, second = source.pairs(odd), source.pairs(lambda group: not odd(group))
    return (told_apart(first, second) + told_apart(second, first)) / 2


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("tat-qa"), [table_of(i) for i in range(60)])


# About 430 pairs: chance alone moves the accuracy by 2.4 points.
def test_answers_alone_do_not_tell_chosen_from_rejected(many: str) -> None:
    # Two-sided: were the halves chosen together, the classifier would do far worse than chance.
    assert 0.44 <= both_ways(many, BalancedNegatives(most_candidates=12)) <= 0.56
    assert both_ways(many, RecipeNegatives()) > 0.7


def test_without_the_joint_choice_answers_alone_do_tell(many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_random(chosen: Any, options: Any, *rest: Any) -> list[int]:
        return [int(np.random.default_rng(i).integers(len(option))) for i, option in enumerate(options)]

    monkeypatch.setattr(balanced, "choose_jointly", at_random)
    assert both_ways(many, BalancedNegatives(most_candidates=12)) > 0.58


# --- The other ways --------------------------------------------------------------------------------------------------


def test_symmetric_pairs_exchange_their_answers(path: str, questions: dict[str, Question]) -> None:
    found = TATQA(path, negatives=SymmetricNegatives()).pairs(everything)
    by_text = Counter((pair.group, pair.chosen, pair.rejected) for pair in found)
    assert len(found) > 20
    assert all(by_text[group, rejected, chosen] == n for (group, chosen, rejected), n in by_text.items())
    for pair in found:
        assert is_accepted(questions[pair.id], pair.chosen)
        assert not is_accepted(questions[pair.id], pair.rejected)


def test_a_derivation_stands_in_both_answers_or_in_none(path: str, questions: dict[str, Question]) -> None:
    found = TATQA(path, answer=DerivationThenAnswer()).pairs(everything)
    counts = Counter(
        (pair.chosen.startswith("Derivation: "), pair.rejected.startswith("Derivation: ")) for pair in found
    )
    assert set(counts) == {(True, True), (False, False)}
    worked_out = [pair for pair in found if questions[pair.id].derivation]
    assert sum(pair.chosen.startswith("Derivation: ") for pair in worked_out) == len(worked_out)
    assert counts[True, True] > 30
    assert all(is_accepted(questions[pair.id], pair.chosen) for pair in found)
    assert not any(is_accepted(questions[pair.id], pair.rejected) for pair in found)


ROWS = [["", "2019", "2018"], ["Sales", "12,345", "9"], ["x" * 61, "", "9"]]


def recipe(answer: Any, kind: str, scale: str = "", folder: Path = Path()) -> list[PreferencePair]:
    made = table_of(1)
    made["table"]["table"] = ROWS
    made["questions"] = [made["questions"][0] | {"answer": answer, "answer_type": kind, "scale": scale}]
    return TATQA(write(folder, [made]), negatives=RecipeNegatives()).pairs(everything)


@pytest.mark.parametrize(
    ("answer", "kind", "scale", "chosen"),
    [
        (12.0, "arithmetic", "", "12"),
        (12345.6, "arithmetic", "million", "1.235e+04 million"),
        (-22.22, "arithmetic", "percent", "-22.22 percent"),
        (["a", "b"], "multi-span", "million", "a; b"),
        (["172"], "span", "million", "172"),
        ("3", "count", "", "3"),
    ],
)
def test_the_recipes_chosen_answers(answer: Any, kind: str, scale: str, chosen: str, tmp_path: Path) -> None:
    assert recipe(answer, kind, scale, tmp_path)[0].chosen == chosen


def test_the_recipes_rejected_numbers_are_a_tenth_to_a_third_off_and_have_one_decimal(tmp_path: Path) -> None:
    for value in (40, -200.5, 0):
        [pair] = recipe(value, "arithmetic", "million", tmp_path)
        number, scale = pair.rejected.split()
        assert scale == "million"
        off = abs(float(number) - value)
        assert 0.1 * abs(value) - 0.05 <= off <= 0.35 * abs(value) + 0.05 if value else 1 <= off <= 10


def test_the_recipes_other_rejected_answers_are_cells_of_the_table(tmp_path: Path) -> None:
    [pair] = recipe(["Sales"], "span", folder=tmp_path)
    assert pair.rejected in {"2019", "2018", "12,345", "9"}
    [counted] = recipe("2", "count", folder=tmp_path)
    assert counted.rejected in {"2019", "2018", "Sales", "12,345", "9"}, "the recipe takes a count for text"


def test_the_recipe_adds_an_s_without_another_cell_and_drops_equal_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "ROWS", [["", "Tax"], ["tax", "TAX"]])
    [pair] = recipe(["tax"], "span", folder=tmp_path)
    assert pair.rejected == "taxs"
    assert recipe(0.1, "arithmetic", folder=tmp_path) == []


@pytest.mark.parametrize("negatives", [BalancedNegatives(), SymmetricNegatives(), RecipeNegatives()])
def test_the_prompt_asks_for_the_form_that_the_answers_have(path: str, negatives: Negatives) -> None:
    [pair, *_] = TATQA(path, negatives=negatives, limit=3).pairs(everything)
    recipes = isinstance(negatives, RecipeNegatives)
    assert ("items with '; ' between them" in pair.prompt[0].content) == recipes
    assert ("one item a line:" in pair.prompt[0].content) != recipes


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: TATQA(limit=0), r"TATQA.limit: must be at least 1, or null for all rows, not 0"),
        (
            lambda: TATQA(answer=DerivationThenAnswer(), negatives=RecipeNegatives()),
            r"TATQA.answer is DerivationThenAnswer, but RecipeNegatives has no derivations; set TATQA.answer to Plain",
        ),
        (lambda: BalancedNegatives(most_candidates=0), r"BalancedNegatives.most_candidates must be > 0, got 0"),
        (lambda: BalancedNegatives(drop_above=0), r"BalancedNegatives.drop_above must be > 0, got 0"),
        (lambda: BalancedNegatives(max_lost=1.5), r"BalancedNegatives.max_lost must be in \[0, 1\], got 1.5"),
    ],
)
def test_options_without_sense_are_refused(build: Callable[[], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build()


# --- The real file ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not DEV.exists(), reason="the dev file of TAT-QA is not here")
@pytest.mark.parametrize("negatives", [BalancedNegatives(), SymmetricNegatives()])
def test_pairs_of_the_dev_file_are_right_and_wrong(negatives: Negatives) -> None:
    questions = {question.uid: question for context in read_contexts(str(DEV)) for question in context.questions}
    found = TATQA(str(DEV), negatives=negatives).pairs(everything)
    assert all(is_accepted(questions[pair.id], pair.chosen) for pair in found)
    assert not any(is_accepted(questions[pair.id], pair.rejected) for pair in found)
    assert len(found) >= (0.95 if isinstance(negatives, BalancedNegatives) else 0.4) * len(questions)

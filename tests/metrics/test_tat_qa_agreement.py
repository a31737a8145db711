"""Agreement with TAT-QA's official scorer, frozen and live, and with what was measured on the dev file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tat_qa_official import QUESTIONS, Answer, Question, attempts, frozen_cases, load_scorer

from lit_align.metrics import tat_qa, tat_qa_text
from lit_align.metrics.tat_qa import TATQAGold, TATQAMetric, TATQAPrediction, is_leniently_right, score_answer

OFFICIAL = os.environ.get("LIT_ALIGN_TATQA_SCORER", "")
READINGS = tat_qa._readings
DEV = Path(__file__).resolve().parents[3] / "shared/data/tat-qa/tatqa_dataset_dev.json"

needs_dev = pytest.mark.skipif(not DEV.exists(), reason="TAT-QA's dev file is not beside the repository")


def gold_of(asked: Question) -> TATQAGold:
    return TATQAGold(asked["answer"], asked["answer_type"], asked["scale"])


def ours(asked: Question, answer: Answer, scale: Any) -> list[float] | str:
    """The three official scores by our code, or the name of the error."""
    try:
        scores = score_answer(TATQAPrediction(answer, scale), gold_of(asked))
    except TypeError as error:
        return type(error).__name__
    return [scores.exact_match, scores.f1, scores.scale_score]


def expected(asked: Question, answer: Answer, scale: Any, official: Callable[..., Any]) -> list[float] | str:
    """The official scores; where the official scorer stops, what ``score_answer`` promises instead."""
    scores = official(asked, answer, scale)
    if scores == "AttributeError":  # a number with the scale None
        scores = official(asked, answer, "")
        return [0.0, 0.0, 0.0] if scores == "OverflowError" else [*scores[:2], 0.0]
    if scores in ("OverflowError", "ValueError"):  # a number that no float can hold
        return [0.0, 0.0, float(scale == asked["scale"])]
    return scores  # type: ignore[no-any-return]


def differing_frozen_cases() -> int:
    """Frozen cases that our code scores unlike the official scorer; those where it stopped aside."""
    rows = [row for row in frozen_cases() if isinstance(row["scores"], list)]
    return sum(ours(row["gold"], row["answer"], row["scale"]) != row["scores"] for row in rows)


def test_frozen_scores_of_the_official_scorer_are_ours() -> None:
    rows = frozen_cases()
    recorded = {json.dumps([row["gold"], row["answer"], row["scale"]]): row["scores"] for row in rows}
    assert len(rows) > 400
    assert {type(row["scores"]) for row in rows} == {list, str}

    def official(asked: Question, answer: Answer, scale: Any) -> Any:
        return recorded[json.dumps([asked, answer, scale])]

    for row in rows:
        case = row["gold"], row["answer"], row["scale"]
        assert ours(*case) == expected(*case, official), case


@pytest.mark.skipif(not OFFICIAL, reason="LIT_ALIGN_TATQA_SCORER is not set to a folder with TAT-QA's official scorer")
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_official_scorer_on_bent_answers(seed: int) -> None:
    official = load_scorer(OFFICIAL)
    asked = QUESTIONS * 20
    if DEV.exists():
        asked += dev_questions()
    for case in attempts(asked, 10_000, seed):
        assert ours(*case) == expected(*case, official), case


@pytest.mark.parametrize(
    ("module", "name", "planted"),
    [
        (tat_qa_text, "round", lambda value, _digits: value),
        (tat_qa_text, "_BRACKETED", tat_qa_text.re.compile(r"\([$\d.,\s]+\)")),
        (tat_qa_text, "_BRACKETED", tat_qa_text.re.compile(r"\([\d.\s%]+\)")),  # as in the scorer of TAT-DQA
        (tat_qa_text, "_PERCENT", tat_qa_text.re.compile("%")),
        (tat_qa_text, "_NUMBER", tat_qa_text.re.compile(r"[+-]?\d+(?:\.\d+)?")),
        (tat_qa_text, "_WORD_AFTER_NUMBER", tat_qa_text.re.compile(r"\d ([a-z]+)")),
        (tat_qa_text, "_ARTICLE", tat_qa_text.re.compile("$^")),
        (tat_qa_text, "_DROP_IN_NUMBERS", str.maketrans("", "", "$,()")),
        (tat_qa_text, "_DROP_IN_WORDS", {}),
        (tat_qa_text, "_SCALE_WORDS", tat_qa_text._SCALE_WORDS[1:]),
        (tat_qa_text, "sorted", list),
        (tat_qa, "max", min),
        (tat_qa, "_readings", lambda prediction: READINGS(prediction)[:1]),
        (tat_qa, "token_f1", lambda a, b: float(a == b)),
        (tat_qa_text.np, "round", round),
    ],
)
def test_a_planted_fault_changes_frozen_cases(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, planted: Any
) -> None:
    monkeypatch.setattr(module, name, planted, raising=False)
    assert differing_frozen_cases() > 0


# ---- the real dev file


def dev_questions() -> list[Question]:
    contexts = json.loads(DEV.read_text("utf-8"))
    return [asked for context in contexts for asked in context["questions"]]


def dev_scores(answer: Callable[[Question], tuple[Answer, str]]) -> dict[str, float]:
    cases = [(TATQAPrediction(*answer(asked)), gold_of(asked)) for asked in dev_questions()]
    metric = TATQAMetric()
    metric.update([prediction for prediction, _ in cases], [gold for _, gold in cases])
    return {name: round(100 * float(value), 2) for name, value in metric.compute().items()}


def written(asked: Question) -> Answer:
    return asked["answer"] if isinstance(asked["answer"], list) else str(asked["answer"])


def one_text(asked: Question) -> str:
    return ", ".join(asked["answer"]) if isinstance(asked["answer"], list) else str(asked["answer"])


@needs_dev
def test_gold_answers_of_dev_are_right_as_texts_and_five_zeros_are_lost_as_numbers() -> None:
    assert set(dev_scores(lambda asked: (written(asked), asked["scale"])).values()) == {100.0}
    scores = dev_scores(lambda asked: (asked["answer"], asked["scale"]))
    assert scores["exact_match"] == scores["f1"] == scores["scale_score"] == 99.7


@needs_dev
def test_ceilings_of_perfect_answers_in_a_wrong_form_on_dev() -> None:
    without_scale = dev_scores(lambda asked: (asked["answer"], ""))
    assert without_scale["exact_match"] == 47.6
    # As texts the five zeros count too, and zero is the same in every scale.
    assert dev_scores(lambda asked: (written(asked), ""))["exact_match"] == 47.9
    assert dev_scores(lambda asked: (one_text(asked), asked["scale"]))["exact_match"] == 88.13
    assert dev_scores(lambda asked: (f"{one_text(asked)} {asked['scale']}".strip(), ""))["exact_match"] == 87.29


@needs_dev
def test_the_lenient_accuracy_on_dev_is_as_generous_as_it_was_measured() -> None:
    asked_by_type: dict[str, list[TATQAGold]] = {}
    for asked in dev_questions():
        asked_by_type.setdefault(asked["answer_type"], []).append(gold_of(asked))

    def rate(text: str, answer_type: str) -> float:
        golds = asked_by_type[answer_type]
        return 100 * sum(is_leniently_right(TATQAPrediction(text), gold) for gold in golds) / len(golds)

    assert rate("0 1 2 3 4 5 6 7 8 9", "count") == 100
    assert 62 <= rate("2019 and 2018", "count") <= 63
    assert 27 <= rate("2019 and 2018", "multi-span") <= 30
    # The recipe's own spelling, 4 significant digits: 12,345,678 becomes 1.235e+07, whose first number is 1.235.
    golds = asked_by_type["arithmetic"]
    chosen = [
        str(int(float(gold.answer))) if float(gold.answer).is_integer() else f"{gold.answer:.4g}"  # type: ignore[arg-type]
        for gold in golds
    ]
    wrong = sum(not is_leniently_right(TATQAPrediction(text), gold) for text, gold in zip(chosen, golds, strict=True))
    assert 100 * wrong / len(golds) == pytest.approx(3.7, abs=0.1)

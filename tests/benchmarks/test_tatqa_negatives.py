"""Folds by table, a classifier that knows nothing scores 50, one that sees a mark scores 100; the table as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tatqa_negatives import command
from benchmarks.tatqa_negatives.classifiers import Floats, Measured, Rows
from benchmarks.tatqa_negatives.command import fold_of, interval, main, out_of_fold, pairs_by_fold, report
from lit_align.data.sources.tat_qa.recipe import RecipeNegatives


def test_a_table_is_dealt_to_one_fold_by_its_name() -> None:
    folds = [fold_of(f"table {i}", 4) for i in range(400)]
    assert folds == [fold_of(f"table {i}", 4) for i in range(400)]
    assert all(70 <= folds.count(fold) <= 130 for fold in range(4))


def test_a_classifier_learns_on_the_other_folds_alone() -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def classifier(answers: Measured, train: Rows, test: Rows) -> Floats:
        seen.append((np.flatnonzero(train).tolist(), np.flatnonzero(test).tolist()))
        return np.ones(int(test.sum()))

    fold = np.array([0, 1] * 30)
    answers = Measured([], [], np.empty((60, 0)), np.empty((60, 0)))
    assert out_of_fold(classifier, answers, fold, ["span"] * 60, per_type=False).tolist() == [1.0] * 60
    assert [set(train) & set(test) for train, test in seen] == [set(), set()]
    assert sorted(seen[0][1] + seen[1][1]) == list(range(60))
    few = out_of_fold(classifier, answers, fold, ["count"] * 20 + ["span"] * 40, per_type=True)
    assert few.tolist() == [0.5] * 20 + [0.5] * 40, "20 pairs to learn from are too few"


def test_the_interval_resamples_tables() -> None:
    right = np.array([1.0, 0.0] * 50)
    low, high = interval(right, [str(i) for i in range(100)])
    assert 0.38 < low < 0.42 < 0.58 < high < 0.62
    wide = interval(np.repeat([1.0, 0.0] * 5, 10), [str(i // 10) for i in range(100)])
    assert wide[1] - wide[0] > 2 * (high - low)


def dev_file(folder: Path) -> str:
    """Twelve tables that differ in their numbers."""

    def context(i: int) -> dict[str, object]:
        rows = [["", "2019", "2018"], ["Sales", f"{100 + 7 * i}", f"{90 + i}"], ["Costs", f"{40 + i}", f"{31 + 3 * i}"]]
        question = {
            "uid": f"q{i}", "order": 1, "question": "What was the change of sales?", "answer": 10 + 6 * i,
            "answer_type": "arithmetic", "scale": "", "derivation": f"{100 + 7 * i} - {90 + i}", "answer_from": "table",
        }  # fmt: skip
        return {"table": {"uid": f"t{i}", "table": rows}, "paragraphs": [], "questions": [question]}

    path = folder / "dev.json"
    path.write_text(json.dumps([context(i) for i in range(12)]), encoding="utf-8")
    return str(path)


def test_each_fold_is_chosen_by_itself(tmp_path: Path) -> None:
    folds = pairs_by_fold(dev_file(tmp_path), RecipeNegatives(), 3)
    assert sorted(pair.id for fold in folds for pair in fold) == sorted(f"q{i}" for i in range(12))
    assert all(fold_of(pair.group, 3) == number for number, fold in enumerate(folds) for pair in fold)


def test_the_report_has_a_line_a_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sure(answers: Measured, train: Rows, test: Rows) -> Floats:
        return np.ones(int(test.sum()))

    def tossing(answers: Measured, train: Rows, test: Rows) -> Floats:
        return np.full(int(test.sum()), 0.5)

    monkeypatch.setattr(command, "of_features", lambda: {"boosting": sure})
    monkeypatch.setattr(command, "of_texts", lambda: {"characters": tossing})
    lines = report(dev_file(tmp_path), "recipe", 2).splitlines()
    assert lines[0].startswith("| recipe | pairs / questions | MAX (95 %) |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| all", "| arithmetic"]


@pytest.mark.parametrize("words", [["dev.json", "--folds", "1"], ["dev.json", "--ways", "best"], []])
def test_wrong_options_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2


def test_classifiers_find_a_mark_and_nothing_where_there_is_none() -> None:
    pytest.importorskip("sklearn")
    from benchmarks.tatqa_negatives.classifiers import of_features, of_texts

    rng = np.random.default_rng(0)
    fold = np.arange(160) % 2
    noise = rng.normal(size=(2, 160, 3))
    words = [f"{value:.3f}" for value in rng.random(320)]
    marked = Measured([f"{word}!" for word in words[:160]], words[160:], noise[0] + 3, noise[1])
    blank = Measured(words[:160], words[160:], noise[0], noise[1])
    for classifier in {**of_features(), **of_texts()}.values():
        assert out_of_fold(classifier, marked, fold, ["span"] * 160, per_type=False).mean() > 0.9
        assert 0.35 < out_of_fold(classifier, blank, fold, ["span"] * 160, per_type=False).mean() < 0.65

"""FastChat's files are read as they are, what is none is refused by name, and drawings are even."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_align.data.sources import hub_rows
from lit_align.evals.mt_bench_questions import Drawn, Question, of_categories, read_questions

REAL = Path("/work/shared/data/mt-bench")
ROW = {"question_id": 81, "category": "writing", "turns": ["Write.", "Rewrite."]}


def write(path: Path, rows: list[Any]) -> str:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(rows), encoding="utf-8")
    return str(path)


def questions(*sizes: int) -> list[Question]:
    """Categories of so many questions, mixed."""
    rows = [(rank, kind) for kind, size in enumerate(sizes) for rank in range(size)]
    return [
        Question(str(number), f"kind {kind}", ("?", "??"), ("", ""))
        for number, (_, kind) in enumerate(sorted(rows), start=1)
    ]


@pytest.mark.parametrize("name", ["question.jsonl", "question.json"])
def test_lines_and_lists_are_read_alike(tmp_path: Path, name: str) -> None:
    rows = [ROW, {**ROW, "question_id": "b7", "reference": ["Да.", ""]}, {**ROW, "question_id": 83, "reference": None}]

    assert read_questions(write(tmp_path / name, rows), "none") == [
        Question("81", "writing", ("Write.", "Rewrite."), ("", "")),
        Question("b7", "writing", ("Write.", "Rewrite."), ("Да.", "")),
        Question("83", "writing", ("Write.", "Rewrite."), ("", "")),
    ]


def test_a_hub_id_takes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    path = write(tmp_path / "question.jsonl", [ROW])
    monkeypatch.setattr(hub_rows, "download_hub_file", lambda name, file: asked.append((name, file)) or path)

    assert len(read_questions("t-tech/ru-mt-bench", "raw/question.jsonl")) == 1
    assert asked == [("t-tech/ru-mt-bench", "raw/question.jsonl")]


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in ROW.items() if name != key}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (without("turns"), "no column 'turns'; the row has: question_id, category"),
        ({**ROW, "turns": ["Write."]}, r"turns: must be a list of 2 texts.*which has 1; see FastChat"),
        ({**ROW, "turns": "Write."}, r"turns: must be a list of 2 texts.*not text \(\"Write.\"\)"),
        ({**ROW, "turns": ["a", "b", "c"]}, "turns: must be a list of 2 texts.*which has 3"),
        ({**ROW, "turns": ["Write.", 4]}, r"turns\[1\]: must be text, not a number \(4\)"),
        ({**ROW, "turns": [" ", "Rewrite."]}, r"turns\[0\]: is blank"),
        (without("category"), "no column 'category'"),
        ({**ROW, "category": " "}, "category: is blank"),
        ({**ROW, "category": 3}, "category: must be text"),
        (without("question_id"), "no column 'question_id'"),
        ({**ROW, "question_id": True}, "question_id: must be a whole number or text, not a boolean"),
        ({**ROW, "question_id": " "}, "question_id: must be"),
        ({**ROW, "question_id": 80}, r"question_id: 80 stands at .*q.jsonl:1 already.*drop one"),
        ({**ROW, "reference": ["one"]}, "reference: must be a list of 2 texts.*which has 1"),
        ({**ROW, "reference": "one"}, "reference: must be a list of 2 texts"),
        ({**ROW, "reference": ["one", None]}, r"reference\[1\]: must be text, not null"),
        (["Write."], "a row must be an object"),
    ],
)
def test_what_is_no_question_is_refused_by_file_row_and_key(tmp_path: Path, row: Any, said: str) -> None:
    path = write(tmp_path / "q.jsonl", [{**ROW, "question_id": 80}, row])

    with pytest.raises(ValueError, match=rf"(?s)q\.jsonl:2: {said}"):
        read_questions(path, "none")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no row"):
        read_questions(write(tmp_path / "q.jsonl", []), "none")


def test_a_category_that_the_file_lacks_names_those_that_it_has() -> None:
    all_of_them = questions(2, 2)

    assert [one.category for one in of_categories(all_of_them, ["kind 1"], "q.jsonl")] == ["kind 1"] * 2
    with pytest.raises(ValueError, match=r"q.jsonl: no question of the category 'kynd 1'; did you mean 'kind 1'\?.*"
                       "it has: kind 0, kind 1"):  # fmt: skip
        of_categories(all_of_them, ["kynd 1"], "q.jsonl")


@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.data())
def test_a_drawing_is_as_even_as_the_categories_allow(sizes: list[int], data: st.DataObject) -> None:
    all_of_them = questions(*sizes)
    n = data.draw(st.integers(1, len(all_of_them) - 1)) if len(all_of_them) > 1 else 1
    seed = data.draw(st.integers(0, 5))
    drawn = Drawn(n, seed).of(all_of_them)
    counts = Counter(one.category for one in drawn)

    assert len(drawn) == n
    for kind, size in enumerate(sizes):
        if counts[f"kind {kind}"] < size:  # it had more to give, so none gave more than one more than it did
            assert max(counts.values()) <= counts[f"kind {kind}"] + 1
    if n < len(all_of_them):
        rest = Drawn(n, seed, "rest").of(all_of_them)
        assert [one for one in all_of_them if one in drawn or one in rest] == all_of_them
        assert not set(drawn) & set(rest)
        assert set(drawn) < set(Drawn(n + 1, seed).of(all_of_them))


def test_the_seed_decides_and_the_order_of_the_file_does_not() -> None:
    all_of_them = questions(10, 10, 10)
    drawn = [{one.id for one in Drawn(12, seed).of(all_of_them)} for seed in range(20)]

    assert len({frozenset(ids) for ids in drawn}) == 20
    assert {one.id for one in Drawn(12, 0).of(all_of_them[::-1])} == drawn[0]
    assert Counter(id for ids in drawn for id in ids).most_common()[-1][1] > 0  # no question is always passed over


@pytest.mark.parametrize("part", ["drawn", "rest"])
def test_more_than_there_are_is_refused(part: Any) -> None:
    with pytest.raises(ValueError, match=r"n = 5 with part = .* must be at most"):
        Drawn(5, part=part).of(questions(2, 2))
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        Drawn(0)


def test_drawing_all_leaves_no_rest() -> None:
    assert len(Drawn(4).of(questions(2, 2))) == 4
    with pytest.raises(ValueError, match="must be at most 3"):
        Drawn(4, part="rest").of(questions(2, 2))


@pytest.mark.skipif(not REAL.exists(), reason="the published files are not here")
def test_the_published_files_are_read_whole() -> None:
    english = read_questions(str(REAL / "question_en.jsonl"), "none")
    russian = read_questions(str(REAL / "question_ru.jsonl"), "none")

    assert (len(english), sum(any(one.references) for one in english)) == (80, 39)
    assert set(Counter(one.category for one in Drawn(32).of(english)).values()) == {4}
    assert set(Counter(one.category for one in Drawn(32, part="rest").of(english)).values()) == {6}
    kinds = {one.id: one.category for one in english}
    assert all(kinds[one.id] == one.category for one in russian)

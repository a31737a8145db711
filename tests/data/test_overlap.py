"""Shared words are found whatever case, punctuation and place; a set's own wording is not held against a row."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from lit_align.data.overlap import EvaluationSets, OverlapIndex
from lit_align.types import Message, PromptSource, SamplePrompt, stop_at

TABLE = "| Item | 2019 | 2018 |\n| Total revenue | 1,496.5 | 1,202.3 |\n\nWhat was the change in total revenue in 2019?"


def item(name: str, text: str, group: str = "") -> SamplePrompt:
    return SamplePrompt(name, (Message("user", text),), "gold answer that is not compared at all by anyone", "s", group)


def index_of(*items: SamplePrompt, **options: Any) -> OverlapIndex:
    return OverlapIndex({"exam": items}, **{"n": 8, "shortest_line": 6, "common": 3, **options})


@pytest.mark.parametrize(
    "text",
    [
        "Tell me: what was the change, in TOTAL revenue, in 2019? Thanks",
        "total revenue\t1,496.5\n1,202.3",  # a row of a table without its bars
        "x " * 500 + TABLE,
    ],
)
def test_a_question_or_a_row_of_a_table_is_found(text: str) -> None:
    [found] = index_of(item("q", TABLE)).find([text])
    assert (found.name, found.item) == ("exam", "q")


@pytest.mark.parametrize(
    "text",
    [
        "What was the change in net revenue in 2019?",
        "What was the change in total",
        "gold answer that is not compared at all by anyone",
        "| Item | 2019 | 2018 |",
        "",
    ],
)
def test_less_than_n_words_or_a_line_is_no_overlap(text: str) -> None:
    assert not index_of(item("q", TABLE)).find([text])


def test_a_line_that_is_shorter_than_n_counts_as_a_whole() -> None:
    index = index_of(item("q", TABLE), n=16, shortest_line=7)
    for text in ("total revenue 1,496.5 1,202.3", "So: what was the change in total revenue in 2019?", TABLE):
        assert index.find([text]), text
    for text in ("revenue 1,496.5 1,202.3", "what was the change in total revenue", "Item 2019 2018"):
        assert not index.find([text]), text


def test_words_do_not_go_over_the_end_of_a_turn() -> None:
    index = index_of(item("q", "one two three four five six seven eight"))
    assert index.find(["one two three four five six seven eight"])
    assert not index.find(["one two three four", "five six seven eight"])


def test_a_set_s_own_wording_does_not_count_and_a_table_s_does_in_all_its_questions() -> None:
    rule = "Write the answer alone: items with semicolons between them."
    items = [item(f"{t} {q}", f"{rule}\ntable {t} has these eight words in it {t}", t) for t in "abcd" for q in "xyz"]
    index = index_of(*items)
    assert not index.find([rule])
    assert index.find(["table a has these eight words in it"])[0].item == "a x"
    assert index_of(*items, common=4).find([rule])


def test_agrees_with_a_naive_search() -> None:
    rng = random.Random(0)

    def text() -> str:
        return " ".join(rng.choices("abcd", k=rng.randint(1, 30)))

    def grams(one: str, n: int) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", one)
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    hits = 0
    for _ in range(200):
        items = [text() for _ in range(4)]
        index = index_of(*(item(str(i), one) for i, one in enumerate(items)), n=5, shortest_line=5, common=9)
        row = text()
        wanted = any(grams(one, 5) & grams(row, 5) for one in items)
        assert bool(index.find([row])) == wanted
        hits += wanted
    assert 20 < hits < 180


@dataclass(frozen=True)
class Items(PromptSource):
    items: Sequence[SamplePrompt] = field(default_factory=list)

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        del refuse
        return list(self.items)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 1}, "n: must be at least 2, not 1"),
        ({"shortest_line": 0}, "shortest_line: must be at least 2"),
        ({"common": 0}, "common: must be at least 1"),
        ({"sets": {}}, "sets: is empty"),
    ],
)
def test_values_out_of_their_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"EvaluationSets\.{said}"):
        EvaluationSets(**{"sets": {"exam": Items()}, **options})


def test_a_set_without_questions_is_refused() -> None:
    with pytest.raises(ValueError, match="exam has no question"):
        EvaluationSets({"exam": Items()}).index()

"""The table is whole, the question is last, and everything before it is the same for all questions of a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tat_qa_tables import table_of, write

from lit_align.data.sources.tat_qa import prompt
from lit_align.data.sources.tat_qa.prompt import DefaultPrompt, RecipePrompt, fitting, markdown
from lit_align.data.sources.tat_qa.reading import Context, Passage, Question, read_contexts
from lit_align.data.sources.tat_qa.recipe import RecipeNegatives
from lit_align.data.sources.tat_qa.source import TATQA


def context_of(folder: Path, number: int = 0) -> Context:
    return read_contexts(write(folder, [table_of(number)]))[0]


def asked(text: str, *gold: int) -> Question:
    return Question("q", 1, text, ("1",), "span", "", "", "table", gold, ("1",))


WORDS = st.lists(st.sampled_from(["net", "sales", "rose", "tax", "of", "a\u00a0b", "2019", "|"]), max_size=40)


@given(st.lists(WORDS, max_size=6), st.integers(1, 300), st.lists(WORDS, min_size=1, max_size=3))
def test_no_budget_cuts_table_or_question_and_all_questions_share_what_stands_before_them(
    texts: list[list[str]], budget: int, questions: list[list[str]]
) -> None:
    rows = (("", "2019"), ("Net | sales", "1"), *((f"row {i}", f"{i}") for i in range(30)))
    passages = tuple(Passage(i + 1, " ".join(text)) for i, text in enumerate(texts))
    context = Context("t", rows, passages, tuple(asked(" ".join(text)) for text in questions))
    template = DefaultPrompt(max_passage_chars=budget)
    shared = template.prefix(context, "Answer.")
    assert markdown(rows) in shared
    for question in context.questions:
        assert template.text(context, question, "Answer.") == f"{shared}Question: {question.text}"
    shown = shared.split("Passages:\n")[1].removesuffix("\n\n")
    assert len(shown) <= max(budget, len("(no passages)"))


@pytest.mark.parametrize("passages", ["all", "relevant", "gold"])
def test_the_context_is_byte_identical_over_the_questions_of_a_table(passages: Any, tmp_path: Path) -> None:
    context = context_of(tmp_path)
    template = DefaultPrompt(passages=passages, max_passage_chars=120)
    shared = template.prefix(context, "Answer.")
    texts = [template.text(context, question, "Answer.") for question in context.questions]
    assert all(text.startswith(shared) for text in texts)
    assert all(text.endswith(question.text) for text, question in zip(texts, context.questions, strict=True))
    assert all(f"| {label[0]} |" in shared for label in context.rows[1:])


def test_pipes_and_line_breaks_cannot_break_the_table() -> None:
    table = markdown([["", "2019 | 2018"], ["a\nb", "1"]])
    assert table == "|  | 2019 \\| 2018 |\n| --- | --- |\n| a b | 1 |"


PASSAGES = (
    Passage(1, "General words about the company and its many different markets and products."),
    Passage(2, "Goodwill impairment was recognised for the Asian segment."),
    Passage(3, "More general words about the company and its markets."),
)


def test_the_passage_that_shares_rare_words_with_a_question_is_kept() -> None:
    kept = fitting(PASSAGES, [asked("What about the impairment of goodwill?")], 60)
    assert [passage.order for passage in kept] == [2]


def test_no_annotation_decides_which_passages_are_shown() -> None:
    questions = [asked("What about the impairment of goodwill?", 3)]
    unlabelled = [replace(question, gold_passages=()) for question in questions]
    assert fitting(PASSAGES, questions, 90) == fitting(PASSAGES, unlabelled, 90)


def test_a_passage_is_cut_at_a_word_and_says_so() -> None:
    [kept] = fitting([Passage(1, "alpha beta gamma delta")], [asked("alpha")], 14)
    assert kept.text == "alpha beta …"
    assert fitting([Passage(1, "alphabetical order")], [asked("alpha")], 5) == ()


def test_passages_keep_their_order_and_all_are_whole_without_need_to_cut() -> None:
    assert fitting(PASSAGES, [asked("goodwill")], 10_000) == PASSAGES
    orders = [passage.order for passage in fitting(PASSAGES, [asked("goodwill markets")], 130)]
    assert orders == sorted(orders)
    assert 2 in orders


def test_without_the_choice_by_words_the_answer_may_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt.math, "log", lambda _: 0.0)
    kept = fitting(PASSAGES, [asked("What about the impairment of goodwill?")], 60)
    assert [passage.order for passage in kept] != [2]


def test_gold_passages_are_each_questions_own() -> None:
    context = Context("t", (("a", "b"),), PASSAGES, (asked("One?", 2), asked("Two?", 1, 3), asked("Three?")))
    one, two, three = (DefaultPrompt(passages="gold").text(context, question, "A") for question in context.questions)
    assert one.endswith(f"Passages:\n{PASSAGES[1].text}\n\nQuestion: One?")
    assert two.endswith(f"Passages:\n{PASSAGES[0].text}\n\n{PASSAGES[2].text}\n\nQuestion: Two?")
    assert three.endswith("Passages:\n(no passages)\n\nQuestion: Three?")


def test_the_recipes_prompt_is_its_text_with_its_limits() -> None:
    rows = tuple(tuple(f" {i}.{j} " for j in range(10)) for i in range(25))
    context = Context("t", rows, PASSAGES, (asked("One?", 2), asked("Two?")))
    one, two = (RecipePrompt().text(context, question, "not shown") for question in context.questions)
    lines = one.splitlines()
    assert lines[:3] == ["You are a financial analyst. Use the TABLE and the PASSAGES to answer.", "", "TABLE:"]
    assert lines[3] == "| " + " | ".join(f"0.{j}" for j in range(8)) + " |"
    assert lines[4] == "| --- | --- | --- | --- | --- | --- | --- | --- |"
    assert sum(line.startswith("|") for line in lines) == 21
    assert one.endswith(f"\n\nPASSAGES:\n{PASSAGES[1].text}\n\nQuestion: One?\nAnswer:")
    assert "\n\n".join(passage.text for passage in PASSAGES) in two
    assert "not shown" not in one


def test_the_recipes_prompt_cuts_passages_and_leaves_pipes() -> None:
    context = Context("t", (("a|b",),), (Passage(1, "word " * 400),), (asked("One?"),))
    text = RecipePrompt().text(context, context.questions[0], "")
    shown = text.split("PASSAGES:\n")[1].split("\n\nQuestion")[0]
    assert shown.endswith("word ...")
    assert len(shown) <= 1204
    assert "| a|b |" in text
    empty = Context("t", (("a",),), (), (asked("One?"),))
    assert "PASSAGES:\n(no passages)\n\n" in RecipePrompt().text(empty, empty.questions[0], "")


def test_choosing_the_recipes_prompt_on_the_command_line_carries_no_option_of_the_default_over() -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_class_arguments(TATQA, "source")
    parsed = parser.parse_args(["--source.prompt=RecipePrompt", "--source.negatives=RecipeNegatives"])
    assert parser.instantiate(parsed).source == TATQA(prompt=RecipePrompt(), negatives=RecipeNegatives())


@pytest.mark.parametrize(
    ("template", "options", "says"),
    [
        (DefaultPrompt, {"max_passage_chars": 0}, r"DefaultPrompt.max_passage_chars must be > 0, got 0"),
        (RecipePrompt, {"max_rows": 0}, r"RecipePrompt.max_rows must be > 0, got 0"),
        (RecipePrompt, {"max_columns": -1}, r"RecipePrompt.max_columns must be > 0, got -1"),
    ],
)
def test_limits_without_sense_are_refused(template: Any, options: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        template(**options)

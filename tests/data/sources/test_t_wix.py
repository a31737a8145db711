"""Every trap of T-Wix is met, and each guard is needed: taken out, its trap is not met any more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mixture import split
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources import t_wix
from lit_align.data.sources.rows import Row
from lit_align.data.sources.t_wix import GENERAL, REASONING, TWix
from lit_align.data.tokenising import Tokenising
from lit_align.data.windows import Tree
from lit_align.forest import TokenClass, TokenPath
from lit_align.types import Conversation, Message


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def row(*messages: dict[str, str], subset: str = "general") -> dict[str, Any]:
    return {"id": "x", "messages": list(messages), "subset": subset}


QUESTION, ANSWER = turn("user", "Сколько будет 2 + 2?"), turn("assistant", "Четыре.")
TRACE = turn("assistant", "<think>\n2 + 2 = 4\n</think>\n\nЧетыре.")

# Each trap of the data set under its name: the rows, and what must come of them.
TRAPS: dict[str, list[dict[str, Any]]] = {
    "leading_system_turn": [row(turn("system", "Отвечай кратко."), QUESTION, ANSWER)],
    "several_turns": [row(QUESTION, ANSWER, turn("user", "Точно?"), turn("assistant", "Да."))],
    "trace_in_think_tags": [row(QUESTION, TRACE, subset="reasoning")],
    "trace_without_think_tags": [row(QUESTION, ANSWER, subset="reasoning")],
    "trace_in_an_earlier_turn": [
        row(QUESTION, TRACE, turn("user", "Точно?"), turn("assistant", "Да."), subset="reasoning")
    ],
    "placeholders_markup_and_quotes": [row(QUESTION, turn("assistant", ' "NAME_1: $$x^2$$ <b>да</b>" '))],
    "english_rows": [row(turn("user", "What is 2 + 2?"), turn("assistant", "Four."))],
    "long_answer": [row(QUESTION, turn("assistant", "Четыре. " * 200))],
    "long_context": [row(turn("user", f"{'Документ. ' * 4000}Что в нём?"), ANSWER), row(QUESTION, ANSWER)],
    "duplicates": [row(QUESTION, ANSWER)] * 30,
    "subsets_one_after_the_other": [
        *(row(turn("user", f"{i}?"), ANSWER) for i in range(80)),
        *(row(turn("user", f"{i}?"), TRACE, subset="reasoning") for i in range(20)),
    ],
}

Written = Callable[..., str]


@pytest.fixture
def file_of(tmp_path: Path) -> Written:
    def write(rows: list[dict[str, Any]], name: str = "twix.jsonl") -> str:
        path = tmp_path / name
        if path.suffix == ".parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
        return str(path)

    return write


def rendered(path: str, tokenizer: PreTrainedTokenizerBase, lengths: Lengths = Lengths()) -> list[Tree]:
    tokenising = Tokenising(ChatFormat(tokenizer), lengths, "all", 8192, 1.0, "stop", "training")
    return tokenising.trees(TWix(path, subset="both").conversations())


def text_of(tokenizer: PreTrainedTokenizerBase, path: TokenPath, kind: TokenClass) -> str:
    return tokenizer.decode([int(t) for t, k in zip(path.tokens, path.classes, strict=True) if k == kind])


def only_two_turns(found: Row, column: str) -> tuple[Message, ...]:
    """The known wrong way: the first message is the user's, the second the assistant's, the rest is dropped."""
    first, second = found.values[column][:2]
    return (Message("user", first["content"]), Message("assistant", second["content"]))


def stripped(found: Row, column: str) -> tuple[Message, ...]:
    return tuple(Message(m["role"], m["content"].strip(' "')) for m in found.values[column])


def without_traces(found: Row, column: str) -> tuple[Message, ...]:
    return tuple(Message(m["role"], m["content"].split("</think>")[-1].strip()) for m in found.values[column])


def check_system_turn(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    [tree] = rendered(path, tokenizer)
    prompt = text_of(tokenizer, tree.paths[0], TokenClass.PROMPT)
    assert prompt.startswith("<|im_start|>system\nОтвечай кратко.<|im_end|>\n<|im_start|>user\nСколько")
    assert text_of(tokenizer, tree.paths[0], TokenClass.ANSWER) == "Четыре.<|im_end|>"


def check_turns(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    [tree] = rendered(path, tokenizer)
    assert [text_of(tokenizer, one, TokenClass.ANSWER) for one in tree.paths] == ["Четыре.<|im_end|>", "Да.<|im_end|>"]
    assert "Четыре." in text_of(tokenizer, tree.paths[1], TokenClass.PROMPT)


def check_trace(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    [tree] = rendered(path, tokenizer)
    trained = text_of(tokenizer, tree.paths[0], TokenClass.ANSWER)
    assert trained == "<think>\n2 + 2 = 4\n</think>\n\nЧетыре.<|im_end|>"
    assert "<think>" not in text_of(tokenizer, tree.paths[0], TokenClass.PROMPT)


def check_earlier_trace(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    [tree] = rendered(path, tokenizer)
    first, second = (text_of(tokenizer, one, TokenClass.ANSWER) for one in tree.paths)
    assert first == "<think>\n2 + 2 = 4\n</think>\n\nЧетыре.<|im_end|>"
    assert second == "Да.<|im_end|>"
    assert "2 + 2 = 4" not in text_of(tokenizer, tree.paths[1], TokenClass.PROMPT), "the template drops old traces"


def check_texts(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    [conversation] = TWix(path).conversations()
    assert conversation.messages[-1].content == ' "NAME_1: $$x^2$$ <b>да</b>" '


def check_duplicates(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    del tokenizer
    rows = TWix(path).conversations()
    assert all(min(len(side) for side in t_wix_split(rows, seed)) == 0 for seed in range(8))


def t_wix_split(rows: list[Conversation], seed: int) -> tuple[list[Conversation], list[Conversation]]:
    return split(rows, 0.5, seed)


def check_no_end_on_cut(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    [tree] = rendered(path, tokenizer, Lengths(max_length=64, overlong="cut"))
    assert len(tree.paths[0].tokens) == 64
    assert tree.paths[0].tokens[-1] != tokenizer.convert_tokens_to_ids("<|im_end|>")


def check_untagged_trace(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    [tree] = rendered(path, tokenizer)
    assert text_of(tokenizer, tree.paths[0], TokenClass.ANSWER) == "Четыре.<|im_end|>"
    assert text_of(tokenizer, tree.paths[0], TokenClass.SCAFFOLD) == "<think>\n\n</think>\n\n"


def check_english(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    [tree] = rendered(path, tokenizer)
    assert text_of(tokenizer, tree.paths[0], TokenClass.ANSWER) == "Four.<|im_end|>"


def check_long_context(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    # A long document in the question: the row is dropped whole, at any `overlong`; a prompt is never cut.
    for overlong in ("drop", "cut"):
        lengths = Lengths(max_length=4096, overlong=overlong, max_dropped=1.0)  # type: ignore[arg-type]
        assert [len(tree.paths[0].tokens) < 100 for tree in rendered(path, tokenizer, lengths)] == [True]


def taken_for_a_trace(found: Row, column: str) -> tuple[Message, ...]:
    return tuple(
        Message(
            m["role"],
            f"<think>\n{m['content']}\n</think>\n\n{m['content']}" if m["role"] == "assistant" else m["content"],
        )
        for m in found.values[column]
    )


def russian_alone(found: Row, column: str) -> tuple[Message, ...]:
    """A filter by language, as recipes for Russian have it."""
    if not any("а" <= letter <= "я" for m in found.values[column] for letter in m["content"].lower()):
        raise ValueError("not Russian")
    return tuple(Message(m["role"], m["content"]) for m in found.values[column])


def shortened(found: Row, column: str) -> tuple[Message, ...]:
    return tuple(Message(m["role"], m["content"][:400]) for m in found.values[column])


def check_subsets(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    del tokenizer
    source = TWix(path, subset="both", sample_ratio=0.5)
    kinds = {one.source for one in source.draw(source.conversations(), lambda _: 1)}
    assert kinds == {GENERAL, REASONING}


GUARDS: dict[str, tuple[Callable[[str, PreTrainedTokenizerBase], None], str, Any]] = {
    "leading_system_turn": (check_system_turn, "read_messages", only_two_turns),
    "several_turns": (check_turns, "read_messages", only_two_turns),
    "trace_in_think_tags": (check_trace, "read_messages", without_traces),
    "trace_in_an_earlier_turn": (check_earlier_trace, "read_messages", without_traces),
    "trace_without_think_tags": (check_untagged_trace, "read_messages", taken_for_a_trace),
    "english_rows": (check_english, "read_messages", russian_alone),
    "long_context": (check_long_context, "read_messages", shortened),
    "placeholders_markup_and_quotes": (check_texts, "read_messages", stripped),
    "subsets_one_after_the_other": (check_subsets, "shuffled", lambda rows, _: rows),
}


@pytest.mark.parametrize("trap", GUARDS)
@pytest.mark.parametrize("name", ["twix.jsonl", "twix.parquet"])
def test_a_trap_is_met_and_its_guard_is_what_meets_it(
    trap: str, name: str, file_of: Written, qwen3_form: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, guard, without = GUARDS[trap]
    path = file_of(TRAPS[trap], name)
    check(path, qwen3_form)
    monkeypatch.setattr(t_wix, guard, without)
    with pytest.raises((AssertionError, ValueError)):
        check(path, qwen3_form)


def test_a_long_answer_that_is_cut_gets_no_end_of_turn(
    file_of: Written, qwen3_form: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(TRAPS["long_answer"])
    check_no_end_on_cut(path, qwen3_form)

    def cut_with_end(self: Lengths, found: TokenPath) -> tuple[TokenPath, str]:
        keep = [*range(self.max_length - 1), len(found.tokens) - 1]
        return TokenPath(found.tokens[keep], found.classes[keep], found.example, found.weight), "cut"

    monkeypatch.setattr(Lengths, "fit", cut_with_end)
    with pytest.raises(AssertionError):
        check_no_end_on_cut(path, qwen3_form)


def test_duplicates_are_on_one_side_of_the_split(
    file_of: Written, qwen3_form: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(TRAPS["duplicates"])
    check_duplicates(path, qwen3_form)
    monkeypatch.setattr("lit_align.data.mixture.content_hash", lambda conversation: conversation.id)
    with pytest.raises(AssertionError):
        check_duplicates(path, qwen3_form)


def test_a_trace_without_end_stops_the_run_by_name(file_of: Written, qwen3_form: PreTrainedTokenizerBase) -> None:
    path = file_of([row(QUESTION, turn("assistant", "<think>\nда"), subset="reasoning")])
    with pytest.raises(ValueError, match=r"twix\.jsonl:1, messages\[1\]\.content: opens <think> and never closes it"):
        rendered(path, qwen3_form)


def test_json_lines_and_parquet_hold_the_same_conversations(file_of: Written) -> None:
    rows = [one for trap in TRAPS.values() for one in trap]
    lines, table = (
        [(one.messages, one.source) for one in TWix(file_of(rows, name), subset="both").conversations()]
        for name in ("a.jsonl", "a.parquet")
    )
    assert lines == table
    assert len(lines) == len(rows)


@pytest.mark.parametrize(("subset", "kinds"), [("general", {GENERAL}), ("reasoning", {REASONING}), ("both", None)])
def test_a_subset_is_read_alone_or_both(file_of: Written, subset: Any, kinds: set[str] | None) -> None:
    rows = TWix(file_of(TRAPS["subsets_one_after_the_other"]), subset=subset).conversations()
    assert {one.source for one in rows} == (kinds or {GENERAL, REASONING})


def many(general: int, reasoning: int) -> list[Conversation]:
    return [
        Conversation((Message("user", f"{name} {i}?"), Message("assistant", "да")), id=f"{name}:{i}", source=name)
        for name, number in ((GENERAL, general), (REASONING, reasoning))
        for i in range(number)
    ]


def share(rows: list[Conversation], weigh: Callable[[Conversation], int] = lambda _: 1) -> float:
    return sum(weigh(one) for one in rows if one.source == REASONING) / sum(map(weigh, rows))


@pytest.mark.parametrize("sample", [0.05, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.5, 0.9])
def test_the_reasoning_ratio_is_honoured_at_every_sample_ratio(sample: float, ratio: float) -> None:
    source = TWix(subset="both", reasoning_ratio=ratio, sample_ratio=sample)
    drawn = source.draw(many(940, 60), lambda _: 7)
    assert abs(share(drawn) - ratio) <= 1 / len(drawn)
    reachable = min(round(1000 * sample), int(60 / ratio) + 1, int(940 / (1 - ratio)) + 1)
    assert reachable - 1 / ratio - 1 <= len(drawn) <= reachable


@pytest.mark.parametrize("sample", [0.2, 1.0])
def test_a_ratio_of_tokens_counts_tokens(sample: float) -> None:
    def tokens(one: Conversation) -> int:
        return 20 if one.source == REASONING else 3

    rows = many(900, 100)
    by_tokens = TWix(subset="both", reasoning_ratio=0.5, ratio_of="tokens", sample_ratio=sample).draw(rows, tokens)
    assert abs(share(by_tokens, tokens) - 0.5) <= 20 / sum(map(tokens, by_tokens))
    by_examples = TWix(subset="both", reasoning_ratio=0.5, sample_ratio=0.1).draw(rows, tokens)
    assert share(by_examples) == 0.5
    assert share(by_examples, tokens) > 0.8


def test_rows_that_do_not_fit_are_passed_over_and_the_ratio_is_of_what_fits() -> None:
    rows = many(900, 100)

    def tokens(one: Conversation) -> int:
        return 0 if one.source == REASONING and int(one.id.split(":")[1]) % 2 else 5

    drawn = TWix(subset="both", reasoning_ratio=0.2, sample_ratio=0.2).draw(rows, tokens)
    assert len(drawn) == 200
    assert share(drawn) == 0.2
    assert all(tokens(one) for one in drawn)


def test_a_ratio_that_the_rows_cannot_meet_is_said_with_how_far_they_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", t_wix.logger.name)
    drawn = TWix(subset="both", reasoning_ratio=0.5).draw(many(900, 100), lambda _: 1)
    assert share(drawn) == pytest.approx(0.5, abs=0.01)
    [told] = caplog.messages
    assert f"{len(drawn)} rows are drawn, not 1000 (`sample_ratio` 1.0 of 1000)" in told
    assert "keep `reasoning_ratio` 0.5 (101 general, 100 reasoning)" in told
    with pytest.raises(ValueError, match=r"`reasoning_ratio` = 0.5 cannot be met: none of 9 rows is t-wix/reasoning"):
        TWix(subset="both", reasoning_ratio=0.5).draw(many(9, 0), lambda _: 1)


@given(st.integers(0, 5), st.randoms())
@settings(deadline=None, max_examples=20)
def test_what_is_drawn_depends_on_texts_and_seed_alone_and_grows_with_the_ratio(seed: int, random: Any) -> None:
    rows = many(60, 20)
    shuffled = random.sample(rows, len(rows))
    less, more = (TWix(subset="both", reasoning_ratio=0.2, sample_ratio=sample, seed=seed) for sample in (0.25, 0.5))
    texts = {one.id for one in less.draw(rows, lambda _: 1)}
    assert texts == {one.id for one in less.draw(shuffled, lambda _: 1)}
    assert texts <= {one.id for one in more.draw(rows, lambda _: 1)}


def test_another_seed_draws_other_rows() -> None:
    first, second = (
        {one.id for one in TWix(sample_ratio=0.3, seed=seed).draw(many(100, 0), lambda _: 1)} for seed in (1, 2)
    )
    assert len(first) == len(second) == 30
    assert first != second


def test_the_split_comes_before_the_draw(file_of: Written) -> None:
    rows = [row(turn("user", f"{i}?"), turn("assistant", "да")) for i in range(200)]
    path = file_of(rows)

    def names(sample: float) -> tuple[set[str], set[str]]:
        data = SFTDataModule(sources=[TWix(path, sample_ratio=sample)], val_fraction=0.2)
        data.setup("fit")
        return {tree.name for tree in data._trained}, {tree.name for tree in data._validation}

    (all_train, all_val), (train, val) = names(1.0), names(0.3)
    assert train < all_train
    assert val < all_val
    assert not all_train & all_val
    assert len(train) == round(0.3 * len(all_train))
    assert len(val) == round(0.3 * len(all_val))


def test_only_drawn_candidates_are_tokenised(file_of: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of([row(turn("user", f"{i}?"), turn("assistant", "да")) for i in range(100)])
    asked: list[str] = []
    paths = ChatFormat.paths

    def counted(self: ChatFormat, conversation: Conversation, turns: Any) -> list[TokenPath]:
        asked.append(conversation.id)
        return paths(self, conversation, turns)

    monkeypatch.setattr(ChatFormat, "paths", counted)
    SFTDataModule(sources=[TWix(path, sample_ratio=0.1)]).setup("fit")
    assert len(asked) == len(set(asked)) == 10


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"messages": [QUESTION, ANSWER]}], r"twix\.jsonl:1: no column 'subset'; the row has: messages"),
        ([{"text": "a", "subset": "general"}], r"twix\.jsonl:1: no column 'messages'; the row has: text, subset"),
        ([row(QUESTION, ANSWER, subset="Reasoning")], r"subset: must be one of general, reasoning, not text \(\"R"),
        ([row(turn("tool", "4"), ANSWER)], r"messages\[0\]\.role: must be one of system, user, assistant, not text"),
        ([row(QUESTION, turn("assistant", " "))], r"messages\[1\]\.content: the assistant's text is blank"),
        ([row(QUESTION, ANSWER, QUESTION)], r"twix\.jsonl:1: must end with an assistant turn, but messages\[2\]"),
        ([row(turn("system", "Отвечай."))], r"twix\.jsonl:1: no assistant turn, so there is nothing to train"),
        ([row(QUESTION, ANSWER, subset="reasoning")], r"none of its 1 rows is a readable one of `subset` general"),
    ],
    ids=[
        "no subset", "other columns", "unknown subset", "unknown role", "blank answer", "ends with the user",
        "only a system turn", "empty subset",
    ],
)  # fmt: skip
def test_a_row_that_breaks_a_rule_stops_the_run_by_name(file_of: Written, rows: list[Any], says: str) -> None:
    path = file_of(rows)
    with pytest.raises(ValueError, match=says):
        SFTDataModule(sources=[TWix(path)]).setup("fit")


def test_a_parquet_file_with_other_columns_is_refused_with_those_that_it_has(file_of: Written) -> None:
    path = file_of([{"prompt": "a", "answer": "b", "subset": "general"}], "other.parquet")
    with pytest.raises(ValueError, match=r"other\.parquet:1: no column 'messages'; the row has: prompt, answer, sub"):
        TWix(path).conversations()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sample_ratio": 0.0}, r"TWix.sample_ratio must be in \(0, 1\], got 0.0"),
        ({"sample_ratio": 1.5}, r"TWix.sample_ratio must be in \(0, 1\], got 1.5"),
        ({"subset": "both", "reasoning_ratio": 1.0}, r"TWix.reasoning_ratio must be in \(0, 1\), got 1.0"),
        ({"reasoning_ratio": 0.2}, r"TWix.subset is general; set it to both"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TWix(**options)

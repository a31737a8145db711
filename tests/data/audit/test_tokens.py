"""What tokens alone tell: dropped rows, cuts, wrong classes, exact repeats, length bias; clean data pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_chats import chats, words

from lit_align.data.audit.counts import lengths, rows_kept
from lit_align.data.audit.load import epoch_load, realised_mix
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.start import FailedAuditError, refuse_unsound, token_measures
from lit_align.data.audit.table import Measured
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.scale_answers import ScalePairs
from lit_align.data.sources.skill_pairs import SkillPairs
from lit_align.data.trees import GivenTrees
from lit_align.data.window_module import WindowDataModule
from lit_align.data.windows import WindowDataset
from lit_align.forest import TokenClass

Make = Callable[..., Any]


def measured(data: WindowDataModule, **limits: Any) -> Measured:
    data.setup("fit")
    return token_measures(data, AuditSettings(**limits))


def failed(found: Measured) -> dict[str, float]:
    return {check.limit: check.found for check in found.failed}


def rows(found: Measured, table: str) -> list[dict[str, Any]]:
    [one] = [one for one in found.tables if one.name == table]
    return one.records()


def test_clean_conversations_break_no_limit(conversations: Make) -> None:
    found = measured(conversations(chats(30), chats(6, "val")))
    assert not found.failed
    assert {check.limit for check in found.checks} == {
        "audit.max_cut", "token classes", "audit.max_repeated", "audit.max_leaked",
    }  # fmt: skip


def test_clean_pairs_break_no_limit(pairs: Make) -> None:
    found = measured(pairs([(q, words(6 + i % 3, f"c{i}"), words(7, f"r{i}")) for i, (q, _) in enumerate(chats(40))]))
    assert not found.failed
    assert "audit.max_longer" in {check.limit for check in found.checks}


def test_cut_answers_are_counted_with_what_they_lost(conversations: Make) -> None:
    long = [[words(3, i), words(60, i)] for i in range(3)]
    whole = conversations([*chats(1), *long])
    whole.setup("fit")
    sizes = [len(path.tokens) for tree in whole.parts["training"] for path in tree.paths]
    limit = min(sizes[1:]) - 10
    assert limit > sizes[0]
    data = conversations([*chats(1), *long], lengths=Lengths(max_length=limit, overlong="cut"))
    found = measured(data)
    [row] = rows(found, "cuts")
    assert (row["answers"], row["without end"]) == (4, 3)
    assert row["tokens cut"] == sum(size - limit for size in sizes[1:])
    assert failed(found) == {"audit.max_cut": 0.75}
    assert not measured(data, max_cut=0.75).failed


def test_a_pair_counts_the_tokens_that_both_answers_lost(pairs: Make) -> None:
    rows_ = [(words(3, "q"), words(60, "c"), words(50, "r"))]
    whole = pairs(rows_)
    whole.setup("fit")
    sizes = [len(path.tokens) for path in whole.parts["training"][0].paths]
    limit = min(sizes) - 20
    found = measured(pairs(rows_, lengths=Lengths(max_length=limit, overlong="cut")))
    [row] = rows(found, "cuts")
    assert (row["without end"], row["tokens cut"]) == (2, sum(sizes) - 2 * limit)


def _relabelled(data: SFTDataModule, change: Callable[[Any], Any]) -> SFTDataModule:
    data.setup("fit")
    first, *others = data.parts["training"]
    data._trained = GivenTrees([replace(first, paths=tuple(map(change, first.paths))), *others])
    return data


@pytest.mark.parametrize(
    ("classes", "what"),
    [
        (lambda path: np.zeros_like(path.classes), "no token is of an answer"),
        (lambda path: path.classes[::-1].copy(), "prompt follows on the answer"),
        (lambda path: np.full_like(path.classes, TokenClass.ANSWER), "holds an end-of-turn token inside"),
    ],
)
def test_tokens_of_a_wrong_class_are_found(conversations: Make, classes: Make, what: str) -> None:
    data = _relabelled(conversations(chats(3)), lambda path: replace(path, classes=classes(path)))
    found = measured(data, max_cut=None)
    assert failed(found) == {"token classes": 1}
    assert what in str(found.failed[0])


def test_a_row_that_stands_twice_is_a_repeat(conversations: Make) -> None:
    data = conversations([*chats(6), chats(6)[0], chats(6)[1]])
    found = measured(data)
    assert failed(found) == {"audit.max_repeated": 0.25}
    [row] = rows(found, "repeats")
    assert (row["n"], row["repeats"]) == (8, 2)
    assert row["such as"] == "train.jsonl:7#1 = train.jsonl:1#1; train.jsonl:8#1 = train.jsonl:2#1"


def test_the_same_prompt_with_another_answer_is_no_repeat_and_is_told_across_the_split(conversations: Make) -> None:
    asked, _ = chats(8)[0]
    found = measured(conversations([*chats(8), [asked, words(8, "other")]], [[asked, words(8, "a third")]]))
    assert not found.failed
    training, validation = rows(found, "repeats")
    assert (training["repeats"], validation["trained too"], validation["prompt trained too"]) == (0, 0, 1)


def test_a_validation_row_that_is_trained_is_a_leak(conversations: Make) -> None:
    data = conversations(chats(8), [*chats(3, "val"), chats(8)[4]])
    found = measured(data)
    assert failed(found) == {"audit.max_leaked": 0.25}
    assert "1 of 4 validation examples are trained, such as val.jsonl:4#1 = train.jsonl:5#1" in str(found.failed[0])
    with pytest.raises(FailedAuditError, match=r"`audit.max_leaked` = 0: validation: val.jsonl: found 0.25"):
        refuse_unsound(data, AuditSettings())
    refuse_unsound(data, AuditSettings(max_leaked=0.25))


def test_an_example_that_a_mix_repeats_is_no_repeat() -> None:
    sources = [ScalePairs(n=8), SkillPairs(skills=["rise"], n=30)]
    mix = Mix({"scale_answers": 0.5, "skill_pairs": 0.5}, by="repeat")
    data = PreferenceDataModule(sources=sources, mix=mix, window=4, token_budget=1024, lengths=Lengths(max_length=256))
    found = measured(data, max_longer=None)
    assert not found.failed
    shares = {row["source"]: (row["pairs"], row["asked for"]) for row in rows(realised_mix(data, {"": mix}), "mix")}
    assert shares == {
        "scale_answers": (30, "50.0% of the examples (scale_answers)"),
        "skill_pairs/rise": (30, "50.0% of the examples (skill_pairs)"),
    }


@pytest.mark.parametrize("chosen_first", [True, False])
def test_pairs_that_length_tells_apart_break_the_limit(pairs: Make, chosen_first: bool) -> None:
    answers = [(words(9, f"long {i}"), words(5, f"short {i}")) for i in range(80)]
    found = measured(
        pairs([(q, *(one if chosen_first else one[::-1])) for (q, _), one in zip(chats(80), answers, strict=True)])
    )
    assert list(failed(found)) == ["audit.max_longer"]
    [row] = rows(found, "length bias")
    assert row["chosen is longer, share"] == float(chosen_first)
    assert ("the chosen answer" if chosen_first else "the rejected answer") in str(found.failed[0])


def test_length_bias_counts_pairs_and_ties() -> None:
    data = PreferenceDataModule(
        sources=[ScalePairs(n=20)], window=4, token_budget=1024, lengths=Lengths(max_length=256)
    )
    found = measured(data, max_longer=1.0)
    [row] = rows(found, "length bias")
    # The scale of a table is two tokens: "in million".
    assert (row["pairs"], row["chosen is longer, share"], row["difference"]) == (20, 1.0, 2.0)
    assert not found.failed


def test_few_pairs_break_no_limit_on_length(pairs: Make) -> None:
    found = measured(pairs([(q, words(9, f"l{i}"), words(5, f"s{i}")) for i, (q, _) in enumerate(chats(8))]))
    assert not found.failed  # 8 of 8 are no sign of 95 %


def test_rows_are_counted_by_what_became_of_them(conversations: Make) -> None:
    train = [*chats(6), ["", "an answer to nothing"], [words(3, "x"), words(200, "x")], [words(3, "x"), "  "]]
    data = conversations(train, bad_rows="drop", lengths=Lengths(max_length=128, max_dropped=1.0))
    data.setup("fit")
    found = rows_kept(data, bad_rows="stop", max_dropped=0.2)
    [row] = rows(found, "rows")
    assert (row["tokenised"], row["kept"]) == (9, 6 + (row["dropped"] == "1 refused, 1 too long"))
    assert "train.jsonl:9" in row["first refusal"]
    told = {check.limit: str(check) for check in found.failed}
    assert set(told) == {"data.lengths.max_dropped", "data.bad_rows: stop"}
    assert "set `data.bad_rows: drop`" in told["data.bad_rows: stop"]
    assert not rows_kept(data, bad_rows="drop", max_dropped=0.5).failed


def test_lengths_are_those_before_any_limit(conversations: Make) -> None:
    train = [[words(3, i), words(n, i)] for i, n in enumerate((4, 8, 16, 120))]
    data = conversations(train, lengths=Lengths(max_length=100, max_dropped=1.0))
    data.setup("fit")
    whole = conversations(train, lengths=Lengths(max_length=512))
    whole.setup("fit")
    prompt, answer = rows(lengths(data), "lengths")
    sizes = [int((path.classes == TokenClass.ANSWER).sum()) for tree in whole.parts["training"] for path in tree.paths]
    assert (answer["n"], answer["longest"], answer["mean"]) == (4, max(sizes), sum(sizes) / 4)
    assert answer["median"] == sorted(sizes)[1]
    assert sum(answer["1, 2, 4, 8, …"]) == prompt["n"] == 4


def test_an_epoch_costs_what_its_windows_hold_once_they_are_built(conversations: Make) -> None:
    shared = words(20, "shared")
    data = conversations([[shared, words(5, i)] for i in range(7)] + chats(6), token_budget=128, window=3)
    data.setup("fit")
    [row] = rows(epoch_load(data), "an epoch")
    dataset = WindowDataset(data.parts["training"], [], data._plan, 128, 0, 1)
    windows = [dataset[i] for i in range(data.windows_per_epoch)]
    built = sum(len(forest) for window in windows for forest in window.forests)
    tokens = sum(len(path.tokens) for tree in data.parts["training"] for path in tree.paths)
    assert (row["windows"], row["rows"], row["tokens"]) == (5, built, tokens)
    assert row["shared"] == round(tokens / built, 2)
    forests = sum(len(window.forests) for window in windows)
    assert row["budget filled, share"] == pytest.approx(built / forests / 128)

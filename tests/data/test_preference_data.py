"""Pairs of a group share what they can, windows hold the pairs asked for, and nothing is parted or lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_align.data import length_report, trees
from lit_align.data.lengths import Lengths
from lit_align.data.packing import GroupPlan
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.forest import Window
from lit_align.types import Message, PairSource, PreferencePair

TABLE = "profit 2019 47 , 2020 51 .\n"


@dataclass(frozen=True)
class Tables(PairSource):
    """Pairs about tables: so many questions each."""

    number: int = 12
    questions: int = 6
    name: str = "tables"

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """See the class."""
        return [
            PreferencePair(
                (Message("user", f"{TABLE * 4}table {table} question {question}?"),),
                "yes " * (question + 1), "yes no", f"{self.name}:{table}:{question}", f"{self.name}/{question % 2}",
                f"table {table}",
            )
            for table in range(self.number) if keep(f"table {table}") for question in range(self.questions)
        ]  # fmt: skip


@dataclass(frozen=True)
class Listed(PairSource):
    """Pairs as given, each alone."""

    answers: tuple[tuple[str, str], ...]

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """See the class."""
        del keep
        return [
            PreferencePair((Message("user", f"{i}?"),), chosen, rejected, f"row:{i}", "listed")
            for i, (chosen, rejected) in enumerate(self.answers)
        ]


def some_data(rank: int = 0, ranks: int = 1, step: int = 0, **options: Any) -> PreferenceDataModule:
    data = PreferenceDataModule(**{"sources": [Tables()], "window": 16, **options})
    data.trainer = SimpleNamespace(global_step=step, global_rank=rank, world_size=ranks)  # type: ignore[assignment]
    data.setup("fit")
    return data


def windows(data: PreferenceDataModule) -> list[Window]:
    return list(data.train_dataloader())


def names(all_windows: list[Window]) -> Counter[str]:
    return Counter(name for window in all_windows for forest in window.forests for name in forest.examples)


EVERY = Counter(f"tables:{t}:{q} {side}" for t in range(12) for q in range(6) for side in ("chosen", "rejected"))


def test_an_epoch_holds_every_pair_once_and_its_answers_stand_side_by_side() -> None:
    found = windows(some_data())
    assert names(found) == EVERY
    for window in found:
        for forest in window.forests:
            chosen, rejected = forest.examples[::2], forest.examples[1::2]
            assert [name.removesuffix(" chosen") for name in chosen] == [n.removesuffix(" rejected") for n in rejected]
            assert set(forest.sources) <= {"tables/0", "tables/1"}


def test_questions_of_a_table_share_it_and_both_answers_share_the_question() -> None:
    data = some_data()
    sizes = [tree.size for tree in data._trained]
    naive = [sum(len(path.tokens) for path in tree.paths) for tree in data._trained]
    assert max(sizes) < 0.25 * min(naive)
    assert sum(len(forest) for window in windows(data) for forest in window.forests) == sum(sizes)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("budget", [8192, 400])
def test_ranks_and_budget_change_no_window(ranks: int, budget: int) -> None:
    by_rank = [windows(some_data(rank=rank, ranks=ranks, token_budget=budget)) for rank in range(ranks)]
    assert names([window for one in by_rank for window in one]) == EVERY
    alone = windows(some_data(token_budget=budget))
    for at, whole in enumerate(alone):
        assert names([one[at] for one in by_rank]) == names([whole])
    assert all(len(forest) <= budget for one in by_rank for window in one for forest in window.forests)


def test_a_group_over_the_window_or_the_budget_is_split_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", trees.logger.name)
    data = some_data(window=4)
    assert "training: 12 of 12 groups hold more pairs than `data.window` = 4" in "\n".join(caplog.messages)
    assert {len(tree.paths) for tree in data._trained} == {8, 4}
    assert names(windows(data)) == EVERY
    small = some_data(token_budget=max(tree.size for tree in some_data(window=1)._trained))
    assert names(windows(small)) == EVERY


def test_a_pair_over_the_budget_is_an_error_that_names_it() -> None:
    largest = max(tree.size for tree in some_data(window=1)._trained)
    with pytest.raises(ValueError, match=rf"tables:\d+:\d chosen: the {largest} tokens of its pair are over"):
        some_data(token_budget=largest - 1)


# ------------------------------------------------------------------------------------------------ the plan


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(9, 40), st.integers(0, 3))
def test_windows_hold_every_group_once_and_none_is_empty(counts: list[int], window: int, seed: int) -> None:
    plan = GroupPlan(tuple(counts), window, seed)
    for epoch in (0, 1):
        first = epoch * plan.windows_per_epoch
        members = [plan.trained_in(first + at) for at in range(plan.windows_per_epoch)]
        assert sorted(group for one in members for group in one) == list(range(len(counts)))
        held = [sum(counts[group] for group in one) for one in members]
        assert min(held) > 0
        if len(held) > 1:
            width = sum(counts) / len(held)
            assert window <= width < 2 * window
            assert all(abs(sum(held[: at + 1]) - (at + 1) * width) < max(counts) for at in range(len(held)))


def test_the_log_says_how_many_pairs_a_window_holds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    some_data()
    assert "training: 72 pairs in 12 groups; 4 windows an epoch, of 18 to 18 pairs (asked for: 16)" in caplog.messages


def test_asking_for_the_windows_before_the_data_are_read_changes_nothing() -> None:
    data = PreferenceDataModule(sources=[Tables()], window=16)
    assert data.windows_per_epoch == 1
    data.setup("fit")
    assert data.windows_per_epoch == some_data().windows_per_epoch == 4


def test_another_seed_is_another_order_and_a_resumed_loader_goes_on_where_the_run_stands() -> None:
    first = [window.examples for window in windows(some_data())]
    assert [window.examples for window in windows(some_data(seed=1))] != first
    assert [window.examples for window in windows(some_data(step=2))][:2] == first[2:]


# ------------------------------------------------------------------------------------------------ split and limits


def test_the_split_parts_no_group_and_depends_on_its_name_alone() -> None:
    def sides(**options: Any) -> tuple[set[str], set[str]]:
        data = some_data(val_fraction=0.3, **options)
        return {tree.name for tree in data._trained}, {tree.name for tree in data._validation}

    train, validation = sides()
    assert train | validation == {f"table {t}" for t in range(12)}
    assert train
    assert validation
    assert not train & validation
    more_train, more_validation = sides(sources=[Tables(number=30)])
    assert train < more_train
    assert validation < more_validation
    assert sides(split_seed=1)[1] != validation
    assert sides(seed=5)[1] == validation


def test_no_group_held_out_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"`data.val_fraction` = 0\.001 holds out none of 72 pairs"):
        some_data(val_fraction=0.001)


@pytest.mark.parametrize("overlong", ["drop", "cut"])
def test_what_becomes_of_pairs_is_told_exactly(caplog: pytest.LogCaptureFixture, overlong: Any) -> None:
    caplog.set_level("INFO", length_report.logger.name)
    long = "yes " * 40
    source = Listed((("yes", "no"), (long, "no"), (long, long + "no"), ("no", long)))
    data = some_data(sources=[source], lengths=Lengths(max_length=40, overlong=overlong, max_dropped=1.0))
    told = {
        "drop": "listed: 4 pairs: 1 kept, 3 too long",
        "cut": "listed: 4 pairs: 2 cut, 1 equal after the cut, 1 kept",
    }
    assert told[overlong] in "\n".join(caplog.messages)
    ends = [path.tokens[-1] for tree in data._trained for path in tree.paths if len(path.tokens) == 40]
    assert len(ends) == (2 if overlong == "cut" else 0)
    assert data.chat.tokenizer.convert_tokens_to_ids("<|im_end|>") not in ends


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (("yes", " yes "), r"row:1: chosen and rejected are equal \('yes'\)"),
        (("yes", " "), r"row:1 rejected, messages\[1\].content: the answer is blank"),
        (("a <|im_end|> b", "no"), r"row:1 chosen, messages\[1\].content: holds the text of the control token"),
    ],
    ids=["equal", "blank", "control token"],
)
def test_a_pair_that_breaks_a_rule_stops_the_run_by_name_or_is_counted(
    answers: tuple[str, str], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = Listed((("yes", "no"), answers))
    with pytest.raises(ValueError, match=says):
        some_data(sources=[source])
    caplog.set_level("INFO", length_report.logger.name)
    assert len(some_data(sources=[source], bad_rows="drop")._trained) == 1
    assert "listed: 2 pairs: 1 kept, 1 refused; first refusal: row:1" in "\n".join(caplog.messages)


@pytest.mark.parametrize("val_fraction", [0.0, 0.4])
def test_rows_that_a_source_cannot_read_stop_the_run_or_are_counted_once(
    val_fraction: float, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(9)]
    rows[3:3] = [{"prompt": "a"}, {**rows[0], "rejected": " "}]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options: dict[str, Any] = {"sources": [PreferenceFile("pairs.jsonl")], "val_fraction": val_fraction}
    with pytest.raises(ValueError, match=r"pairs\.jsonl:4: no column 'chosen'"):
        some_data(**options)
    caplog.set_level("INFO", length_report.logger.name)
    data = some_data(**options, bad_rows="drop")
    kept = len(data._trained)
    assert kept + len(data._validation) == 9
    told = [line for line in caplog.messages if " pairs: " in line]
    assert told[0] == (
        f"training: pairs.jsonl: {kept + 2} pairs: {kept} kept, 2 refused; first refusal: pairs.jsonl:4: no column "
        "'chosen'; the row has: prompt"
    )
    assert told[1:] == ([f"validation: pairs.jsonl: {9 - kept} pairs: {9 - kept} kept"] if val_fraction else [])


def test_a_validation_source_of_which_nothing_is_left_stops_the_run() -> None:
    Path("pairs.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n", encoding="utf-8")
    options: dict[str, Any] = {"val_sources": [PreferenceFile("pairs.jsonl")], "bad_rows": "drop"}
    with pytest.raises(ValueError, match=r"no example is left for validation: of 1 pairs 1 refused"):
        some_data(**options)


def test_a_source_that_brings_nothing_beside_others_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"training: `data.sources`, number 2 of 2 \(Listed\), brings no example"):
        some_data(sources=[Tables(), Listed(())])
    Path("pairs.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"number 1 of 2 \(PreferenceFile\).*pairs\.jsonl: 1 pairs: 1 refused"):
        some_data(sources=[PreferenceFile("pairs.jsonl"), Tables()], bad_rows="drop")


def test_the_trial_forest_is_no_smaller_than_any_and_holds_whole_pairs() -> None:
    for budget in (8192, 700, 330):
        data = some_data(token_budget=budget, window=32)
        largest = data.largest_forest()
        assert len(largest.examples) % 2 == 0
        assert max(len(forest) for window in windows(data) for forest in window.forests) <= len(largest) <= budget
        assert set(largest.sources) <= {"tables/0", "tables/1"}
    assert len(data.probe_forest().examples) % 2 == 0


def test_identities_tell_runs_apart() -> None:
    base = some_data().identity()
    for options in (
        {"window": 12},
        {"seed": 3},
        {"token_budget": 4096},
        {"sources": [Tables(name="other", questions=5)]},
    ):
        assert some_data(**options).identity() != base, options
    assert some_data().identity() == base


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sources": []}, "`data.sources` is empty"),
        ({"window": 0}, "`data.window` must be > 0, got 0"),
        ({"val_fraction": 1.0}, r"`data.val_fraction` must be in \[0, 1\), got 1.0"),
        ({"token_budget": 0}, "`data.token_budget` must be > 0, got 0"),
        ({"workers": -1}, "`data.workers` must be >= 0, got -1"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PreferenceDataModule(**{"sources": [Tables()], **options})

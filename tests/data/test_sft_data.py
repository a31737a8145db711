"""Limits are exact and counted, ranks and workers change no window, identities tell runs apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_align.data import length_report
from lit_align.data.lengths import Lengths
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.data.windows import Tree
from lit_align.forest import TokenClass, TokenForest, TokenPath, Window
from lit_align.types import Conversation, ConversationSource, Message


@dataclass(frozen=True)
class Given(ConversationSource):
    """Conversations of one or two turns, the answers of growing length."""

    number: int = 9
    name: str = "given"

    def conversations(self) -> list[Conversation]:
        """See the class."""
        result = []
        for i in range(self.number):
            turns = [Message("user", f"{self.name} {i}?"), Message("assistant", "yes " * (i + 1))]
            if i % 2:
                turns += [Message("user", "Sure?"), Message("assistant", "yes")]
            result.append(Conversation(tuple(turns), id=f"{self.name}:{i}", source=self.name))
        return result


def some_data(rank: int = 0, ranks: int = 1, step: int = 0, **options: Any) -> SFTDataModule:
    data = SFTDataModule(**{"sources": [Given()], "window": 4, **options})
    data.trainer = SimpleNamespace(global_step=step, global_rank=rank, world_size=ranks)  # type: ignore[assignment]
    data.setup("fit")
    return data


def test_a_source_that_brings_nothing_beside_others_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"training: `data.sources`, number 2 of 2 \(Given\), brings no example"):
        some_data(sources=[Given(2), Given(0)])


def path(prompt: int, answer: int) -> TokenPath:
    classes = [TokenClass.PROMPT] * prompt + [TokenClass.ANSWER] * answer
    return TokenPath(np.arange(prompt + answer, dtype=np.int32), np.array(classes, np.uint8), "x")


def paths_in(windows: Sequence[Window]) -> Counter[tuple[str, tuple[int, ...], bool]]:
    found: Counter[tuple[str, tuple[int, ...], bool]] = Counter()
    for window in windows:
        for forest in window.forests:
            for index, (name, tokens) in enumerate(zip(forest.examples, forest.paths(), strict=True)):
                replayed = bool(forest.replayed[forest.target_examples == index].all())
                found[name, tuple(tokens.tolist()), replayed] += 1
    return found


def train_windows(data: SFTDataModule) -> list[Window]:
    return list(data.train_dataloader())


# ---------------------------------------------------------------------- lengths


@given(st.integers(1, 12), st.integers(1, 12), st.integers(2, 16), st.integers(0, 16), st.sampled_from(["drop", "cut"]))
def test_limits_hold_exactly_and_every_outcome_has_its_rule(
    prompt: int, answer: int, longest: int, prompt_limit: int, overlong: Literal["drop", "cut"]
) -> None:
    lengths = Lengths(longest, min(prompt_limit, longest), overlong)
    fitted, outcome = lengths.fit(path(prompt, answer))
    if prompt > (min(prompt_limit, longest) or longest):
        assert (fitted, outcome) == (None, "prompt too long")
    elif prompt + answer <= longest:
        assert outcome == "kept"
        assert fitted is not None
        assert len(fitted.tokens) == prompt + answer
    elif overlong == "drop" or prompt == longest:
        assert (fitted, outcome) == (None, "too long")
    else:
        assert outcome == "cut"
        assert fitted is not None
        assert fitted.tokens.tolist() == list(range(longest))
        assert fitted.classes[-1] == TokenClass.ANSWER


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"max_length": 1}, "`data.lengths.max_length` must be > 1, got 1"),
        ({"max_prompt_length": -1}, r"`data.lengths.max_prompt_length` must be in \[0, max_length = 4096\], got -1"),
        ({"max_length": 8, "max_prompt_length": 9}, r"must be in \[0, max_length = 8\], got 9"),
    ],
)
def test_limits_that_mean_nothing_are_refused(options: dict[str, int], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Lengths(**options)


@pytest.mark.parametrize("overlong", ["drop", "cut"])
def test_what_was_kept_cut_and_dropped_is_told_exactly(
    caplog: pytest.LogCaptureFixture, overlong: Literal["drop", "cut"]
) -> None:
    caplog.set_level("INFO", length_report.logger.name)
    whole = [p for tree in some_data()._trained for p in tree.paths]
    lengths = Lengths(max_length=24, max_prompt_length=22, overlong=overlong, max_dropped=1.0)
    data = some_data(lengths=lengths)
    expected = Counter(lengths.fit(p)[1] for p in whole)
    assert len(expected) == 3
    summary = ", ".join(f"{number} {outcome}" for outcome, number in sorted(expected.items()))
    told = [message for message in caplog.messages if message.startswith("training: ")]
    assert told == ["training: given: 13 answers: 13 kept", f"training: given: 13 answers: {summary}"]
    assert sum(len(tree.paths) for tree in data._trained) == expected["kept"] + expected["cut"]


def test_a_cut_answer_has_no_end_of_turn_token_and_a_kept_one_has() -> None:
    data = some_data(lengths=Lengths(max_length=24, overlong="cut"))
    end = data.chat.tokenizer.convert_tokens_to_ids("<|im_end|>")
    last = {p.example: (len(p.tokens), int(p.tokens[-1])) for tree in data._trained for p in tree.paths}
    whole = {p.example: len(p.tokens) for tree in some_data()._trained for p in tree.paths}
    assert {whole[name] > 24 for name in last} == {True, False}
    for name, (length, token) in last.items():
        assert (token == end) == (whole[name] <= 24)
        assert length == min(whole[name], 24)


def test_an_answer_over_the_budget_is_an_error_that_names_its_row() -> None:
    longest = max(len(path.tokens) for tree in some_data()._trained for path in tree.paths)
    message = rf"given:\d: its {longest} tokens are over `data.token_budget` = {longest - 1}"
    with pytest.raises(ValueError, match=message):
        some_data(token_budget=longest - 1)
    some_data(token_budget=longest)


@dataclass(frozen=True)
class LongTalk(Given):
    """Conversations of several turns, each answer a path of its own."""

    def conversations(self) -> list[Conversation]:
        """See the class."""
        turns = [turn for i in range(6) for turn in (Message("user", f"{i}?"), Message("assistant", "yes " * 5))]
        return [Conversation(tuple(turns), id=f"talk:{i}", source=self.name) for i in range(self.number)]


def test_turns_that_take_more_than_the_budget_together_go_to_several_forests() -> None:
    whole = some_data(sources=[LongTalk(3)])
    budget = max(len(path.tokens) for tree in whole._trained for path in tree.paths)
    assert budget < min(tree.size for tree in whole._trained), "the trap is set"
    cut = some_data(sources=[LongTalk(3)], token_budget=budget)
    windows = train_windows(cut)
    assert max(len(forest) for window in windows for forest in window.forests) <= budget
    assert paths_in(windows) == paths_in(train_windows(whole))
    assert len(windows) == len(train_windows(whole)) == 1
    assert len(cut.largest_forest()) == budget


def test_no_usable_example_is_an_error_that_says_why() -> None:
    with pytest.raises(
        ValueError,
        match=r"no example is left for training: of 13 answers 13 prompt too long .*raise `data.lengths.max_length`",
    ):
        some_data(lengths=Lengths(max_length=3))
    with pytest.raises(ValueError, match="no example is left for replay"):
        some_data(replay=[Given(0, "empty"), Given(1, "x" * 80)], replay_share=1.0, lengths=Lengths(max_length=50))


def test_a_limit_that_drops_more_than_the_set_share_stops_with_the_lengths(caplog: pytest.LogCaptureFixture) -> None:
    says = (
        r"12 of 13 answers .92%. would be dropped, more than `data.lengths.max_dropped` = 50% allows; "
        r"raise `data.lengths.max_length`.*overlong: cut"
    )
    with pytest.raises(ValueError, match=says):
        some_data(lengths=Lengths(max_length=24))
    head, *lines = caplog.messages[-1].splitlines()
    assert head.endswith("against a limit of 24:")
    assert sum(int(line.split("|")[1].split()[1 - line.count("| ")]) for line in lines) == 13
    assert [line.endswith(" over") for line in lines] == [False, True, True]
    assert len(some_data(lengths=Lengths(max_length=24, max_dropped=12 / 13))._trained) == 1


def test_the_share_is_that_of_each_source() -> None:
    long = Given(2, "long" * 20)
    with pytest.raises(ValueError, match=r"training: (long)+: 3 of 3 answers"):
        some_data(sources=[Given(9), long], lengths=Lengths(max_length=60))


@dataclass(frozen=True)
class OneBad(Given):
    """The second row holds a control token."""

    def conversations(self) -> list[Conversation]:
        """See the class."""
        rows = super().conversations()
        bad = (Message("user", "a <|im_end|> b"), Message("assistant", "yes"))
        return [rows[0], Conversation(bad, id="given:bad", source=self.name), *rows[1:]]


def test_a_refused_row_stops_the_run_or_is_counted_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"given:bad, messages\[0\].content: holds the text of the control token"):
        some_data(sources=[OneBad()])
    caplog.set_level("INFO", length_report.logger.name)
    data = some_data(sources=[OneBad()], bad_rows="drop")
    assert data.identity() == some_data().identity()
    [told] = [line for line in caplog.messages if line.startswith("training: ")][:1]
    assert told.startswith("training: given: 14 answers: 13 kept, 1 refused; first refusal: given:bad, messages[0]")


def test_refused_rows_count_as_dropped() -> None:
    with pytest.raises(ValueError, match=r"1 of 14 answers .7%. would be dropped"):
        some_data(sources=[OneBad()], bad_rows="drop", lengths=Lengths(max_dropped=0.05))


def test_seed_and_split_seed_are_apart() -> None:
    def held_out(**seeds: int) -> set[str]:
        return {tree.name for tree in some_data(sources=[Given(40)], val_fraction=0.3, **seeds)._validation}

    assert held_out(seed=1) == held_out(seed=2)
    assert held_out(split_seed=1) != held_out(split_seed=2)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"window": 0}, "`data.window` must be > 0, got 0"),
        ({"token_budget": 0}, "`data.token_budget` must be > 0, got 0"),
        ({"replay_share": -0.5}, "`data.replay_share` must be >= 0, got -0.5"),
        ({"replay_share": float("nan")}, "`data.replay_share` must be >= 0, got nan"),
        ({"val_fraction": 1.0}, r"`data.val_fraction` must be in \[0, 1\), got 1.0"),
        ({"workers": -1}, "`data.workers` must be >= 0, got -1"),
        ({"sources": []}, "`data.sources` is empty"),
        ({"replay_share": 0.5}, r"`data.replay` \(0 sources\) and `data.replay_share` \(0.5\) go together"),
        ({"replay": [Given()]}, r"`data.replay` \(1 sources\) and `data.replay_share` \(0.0\) go together"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        SFTDataModule(**{"sources": [Given()], **options})


def test_a_validation_fraction_that_holds_out_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"`data.val_fraction` = 0.0001 holds out none of 9 conversations"):
        some_data(val_fraction=0.0001)


# ---------------------------------------------------------------------- windows


def test_windows_of_two_ranks_together_hold_what_one_rank_holds() -> None:
    options: dict[str, Any] = {"replay": [Given(5, "old")], "replay_share": 0.6, "token_budget": 100}
    alone = train_windows(some_data(**options))
    ranks = [train_windows(some_data(rank=rank, ranks=2, **options)) for rank in range(2)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert paths_in(parts) == paths_in([whole])
        assert {part.examples for part in parts} == {whole.examples}
        assert {part.index for part in parts} == {whole.index}


def test_a_rank_may_hold_nothing_of_a_window() -> None:
    ranks = [train_windows(some_data(rank=rank, ranks=2, window=1))[0] for rank in range(2)]
    assert [len(window.forests) for window in ranks] == [1, 0]


def test_replayed_conversations_carry_no_nll_and_trained_ones_do() -> None:
    data = some_data(replay=[Given(5, "old")], replay_share=1.0)
    for name, _, replayed in paths_in(train_windows(data)):
        assert replayed == name.startswith("old")


@pytest.mark.parametrize("window", [1, 2, 4])
def test_every_forest_keeps_to_the_budget_and_none_is_larger_than_the_trial_forest(window: int) -> None:
    data = some_data(token_budget=100, window=window, replay=[Given(5, "old")], replay_share=0.5)
    dataset = data.train_dataloader().dataset
    made = [len(forest) for number in range(40) for forest in dataset[number].forests]
    assert max(made) <= 100
    assert max(made) <= len(data.largest_forest()) <= 100


def same(one: Window, other: Window) -> bool:
    fields = ("tokens", "positions", "subtree_end", "pair_rows", "pair_tokens", "target_pairs", "target_weights")
    forests = zip(one.forests, other.forests, strict=True)
    equal = all(torch.equal(getattr(a, name), getattr(b, name)) for a, b in forests for name in fields)
    return equal and (one.index, one.examples) == (other.index, other.examples)


def test_worker_processes_give_the_same_windows() -> None:
    for one, other in zip(train_windows(some_data()), train_windows(some_data(workers=2)), strict=True):
        assert same(one, other)


def test_a_loader_that_is_opened_later_goes_on_where_the_run_stands() -> None:
    whole = train_windows(some_data()) + train_windows(some_data(step=3))
    later = train_windows(some_data(step=2))
    assert [window.index for window in later] == [2, 3, 4]
    assert all(same(one, other) for one, other in zip(whole[2:5], later, strict=True))


def test_opening_a_loader_draws_no_random_number() -> None:
    data = some_data(val_sources=[Given(2, "val")])
    before = torch.get_rng_state()
    train_windows(data)
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_validation_source_of_which_nothing_is_left_stops_the_run() -> None:
    Path("bad.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no example is left for validation: of 1 answers 1 refused"):
        some_data(val_sources=[MessagesFile("bad.jsonl")], bad_rows="drop")


def test_validation_windows_hold_every_conversation_once_in_any_run() -> None:
    data = some_data(val_sources=[Given(7, "val")], step=5)
    assert {name.split("#")[0] for name, _, _ in paths_in(list(data.val_dataloader()))} == {
        f"val:{i}" for i in range(7)
    }
    split = some_data(sources=[Given(40)], val_fraction=0.3)
    held = {name for window in split.val_dataloader() for name in window.examples}  # type: ignore[union-attr]
    assert held
    assert not held & {tree.name for tree in split._trained}
    assert len(held) + len(split._trained) == 40


def test_only_last_turns_are_trained_when_asked() -> None:
    assert {len(tree.paths) for tree in some_data(turns="last")._trained} == {1}
    assert {len(tree.paths) for tree in some_data(turns="all")._trained} == {1, 2}


def test_the_probe_has_several_turns_where_there_are_any() -> None:
    assert isinstance(some_data().probe_forest(), TokenForest)
    assert len(some_data().probe_forest().examples) == 4


# ---------------------------------------------------------------------- identity

CHANGES: list[dict[str, Any]] = [
    {"window": 5},
    {"seed": 1},
    {"token_budget": 4096},
    {"sources": [Given(8)]},
    {"sources": [Given(9, "other")]},
    {"turns": "last"},
    {"lengths": Lengths(max_length=24, overlong="cut")},
    {"replay": [Given(3, "old")], "replay_share": 0.5},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: ",".join(change))
def test_identity_changes_with_whatever_changes_the_windows(change: dict[str, Any]) -> None:
    assert some_data(**change).identity() != some_data().identity()


def test_identity_does_not_change_with_workers_validation_or_names() -> None:
    assert some_data(workers=2, val_sources=[Given(2, "val")]).identity() == some_data().identity()


def test_the_same_tokens_divided_otherwise_into_conversations_have_another_identity() -> None:
    one, other = some_data(), some_data()
    first, second, *rest = one._trained
    merged = [p for tree in (first, second) for p in tree.paths]
    assert len(merged) == 3
    other._trained = [
        Tree(first.name, tuple(merged[:2]), 0), Tree(second.name, tuple(merged[2:]), 0), *rest,
    ]  # fmt: skip
    assert other.identity()["data"] != one.identity()["data"]


# ---------------------------------------------------------------------- groups


@dataclass(frozen=True)
class OneTable(ConversationSource):
    """Questions on one long text, as a group or each alone."""

    group: str = "table"
    name: str = "tables"
    first: int = 0

    def conversations(self) -> list[Conversation]:
        """See the class."""
        text = "A table of numbers that all of the questions are about. " * 3
        return [
            Conversation(
                (Message("user", f"{text}Question {i}?"), Message("assistant", f"{i}")), str(i), self.name, self.group
            )
            for i in range(self.first, self.first + 4)
        ]


def test_conversations_of_one_group_share_their_tokens_and_keep_their_paths() -> None:
    together, alone = (train_windows(some_data(sources=[OneTable(group)])) for group in ("table", ""))
    assert paths_in(together) == paths_in(alone)
    sizes = [sum(len(forest) for window in windows for forest in window.forests) for windows in (together, alone)]
    assert sizes[0] < sizes[1] / 2


def test_conversations_of_one_group_meet_also_across_sources_and_are_computed_once() -> None:
    windows = train_windows(some_data(sources=[OneTable(), Given(9), OneTable(name="more tables", first=4)], window=8))
    asked = [{name for name in window.examples if ":" not in name} for window in windows]
    assert set().union(*asked) == {str(i) for i in range(8)}
    assert sum(map(bool, asked)) <= 2, "one window, or two where one ends among them"
    one, *_ = some_data(sources=[OneTable()])._trained
    others = sum(tree.size for tree in some_data()._trained)
    rest = sum(len(forest) for window in windows for forest in window.forests) - others
    assert rest < 3 * one.size, "eight conversations, their text at most twice"


def test_a_group_is_on_one_side_of_the_split_and_the_trained_ones_are_known() -> None:
    for seed in range(4):
        data = some_data(sources=[OneTable(), OneTable("other"), Given(9)], val_fraction=0.5, split_seed=seed)
        sides = [{tree.group for tree in trees if tree.group} for trees in (data._trained, data._validation)]
        assert not sides[0] & sides[1]
        assert data.trained_groups & {"table", "other"} == sides[0]
        assert len(data.trained_groups) == len(sides[0]) + sum(not tree.group for tree in data._trained)


def test_the_probe_has_a_branch_also_where_all_conversations_have_one_turn() -> None:
    probe = some_data(sources=[OneTable("")]).probe_forest()
    assert any(len(segment.children) > 1 for segment in probe.segments)

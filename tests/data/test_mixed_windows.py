"""What windows of both data modules hold of a mix: the shares, whole groups, every copy; and what it leaves alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from lit_align.data import length_report
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.window_module import WindowDataModule
from lit_align.forest import Window
from lit_align.types import Conversation, ConversationSource, Message, PairSource, PreferencePair


def question(table: int, number: int, name: str) -> tuple[Message, ...]:
    return (Message("user", f"table {table} : profit 2019 {table} . {name} {number}?"),)


@dataclass(frozen=True)
class Talks(ConversationSource):
    """Two questions on each table, which the sources share."""

    name: str
    tables: int = 12

    def conversations(self) -> list[Conversation]:
        """See the class."""
        return [
            Conversation(
                (*question(table, number, self.name), Message("assistant", "yes " * (1 + table % 3))),
                f"{self.name}:{table}:{number}", self.name, f"table {table}",
            )
            for table in range(self.tables) for number in range(2)
        ]  # fmt: skip


@dataclass(frozen=True)
class Pairs(PairSource):
    """The same as pairs."""

    name: str
    tables: int = 12

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """See the class."""
        return [
            PreferencePair(one.messages[:-1], one.messages[-1].content, "no", one.id, one.source, one.group)
            for one in Talks(self.name, self.tables).conversations() if keep(one.group)
        ]  # fmt: skip


KINDS = {"conversations": (SFTDataModule, Talks), "pairs": (PreferenceDataModule, Pairs)}
of_both_kinds = pytest.mark.parametrize("kind", KINDS)


def mixed(kind: str, mix: Mix | None, rank: int = 0, ranks: int = 1, step: int = 0, **options: Any) -> WindowDataModule:
    module, source = KINDS[kind]
    options = {"sources": [source("small", 6), source("large", 24)], "window": 6, **options}
    data = module(mix=mix, **options)
    data.trainer = SimpleNamespace(global_step=step, global_rank=rank, world_size=ranks)  # type: ignore[assignment]
    data.setup("fit")
    return data


def examples(windows: list[Window]) -> Counter[str]:
    """How often each example is trained."""
    names = [name for window in windows for forest in window.forests for name in forest.examples]
    return Counter(name.removesuffix(" chosen") for name in names if not name.endswith(" rejected"))


def epoch(data: WindowDataModule) -> list[Window]:
    return list(data.train_dataloader())


def by_source(counts: Counter[str]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, times in counts.items():
        found[name.split(":")[0]] += times
    return dict(found)


@of_both_kinds
def test_an_epoch_holds_the_shares_asked_for(kind: str) -> None:
    assert by_source(examples(epoch(mixed(kind, None)))) == {"small": 12, "large": 48}
    half, repeated = Mix({"small": 1, "large": 1}), Mix({"small": 1, "large": 1}, by="repeat")
    assert by_source(examples(epoch(mixed(kind, half)))) == {"small": 12, "large": 12}
    found = examples(epoch(mixed(kind, repeated)))
    assert by_source(found) == {"small": 48, "large": 48}
    assert {times for name, times in found.items() if name.startswith("small")} == {4}


@of_both_kinds
def test_the_log_says_what_is_drawn_of_what(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", length_report.logger.name)
    mixed(kind, Mix({"small": 3, "large": 1}, by="repeat", size=40))
    told = [line.removeprefix("training: mix: ") for line in caplog.messages if "mix: " in line]
    assert told == [
        "large: 10 of 40 examples, 25.00% of the examples (asked for: 25.00%); 10 of its 48",
        "small: 30 of 40 examples, 75.00% of the examples (asked for: 75.00%); 12 of its 12, up to 3 times",
    ]


@of_both_kinds
def test_shares_of_tokens_are_those_of_the_trained_ones(kind: str) -> None:
    data = mixed(kind, Mix({"small": 1, "large": 2}, of="tokens"))
    tokens: Counter[str] = Counter()
    for window in epoch(data):
        for forest in window.forests:
            for example in forest.target_examples.tolist():
                tokens[forest.sources[example]] += 1
    largest = 12
    assert abs(tokens["large"] - 2 * tokens["small"]) <= 3 * largest
    assert tokens["small"] > 5 * largest


@of_both_kinds
def test_what_the_lengths_drop_does_not_count(kind: str) -> None:
    paths = [path for tree in mixed(kind, None)._trained for path in tree.paths]
    longest = max(len(path.tokens) for path in paths if path.source == "small")
    limits = Lengths(max_length=longest - 1, max_dropped=1.0)
    left = by_source(examples(epoch(mixed(kind, None, lengths=limits))))
    assert left["small"] < 12
    found = by_source(examples(epoch(mixed(kind, Mix({"small": 1, "large": 1}), lengths=limits))))
    assert found == {"small": left["small"], "large": left["small"]}


@of_both_kinds
def test_the_validation_set_and_the_trained_groups_are_those_without_a_mix(kind: str) -> None:
    def held_out(mix: Mix | None, **options: Any) -> tuple[list[str], frozenset[str]]:
        data = mixed(kind, mix, val_fraction=0.3, **options)
        assert isinstance(data, SFTDataModule | PreferenceDataModule)
        return [tree.name for tree in data._validation], data.trained_groups

    expected = held_out(None)
    assert len(expected[0]) > 2
    for mix in (Mix({"small": 1, "large": 1}), Mix({"small": 1, "large": 5}, seed=3, by="repeat")):
        assert held_out(mix) == held_out(mix, seed=5) == expected
        trained = examples(epoch(mixed(kind, mix, val_fraction=0.3)))
        tables = {f"table {name.split(':')[1]}" for name in trained}
        assert tables <= expected[1]


def test_examples_of_one_table_of_several_sources_stay_in_one_tree() -> None:
    data = mixed("pairs", Mix({"small": 1, "large": 1}, size=20), sources=[Pairs("small", 6), Pairs("large", 6)])
    assert len(data._trained) == 5
    for tree in data._trained:
        assert Counter(path.source for path in tree.paths) == {"small": 4, "large": 4}


@of_both_kinds
def test_copies_of_a_group_are_groups_of_their_own_and_never_weigh_as_one_tree(kind: str) -> None:
    data = mixed(kind, Mix({"small": 1, "large": 1}, by="repeat"), window=96)
    for tree in data._trained:
        assert len({path.example for path in tree.paths}) == len(tree.paths)
    [window] = epoch(data)
    assert set(examples([window]).values()) == {1, 4}
    if kind == "conversations":
        groups = {tree.group for tree in data._trained}
        assert {"table 0", "table 0 again 1", "table 0 again 2", "table 0 again 3"} <= groups


@of_both_kinds
@pytest.mark.parametrize("by", ["subsample", "repeat"])
def test_ranks_and_workers_change_no_window(kind: str, by: Any) -> None:
    mix = Mix({"small": 1, "large": 2}, by=by)
    alone = epoch(mixed(kind, mix))
    ranks = [epoch(mixed(kind, mix, rank=rank, ranks=2)) for rank in range(2)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert examples(parts) == examples([whole])
        assert {part.examples for part in parts} == {whole.examples}
    workers = epoch(mixed(kind, mix, workers=2))
    assert [window.examples for window in workers] == [window.examples for window in alone]


@of_both_kinds
def test_a_loader_that_is_opened_later_goes_on_where_the_run_stands(kind: str) -> None:
    mix = Mix({"small": 1, "large": 2}, by="repeat")
    first = [window.examples for window in epoch(mixed(kind, mix))]
    assert [window.examples for window in epoch(mixed(kind, mix, step=2))][: len(first) - 2] == first[2:]


@of_both_kinds
def test_the_identity_is_that_of_the_mix(kind: str) -> None:
    mixes = [
        None,
        Mix({"small": 1, "large": 1}),
        Mix({"small": 1, "large": 2}),
        Mix({"small": 1, "large": 1}, seed=1),
        Mix({"small": 1, "large": 1}, of="tokens"),
        Mix({"small": 1, "large": 1}, by="repeat"),
        Mix({"small": 1, "large": 1}, size=10),
    ]
    found = [mixed(kind, mix).identity() for mix in mixes]
    assert len({tuple(one.items()) for one in found}) == len(mixes)
    assert len({one["data"] for one in found}) >= len(mixes) - 1, "of tokens may draw the same"
    assert mixed(kind, mixes[1]).identity() == found[1]
    assert "data.mix" not in found[0]


@dataclass(frozen=True)
class SomeBadTalks(Talks):
    """Thirty rows cannot be read."""

    def usable(self, refuse: Callable[[str, ValueError], None]) -> list[Conversation]:
        """See the class."""
        for row in range(30):
            refuse(self.name, ValueError(f"row {row}: blank"))
        return self.conversations()


@dataclass(frozen=True)
class SomeBadPairs(Pairs):
    """The same as pairs."""

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[PreferencePair]:
        """See the class."""
        SomeBadTalks(self.name).usable(refuse)
        return self.pairs(keep)


@of_both_kinds
def test_rows_that_cannot_be_read_count_against_all_rows_not_against_the_few_that_a_mix_draws(kind: str) -> None:
    small, bad = KINDS[kind][1], {"conversations": SomeBadTalks, "pairs": SomeBadPairs}[kind]
    half = Mix({"small": 1, "large": 1})

    def of(tables: int) -> WindowDataModule:
        sources = [small("small", 4), bad("large", tables)]
        return mixed(kind, half, sources=sources, bad_rows="drop", lengths=Lengths(max_dropped=0.3))

    assert by_source(examples(epoch(of(150)))) == {"small": 8, "large": 8}  # 30 of 330
    with pytest.raises(ValueError, match=r"large: 30 of .* would be dropped"):
        of(30)  # 30 of 90


def test_the_probe_holds_no_pair_twice_where_an_epoch_does() -> None:
    found = mixed("pairs", Mix({"small": 1, "large": 1}, by="repeat")).probe_forest().examples
    assert len(found) == len(set(found))


def test_the_probe_has_a_branch_where_the_shortest_conversation_is_repeated() -> None:
    data = mixed("conversations", Mix({"small": 9, "large": 1}, by="repeat"))
    assert any(len(segment.children) > 1 for segment in data.probe_forest().segments)


@of_both_kinds
def test_a_name_that_two_sources_have_is_an_error_with_a_mix_alone(kind: str) -> None:
    source = KINDS[kind][1]
    mixed(kind, None, sources=[source("same"), source("same", 3)])
    with pytest.raises(ValueError, match="number 1 and number 2 have one name, 'same'"):
        mixed(kind, Mix({"same": 1}), sources=[source("same"), source("same", 3)])

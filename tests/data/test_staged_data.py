"""The windows of a run are those of its stages in turn, and each stage's are its own whatever stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from lit_align.data.mix import Mix
from lit_align.data.sources.table_skills import TableSkills
from lit_align.data.staged import StagedPreferences, StagePairs
from lit_align.forest import Window
from lit_align.types import Message, PairSource, PreferencePair


@dataclass(frozen=True)
class Asked(PairSource):
    """So many pairs, two to a table."""

    n: int
    name: str

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """See the class."""
        return [
            PreferencePair(
                (Message("user", f"table {i // 2} : profit 2019 {i} ?"),), f"See {i}.", "See no.", f"{self.name}:{i}",
                self.name, f"table {i // 2}",
            )
            for i in range(self.n) if keep(f"table {i // 2}")
        ]  # fmt: skip


A = StagePairs("a", [Asked(20, "one")], windows=7)
B = StagePairs("b", [Asked(12, "two"), Asked(30, "one")], pairs=16)
C = StagePairs("c", [Asked(16, "one")], epochs=1.5)


def staged(stages: Sequence[StagePairs], ranks: int = 1, rank: int = 0, **options: Any) -> StagedPreferences:
    data = StagedPreferences(stages=list(stages), **{"window": 4, "token_budget": 400, **options})
    data.trainer = SimpleNamespace(global_step=0, global_rank=rank, world_size=ranks)  # type: ignore[assignment]
    data.setup("fit")
    return data


def windows(data: StagedPreferences) -> list[Window]:
    return list(data.train_dataloader())


def members(window: Window) -> list[str]:
    return sorted(name for forest in window.forests for name in forest.examples)


def test_each_stage_has_the_windows_asked_for_and_only_its_own_pairs() -> None:
    data = staged([A, B, C])
    assert data.stage_windows == {"a": range(7), "b": range(7, 11), "c": range(11, 17)}
    assert data.windows_per_epoch == 17
    found = windows(data)
    assert [window.index for window in found] == list(range(17))
    sources = [{source for forest in window.forests for source in forest.sources} for window in found]
    assert all(one == {"a/one"} for one in sources[:7])
    assert set().union(*sources[7:11]) == {"b/one", "b/two"}
    assert all(one == {"c/one"} for one in sources[11:])
    assert data.source_names == ("a/one", "b/two", "b/one", "c/one")


def test_a_stage_goes_through_its_pairs_before_it_repeats_one() -> None:
    found = windows(staged([A, C]))
    once = [name for window in found[:5] for name in members(window)]
    assert len(once) == len(set(once)) == 40
    again = {name for window in found[5:7] for name in members(window)}
    assert again <= set(once)


def test_the_windows_of_a_stage_do_not_depend_on_the_others() -> None:
    together, alone = staged([A, B, C]), staged([B])
    assert [members(one) for one in windows(together)[7:11]] == [members(one) for one in windows(alone)]
    other_name = staged([StagePairs("x", B.sources, pairs=16)])
    assert [members(one) for one in windows(other_name)] != [members(one) for one in windows(alone)]
    other_seed = staged([B], seed=1)
    assert [members(one) for one in windows(other_seed)] != [members(one) for one in windows(alone)]


def test_a_run_that_is_resumed_has_the_windows_of_an_unbroken_one() -> None:
    data = staged([A, B, C])
    whole = [members(one) for one in windows(data)]
    data.trainer.global_step = 9  # type: ignore[union-attr,misc]
    rest = iter(data.train_dataloader())
    assert [members(next(rest)) for _ in range(8)] == whole[9:]
    next(rest)  # a loader fetches ahead


def test_all_ranks_together_have_the_pairs_of_one_process() -> None:
    whole = windows(staged([A, B], replay=[TableSkills(n=9)], replay_share=0.5))
    parts = [windows(staged([A, B], 2, rank, replay=[TableSkills(n=9)], replay_share=0.5)) for rank in (0, 1)]
    for one, first, second in zip(whole, *parts, strict=True):
        assert sorted(members(first) + members(second)) == members(one)
    assert any("table_skills" in name for name in members(whole[-1])), "what is replayed belongs to all stages"


def test_the_held_out_pairs_are_those_of_all_stages_and_on_one_side_in_all_of_them() -> None:
    data = staged([A, B, C], val_fraction=0.3)
    [held_out] = [list(data.val_dataloader())]  # type: ignore[arg-type]
    sources = {source for window in held_out for forest in window.forests for source in forest.sources}
    assert sources == {"a/one", "b/one", "b/two", "c/one"}
    trained = {name.split(" ")[0] for window in windows(data) for name in members(window)}
    tables = [
        {int(name.split(":")[1].split(" ")[0]) // 2 for name in names}
        for names in (trained, {name for window in held_out for name in members(window)})
    ]
    groups = [{f"table {number}" for number in numbers} for numbers in tables]
    assert groups[0] <= data.trained_groups
    assert groups[1]
    assert not groups[1] & data.trained_groups


def test_a_mix_is_that_of_its_stage() -> None:
    mixed = StagePairs("m", [Asked(40, "one"), Asked(10, "two")], Mix({"one": 0.5, "two": 0.5}), epochs=1)
    found = [
        source for window in windows(staged([A, mixed]))[7:] for forest in window.forests for source in forest.sources
    ]
    assert found.count("m/one") == found.count("m/two") == 20


def test_the_largest_forest_holds_any_of_every_stage() -> None:
    long = StagePairs("long", [LongPairs()], windows=2)
    data = staged([A, long], token_budget=150)
    largest = len(data.largest_forest())
    assert all(len(forest) <= largest for window in windows(data) for forest in window.forests)
    assert largest == 150


@dataclass(frozen=True)
class LongPairs(PairSource):
    """Pairs of long answers."""

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """See the class."""
        del keep
        return [
            PreferencePair((Message("user", f"{i} ?"),), "profit " * 40, "profit " * 41, f"long:{i}", "long")
            for i in range(8)
        ]


def test_the_fingerprint_of_a_stage_is_its_own() -> None:
    one, other = staged([A, B]).identity(), staged([A, StagePairs("b", [Asked(14, "two")], pairs=16)]).identity()
    assert list(one) == ["data.stages.a", "data.stages.b"]
    assert one["data.stages.a"] == other["data.stages.a"]
    assert one["data.stages.b"] != other["data.stages.b"]
    longer = staged([StagePairs("a", A.sources, windows=8), B]).identity()
    assert longer["data.stages.a"] != one["data.stages.a"]
    assert longer["data.stages.b"] == one["data.stages.b"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, r"stage 'x': give one of `windows`, `pairs` and `epochs`, got none"),
        ({"windows": 3, "epochs": 1}, r"got `windows` and `epochs`"),
        ({"pairs": 0}, r"stage 'x': `pairs` must be > 0, got 0"),
        ({"epochs": float("nan")}, r"`epochs` must be > 0, got nan"),
        ({"sources": [], "windows": 1}, r"stage 'x': `sources` is empty"),
    ],
)
def test_a_stage_that_is_not_one_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        StagePairs("x", **{"sources": [Asked(4, "one")], **options})


def test_stages_of_one_name_and_no_stages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`data\.stages`: 2 stages are named 'a'"):
        StagedPreferences(stages=[A, B, A])
    with pytest.raises(ValueError, match=r"`data\.stages` is empty"):
        StagedPreferences()


def test_a_stage_whose_sources_hold_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"stage 'empty': .*no "):
        staged([A, StagePairs("empty", [Asked(0, "none")], windows=1)])

"""The mix that is trained is the one asked for, to an example; each planted fault is caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data import mix as mix_file
from lit_align.data.mix import Mix, refuse_other_shares
from lit_align.data.mixture import split
from lit_align.types import Conversation, Message, PreferencePair


def talks(source: str, number: int, group: str = "") -> list[Conversation]:
    return [
        Conversation(
            (Message("user", f"{source} {i}?"), Message("assistant", "yes")),
            f"{source}:{i}",
            source,
            group and f"{group} {i // 4}",
        )
        for i in range(number)
    ]


def one_token(one: Any) -> int:
    return 1


def silent(line: str) -> None:
    pass


def counts(epoch: Sequence[Conversation]) -> dict[str, int]:
    return dict(Counter(one.source for one in epoch))


# --------------------------------------------------------------------------------------------------- hand-computed


@pytest.mark.parametrize(
    ("mix", "sizes", "expected"),
    [
        (Mix({"a": 0.5, "b": 0.5}), {"a": 10, "b": 30}, {"a": 10, "b": 10}),
        (Mix({"a": 1, "b": 3}), {"a": 10, "b": 15}, {"a": 5, "b": 15}),
        (Mix({"a": 1, "b": 3}), {"a": 5, "b": 100}, {"a": 5, "b": 15}),
        (Mix({"a": 1, "b": 1, "c": 1}, size=9), {"a": 10, "b": 10, "c": 10}, {"a": 3, "b": 3, "c": 3}),
        (Mix({"a": 1, "b": 1, "c": 1}, size=10), {"a": 10, "b": 10, "c": 10}, {"a": 4, "b": 3, "c": 3}),
        (Mix({"a": 90, "b": 5, "c": 5}, size=20), {"a": 50, "b": 50, "c": 50}, {"a": 18, "b": 1, "c": 1}),
        (Mix({"a": 1, "b": 1}, by="repeat"), {"a": 10, "b": 30}, {"a": 30, "b": 30}),
        (Mix({"a": 1, "b": 3}, by="repeat"), {"a": 10, "b": 15}, {"a": 10, "b": 30}),
        (Mix({"a": 1, "b": 1}, by="repeat", size=8), {"a": 10, "b": 30}, {"a": 4, "b": 4}),
        (Mix({"a": 1, "b": 1}, by="repeat", size=100), {"a": 10, "b": 30}, {"a": 50, "b": 50}),
        (Mix({"a": 7}, size=3), {"a": 10}, {"a": 3}),
    ],
    ids=str,
)
def test_the_epoch_is_the_one_computed_by_hand(mix: Mix, sizes: dict[str, int], expected: dict[str, int]) -> None:
    assert counts(mix.drawn([talks(name, size) for name, size in sizes.items()], one_token, silent)) == expected


def test_the_order_of_the_weights_in_the_file_means_nothing() -> None:
    one, other = Mix({"a": 1, "b": 1, "c": 1}, size=10), Mix({"c": 1, "b": 1, "a": 1}, size=10)
    sources = [talks(name, 10) for name in "abc"]
    assert one.drawn(sources, one_token, silent) == other.drawn(sources, one_token, silent)
    assert repr(one) == repr(other)


def test_shares_may_be_of_trained_tokens() -> None:
    sources = [talks("long", 20), talks("short", 100)]
    epoch = Mix({"long": 0.5, "short": 0.5}, of="tokens").drawn(
        sources, lambda one: 10 if one.source == "long" else 1, silent
    )
    assert counts(epoch) == {"long": 10, "short": 100}


def test_a_weight_may_stand_for_all_names_under_it() -> None:
    sources = [[*talks("tat-qa/span", 6), *talks("tat-qa/count", 2)], talks("chat", 50)]
    assert counts(Mix({"tat-qa": 1, "chat": 2}).drawn(sources, one_token, silent)) == {
        "tat-qa/span": 6, "tat-qa/count": 2, "chat": 16,
    }  # fmt: skip


def test_what_does_not_fit_is_passed_over_and_others_are_drawn_in_its_place() -> None:
    sources = [talks("a", 20), talks("b", 8)]
    epoch = Mix({"a": 1, "b": 1}).drawn(sources, lambda one: int(one.id.split(":")[1]) % 2, silent)
    assert counts(epoch) == {"a": 4, "b": 4}
    assert all(int(one.id.split(":")[1]) % 2 for one in epoch)


def test_no_more_is_tokenised_than_is_drawn() -> None:
    asked: set[str] = set()

    def tokens(one: Conversation) -> int:
        asked.add(one.id)
        return 1

    Mix({"a": 1, "b": 1}, size=10).drawn([talks("a", 1000), talks("b", 1000)], tokens, silent)
    assert len(asked) <= 12


# ------------------------------------------------------------------------------------------------------ properties

weights = st.lists(st.floats(0.02, 1), min_size=1, max_size=5)


@given(weights, st.lists(st.integers(1, 40), min_size=5, max_size=5), st.integers(1, 200), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_examples_have_their_shares_at_every_size_and_are_repeated_evenly(
    values: list[float], sizes: list[int], size: int, seed: int
) -> None:
    names = "abcde"[: len(values)]
    sources = [talks(name, number) for name, number in zip(names, sizes, strict=False)]
    mix = Mix(dict(zip(names, values, strict=True)), by="repeat", size=size, seed=seed)
    epoch = mix.drawn(sources, one_token, silent)
    assert len(epoch) == size
    found = counts(epoch)
    for name, value in mix.weights.items():
        assert abs(found.get(name, 0) - size * value / sum(values)) <= 1 + 1e-9
    for source in sources:
        times = [sum(one is other for other in epoch) for one in source]
        assert max(times) - min(times) <= 1


@given(weights, st.lists(st.integers(1, 40), min_size=5, max_size=5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_sampling_draws_nothing_twice_and_uses_a_source_up_whatever_the_order_of_rows(
    values: list[float], sizes: list[int], random: Random
) -> None:
    names = "abcde"[: len(values)]
    sources = [talks(name, number) for name, number in zip(names, sizes, strict=False)]
    mix = Mix(dict(zip(names, values, strict=True)))
    epoch = mix.drawn(sources, one_token, silent)
    assert len({one.id for one in epoch}) == len(epoch)
    assert any(counts(epoch).get(name) == len(source) for name, source in zip(names, sources, strict=True))
    for source in sources:
        random.shuffle(source)
    assert {one.id for one in mix.drawn(sources[::-1], one_token, silent)} == {one.id for one in epoch}


@given(st.integers(0, 40), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_repetition_ends_with_the_source_that_is_largest_for_its_weight(more: int, number: int) -> None:
    sources = [talks("a", number), talks("b", number + more)]
    epoch = Mix({"a": 2, "b": 1}, by="repeat").drawn(sources, one_token, silent)
    assert {one.id for one in sources[1]} <= {one.id for one in epoch}
    assert abs(counts(epoch)["a"] - 2 * (number + more)) <= 2


def test_another_seed_draws_others_and_the_same_seed_the_same() -> None:
    sources = [talks("a", 50), talks("b", 50)]
    one, again, other = (
        Mix({"a": 1, "b": 1}, size=20, seed=seed).drawn(sources, one_token, silent) for seed in (0, 0, 1)
    )
    assert one == again
    assert {talk.id for talk in one} != {talk.id for talk in other}


def test_a_larger_epoch_holds_a_smaller_one() -> None:
    sources = [talks("a", 50), talks("b", 50)]
    small, large = (Mix({"a": 1, "b": 2}, size=size).drawn(sources, one_token, silent) for size in (20, 60))
    assert large[:20] == small


def test_groups_are_drawn_whole_but_for_the_last_also_across_sources() -> None:
    sources = [talks("a", 80, "table"), talks("b", 80, "table")]
    epoch = Mix({"a": 1, "b": 1}, size=42).drawn(sources, one_token, silent)
    found = {name: Counter(one.group for one in epoch if one.source == name) for name in "ab"}
    assert sorted(found["a"].values()) == sorted(found["b"].values()) == [1, 4, 4, 4, 4, 4]
    assert found["a"] == found["b"]


def test_pairs_are_mixed_as_conversations_are() -> None:
    def pairs(source: str, number: int) -> list[PreferencePair]:
        turns = [(Message("user", f"{source} {i}?"),) for i in range(number)]
        return [PreferencePair(turn, "yes", "no", f"{source}:{i}", source) for i, turn in enumerate(turns)]

    epoch = Mix({"a": 1, "b": 1}).drawn([pairs("a", 10), pairs("b", 30)], one_token, silent)
    assert Counter(one.source for one in epoch) == {"a": 10, "b": 10}


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weights": {}}, "`data.mix.weights` is empty"),
        ({"weights": {"a": 0}}, "that of 'a' must be > 0, got 0"),
        ({"weights": {"a": -1}}, "that of 'a' must be > 0, got -1"),
        ({"weights": {"a": float("nan")}}, "that of 'a' must be > 0, got nan"),
        ({"weights": {"a": float("inf")}}, "that of 'a' must be > 0, got inf"),
        ({"weights": {"a": 1}, "size": 0}, "`data.mix.size` must be >= 1, or null, got 0"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Mix(**options)


@pytest.mark.parametrize(
    ("mix", "says"),
    [
        (Mix({"a": 1}), r"no weight for source 'b/1': its keys are a; name each source once"),
        (Mix({"a": 1, "b": 1, "b/1": 1}), "several weights for source 'b/1'"),
        (Mix({"a": 1, "b": 1, "aa": 1}), "no training example is of source 'aa'; did you mean 'a'. there are: a, b/1"),
        (Mix({"a": 1, "b": 1}, size=30), (
            r"cannot be met: 20 examples keep the weights, 10 fewer than `size` = 30, for 'a' is to be 50.0% and has "
            r"10 usable examples; lower `size`, change the weights, or set `by: repeat`"
        )),
    ],
)  # fmt: skip
def test_a_mix_that_cannot_be_met_is_an_error_that_says_how_far(mix: Mix, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        mix.drawn([talks("a", 10), talks("b/1", 40)], one_token, silent)


@pytest.mark.parametrize("by", ["subsample", "repeat"])
@pytest.mark.parametrize("size", [None, 10])
def test_a_source_of_which_nothing_fits_is_an_error_and_not_an_endless_draw(by: Any, size: int | None) -> None:
    mix = Mix({"a": 1, "b": 3}, by=by, size=size)
    with pytest.raises(ValueError, match=r"none of 40 examples of 'b' is usable, and it is to be 75\.0%"):
        mix.drawn([talks("a", 10), talks("b", 40)], lambda one: int(one.source == "a"), silent)


def test_two_sources_of_one_name_are_an_error_that_names_both() -> None:
    with pytest.raises(ValueError, match=r"number 1 and number 3 have one name, 'pairs\.jsonl'"):
        Mix({"pairs.jsonl": 1, "b": 1}).drawn(
            [talks("pairs.jsonl", 2), talks("b", 2), talks("pairs.jsonl", 2)], one_token, silent
        )


# --------------------------------------------------------------------------------------------------- planted faults

Pools = Mapping[str, Iterable[Conversation]]


def shrink_one_side(pools: Pools, shares: Mapping[str, float], size: int, weigh: Callable[..., float]) -> list[Any]:
    """The original's: the first source keeps its share of itself, another gives no more than a cap."""
    first, *rest = pools.values()
    return [*islice(first, int(200 * 0.5)), *(one for pool in rest for one in islice(pool, 9))]


def take_all(pools: Pools, shares: Mapping[str, float], size: int, weigh: Callable[..., float]) -> list[Any]:
    return [one for name, pool in pools.items() for one in islice(pool, 200 if name == "a" else 30)]


def lose_rounding(pools: Pools, shares: Mapping[str, float], size: int, weigh: Callable[..., float]) -> list[Any]:
    """Whole numbers of all but the last source are cut off; it gets what is left."""
    *most, last = pools
    drawn = [one for name in most for one in islice(pools[name], int(shares[name] * 40))]
    return [*drawn, *islice(pools[last], 40 - len(drawn))]


@pytest.mark.parametrize("fault", [shrink_one_side, take_all, lose_rounding])
def test_a_planted_draw_at_other_shares_is_caught(fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    names = "abcdefg"
    mix = Mix(dict.fromkeys(names, 1.0))
    sources = [talks(name, 200 if name == "a" else 30) for name in names]
    assert mix.drawn(sources, one_token, silent)
    monkeypatch.setattr(mix_file, "draw", fault)
    with pytest.raises(ValueError, match=r"`data.mix.weights` are not met: '[ag]' is \d+\.\d% of \d+ examples"):
        mix.drawn(sources, one_token, silent)


def test_one_percent_or_one_example_is_the_tolerance() -> None:
    half = {"a": 0.5, "b": 0.5}
    refuse_other_shares({"a": 1010, "b": 990}, half, 1, "examples")
    refuse_other_shares({"a": 3, "b": 1}, half, 1, "examples")
    with pytest.raises(ValueError, match=r"'a' is 50\.5% of 2000 examples, not 50\.0% \(11 too many\)"):
        refuse_other_shares({"a": 1011, "b": 989}, half, 1, "examples")
    with pytest.raises(ValueError, match=r"'a' is 83\.3% of 6 examples, not 50\.0% \(2 too many\)"):
        refuse_other_shares({"a": 5, "b": 1}, half, 1, "examples")


def test_mixing_before_the_split_would_move_the_validation_set_and_mixing_after_it_does_not() -> None:
    sources = [talks("a", 60), talks("b", 200)]
    mixes = [Mix({"a": 1, "b": 1}, seed=seed) for seed in (0, 1)]
    held_out = [split(source, 0.3, 0)[1] for source in sources]
    for mix in mixes:  # what the data modules do: validation is no argument of the draw
        assert {
            one.id for one in mix.drawn([split(source, 0.3, 0)[0] for source in sources], one_token, silent)
        }.isdisjoint(one.id for source in held_out for one in source)
    planted = [{one.id for one in split(mix.drawn(sources, one_token, silent), 0.3, 0)[1]} for mix in mixes]
    assert planted[0] != planted[1]


def test_equal_texts_of_one_group_keep_the_order_in_which_they_were_read() -> None:
    rows = [replace(one, group="table") for one in talks("a", 9)]
    assert Mix({"a": 1}, size=4).drawn([rows], one_token, silent) == rows[:4]


def test_shares_of_tokens_that_few_examples_cannot_meet_are_told_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"56.6% of 754 tokens, .*\(44 too few\); .* set `of: examples`"):
        refuse_other_shares({"a": 427, "b": 327}, {"a": 0.625, "b": 0.375}, 40, "tokens")

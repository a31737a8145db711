from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.mixture import content_hash, draw, first_held_out, group_of, is_held_out, split
from lit_align.types import Conversation, Message, PreferencePair


def talk(question: str, answer: str, name: str = "x") -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), id=name, source="s")


texts = st.text(max_size=6)
talks = st.builds(talk, texts, texts, st.text(max_size=3))
seeds = st.integers(-3, 2**40)
fractions = st.floats(0, 1, exclude_max=True)


@given(st.lists(talks, max_size=12), fractions, seeds, st.randoms())
@settings(max_examples=60, deadline=None)
def test_split_loses_nothing_and_no_text_is_on_both_sides_whatever_the_order(
    conversations: list[Conversation], fraction: float, seed: int, random: Random
) -> None:
    train, val = split(conversations, fraction, seed)
    assert sorted(map(repr, train + val)) == sorted(map(repr, conversations))
    assert not {content_hash(c) for c in train} & {content_hash(c) for c in val}
    random.shuffle(conversations)
    again = split(conversations + conversations[:2], fraction, seed)[1]
    assert {content_hash(c) for c in again} == {content_hash(c) for c in val}


@given(st.lists(talks, max_size=12), fractions, fractions, seeds)
@settings(max_examples=60, deadline=None)
def test_a_larger_fraction_keeps_what_a_smaller_one_held_out(
    conversations: list[Conversation], one: float, other: float, seed: int
) -> None:
    small, large = sorted((one, other))
    assert all(c in split(conversations, large, seed)[1] for c in split(conversations, small, seed)[1])


@given(talks, talks)
@settings(deadline=None)
def test_hash_is_of_roles_and_texts_alone(one: Conversation, other: Conversation) -> None:
    assert (content_hash(one) == content_hash(other)) == (one.messages == other.messages)
    assert content_hash(replace(one, id="other", source="other", group="other")) == content_hash(one)


def test_hash_tells_apart_turns_that_join_to_the_same_text() -> None:
    assert content_hash(talk("a", "bc")) != content_hash(talk("ab", "c"))
    swapped = Conversation((Message("assistant", "a"), Message("user", "b")), id="x", source="s")
    assert content_hash(swapped) != content_hash(talk("a", "b"))


def test_hash_and_sides_are_the_same_on_every_machine() -> None:
    conversations = [Conversation((Message("user", f"вопрос {i}"),), str(i), "s") for i in range(20)]
    assert content_hash(conversations[0]) == "0e5fa70392170eb9acb7e05a06d61d8eb8e405ac95793a4f27d41f7d952fc2ac"
    assert [c.id for c in split(conversations, 0.3, 1)[1]] == ["2", "3", "5", "7", "8", "9", "10", "13", "15", "17"]


def test_share_is_near_the_fraction_and_another_seed_divides_otherwise() -> None:
    conversations = [talk(str(i), "a", str(i)) for i in range(2000)]
    one, other = ({c.id for c in split(conversations, 0.1, seed)[1]} for seed in (0, 1))
    assert 150 < len(one) < 250  # 3.7 standard deviations around 200
    assert 5 < len(one & other) < 45  # independent divisions share about 20


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="val_fraction must be at least 0 and below 1"):
        split([], fraction, 0)


def test_fraction_zero_holds_out_nothing() -> None:
    conversations = [talk(str(i), "a") for i in range(200)]
    assert split(conversations, 0.0, 0) == (conversations, [])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.floats(0.1, 0.9), st.integers(0, 40))
def test_drawn_shares_are_right_to_within_one_example_at_every_size(
    weights: list[int], share: float, size: int
) -> None:
    pools = {"a": [("a", w) for w in weights], "b": [("b", w) for w in reversed(weights)]}
    drawn = draw(pools, {"a": share, "b": 1 - share}, size, lambda one: one[1])
    totals = {name: sum(w for pool, w in drawn if pool == name) for name in pools}
    # No pool is ever further ahead of the other than by the example that was drawn last.
    assert abs(totals["a"] / share - totals["b"] / (1 - share)) <= max(weights) / min(share, 1 - share) + 1e-9
    assert len(drawn) <= size


@given(st.lists(st.floats(0.02, 1), min_size=2, max_size=8))
@settings(max_examples=60, deadline=None)
def test_many_pools_are_at_every_size_within_one_example_of_their_shares(weights: list[float]) -> None:
    shares = {str(i): weight / sum(weights) for i, weight in enumerate(weights)}
    counts = dict.fromkeys(shares, 0)
    for size, name in enumerate(draw({name: [name] * 100 for name in shares}, shares, 100, len), start=1):
        counts[name] += 1
        assert max(abs(counts[one] - share * size) for one, share in shares.items()) <= 1 + 1e-6


def test_a_pool_is_drawn_in_its_order_and_no_further_than_asked() -> None:
    seen: list[int] = []

    def weigh(one: int) -> float:
        seen.append(one)
        return float(one % 3 != 0)  # the multiples of three do not fit

    assert draw({"a": range(100)}, {"a": 1.0}, 4, weigh) == [1, 2, 4, 5]
    assert seen == [0, 1, 2, 3, 4, 5]


def test_nothing_is_drawn_beyond_a_pool_that_ran_out() -> None:
    drawn = draw({"a": [1] * 100, "b": [1] * 2}, {"a": 0.5, "b": 0.5}, 50, float)
    assert len(drawn) == 5


def smallest_fraction(name: str, seed: int) -> float:
    """The fraction from which on a name is held out, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if is_held_out(name, middle, seed) else (middle, high)
    return high


@given(st.lists(st.sampled_from([f"table {i}" for i in range(20)]), min_size=1), st.integers(1, 60), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_limited_choice_is_what_a_smaller_fraction_holds_out_and_just_large_enough(
    names: list[str], limit: int, seed: int
) -> None:
    chosen = first_held_out(names, limit, seed)

    assert chosen == first_held_out(sorted(names), limit, seed), "whatever the order"
    fraction = max(smallest_fraction(name, seed) for name in chosen)
    assert chosen == {name for name in names if is_held_out(name, fraction, seed)}
    last = max(chosen, key=lambda name: smallest_fraction(name, seed))
    held = sum(name in chosen for name in names)
    assert held >= limit or chosen == set(names)
    assert held - names.count(last) < limit


@given(st.lists(st.sampled_from(["", "table 1", "table 2", "table 3"]), max_size=12), fractions, seeds)
@settings(max_examples=60, deadline=None)
def test_split_parts_no_group_and_puts_it_where_that_of_pairs_is_put(
    groups: list[str], fraction: float, seed: int
) -> None:
    talks = [replace(talk(f"{i}?", "a", str(i)), group=group) for i, group in enumerate(groups)]
    train, val = split(talks, fraction, seed)
    assert len(train) + len(val) == len(talks)
    for side, held_out in ((train, False), (val, True)):
        for one in side:
            pair = PreferencePair(one.messages[:1], "a", "b", one.id, "s", one.group)
            assert is_held_out(group_of(one), fraction, seed) == held_out
            if one.group:
                assert group_of(one) == group_of(pair) == one.group
            else:
                assert group_of(one) == content_hash(one) != group_of(pair)

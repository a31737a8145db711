"""Windows are pure functions of their number: nothing is lost, nothing is doubled, no budget is exceeded."""

from __future__ import annotations

from collections import Counter
from itertools import chain, groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.packing import WindowPlan, WindowSampler, _order, fill_forests, share_out

plans = st.builds(
    WindowPlan,
    trained=st.integers(1, 40),
    replayed=st.integers(1, 9),
    window=st.integers(1, 12),
    replay_share=st.sampled_from([0.0, 0.1, 0.29, 1 / 3, 0.5, 0.7, 1.0, 2.5]),
    seed=st.integers(0, 2**31),
)
sizes = st.lists(st.integers(1, 50), max_size=30)


@given(plans, st.integers(0, 5))
@settings(deadline=None)
def test_an_epoch_goes_once_through_all_conversations(plan: WindowPlan, epoch: int) -> None:
    first = epoch * plan.windows_per_epoch
    windows = [plan.trained_in(first + at) for at in range(plan.windows_per_epoch)]
    assert sorted(chain.from_iterable(windows)) == list(range(plan.trained))
    assert all(len(window) == plan.window for window in windows[:-1])
    assert 0 < len(windows[-1]) <= plan.window


@given(plans, st.lists(st.integers(0, 60), min_size=1, max_size=8))
@settings(deadline=None)
def test_a_window_depends_on_its_number_alone(plan: WindowPlan, numbers: list[int]) -> None:
    in_order = [(plan.trained_in(number), plan.replayed_in(number)) for number in numbers]
    _order.cache_clear()
    other = WindowPlan(plan.trained, plan.replayed, plan.window, plan.replay_share, plan.seed)
    backwards = [(other.trained_in(number), other.replayed_in(number)) for number in reversed(numbers)]
    assert backwards[::-1] == in_order


@given(plans, st.integers(0, 60))
@settings(deadline=None)
def test_replay_has_its_exact_share_over_any_number_of_windows_and_no_favourite(plan: WindowPlan, count: int) -> None:
    trained = sum(len(plan.trained_in(window)) for window in range(count))
    replayed = Counter(chain.from_iterable(plan.replayed_in(window) for window in range(count)))
    assert abs(replayed.total() - plan.replay_share * trained) < 1
    assert replayed.total() <= plan.replay_share * trained + 1e-6
    times = [replayed[i] for i in range(plan.replayed)]
    assert max(times) - min(times) <= 1


@given(plans)
@settings(deadline=None)
def test_what_is_replayed_does_not_move_what_is_trained(plan: WindowPlan) -> None:
    bare = WindowPlan(plan.trained, 0, plan.window, 0.0, plan.seed)
    for window in range(10):
        assert bare.trained_in(window) == plan.trained_in(window)
        assert bare.replayed_in(window) == []


def test_orders_differ_by_epoch_by_seed_and_between_trained_and_replayed() -> None:
    plan = WindowPlan(trained=50, replayed=50, window=50, replay_share=1.0, seed=0)
    orders = [plan.trained_in(0), plan.trained_in(1), plan.replayed_in(0), plan.replayed_in(1)]
    orders.append(WindowPlan(50, 50, 50, 1.0, seed=1).trained_in(0))
    assert len({tuple(order) for order in orders}) == 5


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 8), st.integers(0, 9))
@settings(deadline=None)
def test_conversations_of_a_group_stand_side_by_side_and_none_is_lost(
    groups: list[int], window: int, seed: int
) -> None:
    leaders = tuple(groups.index(group) for group in groups)
    plan = WindowPlan(len(groups), 0, window, 0.0, seed, leaders)
    for epoch in range(2):
        first = epoch * plan.windows_per_epoch
        order = [i for at in range(plan.windows_per_epoch) for i in plan.trained_in(first + at)]
        assert sorted(order) == list(range(len(groups)))
        runs = [leader for leader, _ in groupby(leaders[i] for i in order)]
        assert len(runs) == len(set(leaders))


def test_groups_of_one_leave_the_order_as_it_is_and_the_order_of_groups_is_the_seeds() -> None:
    plain, alone = WindowPlan(30, 0, 7, 0.0, 5), WindowPlan(30, 0, 7, 0.0, 5, tuple(range(30)))
    assert [alone.trained_in(window) for window in range(12)] == [plain.trained_in(window) for window in range(12)]
    orders = {tuple(WindowPlan(6, 0, 6, 0.0, seed, (0, 0, 2, 2, 4, 4)).trained_in(0)) for seed in range(40)}
    assert len(orders) == 6


def test_orders_are_the_same_on_every_machine() -> None:
    assert WindowPlan(8, 0, 8, 0.0, seed=3).trained_in(1) == [1, 3, 0, 4, 2, 6, 5, 7]


@given(sizes, st.integers(1, 5))
@settings(deadline=None)
def test_ranks_together_hold_the_window_once_and_share_it_about_equally(tokens: list[int], ranks: int) -> None:
    parts = share_out(tokens, ranks)
    assert len(parts) == ranks
    assert sorted(chain.from_iterable(parts)) == list(range(len(tokens)))
    loads = [sum(tokens[i] for i in part) for part in parts]
    assert max(loads) - min(loads) <= max(tokens, default=0)
    assert share_out(tokens, 1) == [list(range(len(tokens)))]


@given(sizes, st.integers(50, 120))
@settings(deadline=None)
def test_forests_hold_all_groups_once_within_the_budget(tokens: list[int], budget: int) -> None:
    forests = fill_forests(tokens, budget)
    assert sorted(chain.from_iterable(forests)) == list(range(len(tokens)))
    loads = [sum(tokens[i] for i in forest) for forest in forests]
    assert all(0 < load <= budget for load in loads)
    assert sum(2 * load <= budget for load in loads) <= 1  # two half-empty ones would be one


def test_a_group_over_the_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match="a group of 11 tokens is over the budget of 10"):
        fill_forests([3, 11], 10)


def test_the_sampler_begins_where_the_run_stands_each_time_it_is_opened() -> None:
    done = [0]
    sampler = WindowSampler(3, lambda: done[0])
    assert list(sampler) == [0, 1, 2]
    done[0] = 4
    assert list(sampler)[:2] == [4, 5]
    assert len(sampler) == 3

"""Conversations replayed beside pairs: their share, their place, and what says that they are there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_preference_data import EVERY, Tables, names, some_data, windows

from lit_align.data.packing import GroupPlan, _order
from lit_align.forest import Window
from lit_align.modules.pair_scoring import count_pairs
from lit_align.types import Conversation, ConversationSource, Message


@dataclass(frozen=True)
class Talks(ConversationSource):
    """So many conversations, every third one of two turns."""

    number: int = 7
    words: int = 1

    def conversations(self) -> list[Conversation]:
        """See the class."""
        turn = (Message("user", "w " * self.words), Message("assistant", "yes"))
        return [
            Conversation((*turn, *(turn if i % 3 == 0 else ()), Message("user", f"{i}?"), Message("assistant", "no")),
                         f"talk {i}", "talks")
            for i in range(self.number)
        ]  # fmt: skip


REPLAY: dict[str, Any] = {"replay": [Talks()], "replay_share": 0.4}

plans = st.builds(
    GroupPlan,
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=40).map(tuple),
    window=st.integers(9, 30),
    seed=st.integers(0, 9),
    replayed=st.integers(1, 9),
    replay_share=st.sampled_from([0.0, 0.1, 0.29, 1 / 3, 0.5, 1.0, 2.5]),
)


@given(plans, st.integers(0, 12))
@settings(deadline=None)
def test_replay_has_its_exact_share_of_pairs_and_no_favourite(plan: GroupPlan, count: int) -> None:
    pairs = sum(plan.counts[group] for window in range(count) for group in plan.trained_in(window))
    by_window = [plan.replayed_in(window) for window in range(count)]
    replayed = Counter(chain.from_iterable(by_window))
    assert abs(replayed.total() - plan.replay_share * pairs) < 1
    times = [replayed[i] for i in range(plan.replayed)]
    assert max(times) - min(times) <= 1
    assert max(map(len, by_window), default=0) <= plan.most_replayed


@given(plans, st.lists(st.integers(0, 30), min_size=1, max_size=6))
@settings(deadline=None)
def test_a_window_depends_on_its_number_alone_and_replay_moves_no_pair(plan: GroupPlan, numbers: list[int]) -> None:
    in_order = [(plan.trained_in(number), plan.replayed_in(number)) for number in numbers]
    _order.cache_clear()
    assert [(plan.trained_in(number), plan.replayed_in(number)) for number in reversed(numbers)][::-1] == in_order
    bare = GroupPlan(plan.counts, plan.window, plan.seed)
    assert [(bare.trained_in(number), bare.replayed_in(number)) for number in numbers] == [(t, []) for t, _ in in_order]


def old_and_new(found: list[Window]) -> tuple[Counter[str], Counter[str]]:
    both = names(found)
    old = Counter({name: n for name, n in both.items() if name.startswith("talk")})
    return old, both - old


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("budget", [8192, 400])
def test_pairs_are_those_of_a_run_without_and_replayed_paths_stand_after_them(ranks: int, budget: int) -> None:
    data = [some_data(rank=rank, ranks=ranks, token_budget=budget, **REPLAY) for rank in range(ranks)]
    by_rank = [windows(one) for one in data]
    old, new = old_and_new([window for one in by_rank for window in one])
    assert new == EVERY
    assert sum(n for name, n in old.items() if name.startswith("talk")) >= int(0.4 * 72)  # some have two turns
    for window in chain.from_iterable(by_rank):
        for forest in window.forests:
            answers = 2 * count_pairs(forest)
            assert not any(name.startswith("talk") for name in forest.examples[:answers])
            assert all(name.startswith("talk") for name in forest.examples[answers:])
            assert bool(forest.replayed[forest.target_examples >= answers].all())
            assert not forest.replayed[forest.target_examples < answers].any()
            assert len(forest) <= budget
    assert data[0].source_names == ("tables/0", "tables/1")


def test_a_resumed_loader_replays_what_an_unbroken_one_does() -> None:
    assert [window.examples for window in windows(some_data(step=2, **REPLAY))][:2] == [
        window.examples for window in windows(some_data(**REPLAY))
    ][2:]
    later = windows(some_data(step=4, **REPLAY))
    assert [window.examples for window in windows(some_data(step=6, **REPLAY))][:2] == [w.examples for w in later][2:]


@pytest.mark.parametrize(("number", "words"), [(7, 1), (1, 60), (3, 90)])
@pytest.mark.parametrize("budget", [8192, 700, 330])
def test_the_trial_forest_is_no_smaller_than_any_also_where_one_conversation_comes_again(
    number: int, words: int, budget: int
) -> None:
    data = some_data(token_budget=budget, replay=[Talks(number, words)], replay_share=0.4)
    largest = data.largest_forest()
    assert count_pairs(largest) >= 0  # the order holds in it too
    assert max(len(forest) for window in windows(data) for forest in window.forests) <= len(largest) <= budget
    assert not any(weight == 0 for weight in data.probe_forest().weights)


def test_validation_replays_nothing() -> None:
    data = some_data(val_fraction=0.3, **REPLAY)
    found = list(data.val_dataloader())
    assert not old_and_new(found)[0]


def test_identity_says_what_is_replayed_and_how_often() -> None:
    runs = [{}, REPLAY, {**REPLAY, "replay_share": 0.5}, {**REPLAY, "replay": [Talks(6)]}]
    assert len({str(some_data(**options).identity()) for options in runs}) == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"replay_share": 0.5}, r"`data.replay` \(0 sources\) and `data.replay_share` \(0.5\) go together"),
        ({"replay": [Talks()]}, r"`data.replay` \(1 sources\) and `data.replay_share` \(0.0\) go together"),
        ({"replay_share": float("nan")}, "`data.replay_share` must be >= 0, got nan"),
        ({"replay": [Talks(1, 500)], "replay_share": 0.5, "token_budget": 700}, "talk 0: its .* tokens are over"),
    ],
)
def test_options_that_replay_nothing_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        some_data(sources=[Tables()], **options)

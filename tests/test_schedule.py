"""Schedules are pure functions of the step, stay in [0, 1], and refuse what they cannot mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_align.schedule import ConstantSchedule, CosineSchedule, LinearSchedule, Schedule

KINDS: list[type[Schedule]] = [CosineSchedule, LinearSchedule, ConstantSchedule]


@given(st.sampled_from(KINDS), st.integers(0, 50), st.integers(0, 200), st.integers(0, 400))
def test_factor_lies_between_0_and_1_and_rises_then_never_rises_again(
    kind: type[Schedule], warmup: int, total: int, step: int
) -> None:
    schedule = kind(warmup_steps=warmup)
    here, after = schedule.factor(step, total), schedule.factor(step + 1, total)
    assert 0 <= here <= 1
    assert here < after or here == after == 1 if step + 1 < warmup else after <= here + 1e-12 or step + 1 == warmup
    assert schedule.factor(step, total) == here


@given(st.sampled_from(KINDS), st.integers(1, 50))
def test_warm_up_is_a_straight_line_to_the_full_rate(kind: type[Schedule], warmup: int) -> None:
    schedule = kind(warmup_steps=warmup)
    assert [schedule.factor(step, 1000) for step in range(warmup)] == [(s + 1) / warmup for s in range(warmup)]
    assert schedule.factor(warmup, 1000) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_ratio_is_the_same_warm_up_as_its_steps(kind: type[Schedule]) -> None:
    ratio, steps = kind(warmup_ratio=0.03), kind(warmup_steps=math.ceil(0.03 * 250))
    assert [ratio.factor(s, 250) for s in range(260)] == [steps.factor(s, 250) for s in range(260)]


@given(st.floats(0, 1), st.integers(2, 300))
def test_cosine_ends_at_its_floor_and_is_half_way_in_the_middle(floor: float, half: int) -> None:
    schedule = CosineSchedule(floor=floor)
    assert schedule.factor(2 * half, 2 * half) == pytest.approx(floor)
    assert schedule.factor(half, 2 * half) == pytest.approx((1 + floor) / 2)
    assert schedule.factor(5 * half, 2 * half) == schedule.factor(2 * half, 2 * half)


def test_only_what_depends_on_the_length_of_the_run_says_so() -> None:
    assert CosineSchedule().uses_total()
    assert LinearSchedule().uses_total()
    assert not ConstantSchedule(warmup_steps=5).uses_total()
    assert ConstantSchedule(warmup_ratio=0.1).uses_total()
    assert {ConstantSchedule(warmup_steps=5).factor(7, total) for total in (0, 1, 100)} == {1.0}


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"warmup_steps": -1}, "`schedule.warmup_steps` must be >= 0, got -1"),
        ({"warmup_ratio": 1.0}, r"`schedule.warmup_ratio` must be in \[0, 1\), got 1.0"),
        ({"warmup_ratio": -0.1}, r"`schedule.warmup_ratio` must be in \[0, 1\), got -0.1"),
        ({"warmup_ratio": float("nan")}, r"`schedule.warmup_ratio` must be in \[0, 1\), got nan"),
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, r"`schedule.warmup_steps` \(3\) or `schedule.warmup_ratio` \(0.1\)"),
        ({"floor": 1.5}, r"`schedule.floor` must be in \[0, 1\], got 1.5"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        CosineSchedule(**options)


def test_factors_by_hand() -> None:
    cosine, linear = CosineSchedule(warmup_steps=2, floor=0.1), LinearSchedule(warmup_ratio=0.25)
    half = 0.5 + 0.25 * math.sqrt(2)  # (1 + cos 45°) / 2
    expected = [0.5, 1.0, 1.0, 0.1 + 0.9 * half, 0.55, 0.1 + 0.9 * (1 - half), 0.1]
    assert [cosine.factor(step, 6) for step in range(7)] == pytest.approx(expected, abs=1e-12)
    assert [linear.factor(step, 8) for step in range(9)] == [0.5, 1.0, *(1 - s / 6 for s in range(6)), 0.0]


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_factors_are_those_of_transformers_one_step_ahead_in_the_warm_up(kind: type[Schedule], warmup: int) -> None:
    from transformers import get_scheduler

    name = {CosineSchedule: "cosine", LinearSchedule: "linear", ConstantSchedule: "constant_with_warmup"}[kind]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=50).lr_lambdas[0]
    ours = kind(warmup_steps=warmup)
    assert [ours.factor(step, 50) for step in range(warmup)] == [theirs(step + 1) for step in range(warmup)]
    after = range(warmup, 51)
    assert [ours.factor(step, 50) for step in after] == pytest.approx([theirs(step) for step in after], abs=1e-12)
    assert theirs(0) == (0.0 if warmup else 1.0)

"""Losses of single answers: values by hand, what has a gradient, and how weights and saturation act."""

from __future__ import annotations

from math import exp

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_align.losses.unpaired import APOZeroUnpairedLoss, KTOLoss, UnpairedLoss, reference_point

LOSSES: list[UnpairedLoss] = [KTOLoss(0.5, 1.1, 0.7), APOZeroUnpairedLoss(0.5, 1.1, 0.7)]
RATIOS, GOOD = [1.25, -0.75, -0.5, 0.5], [True, True, False, False]


def sg(x: float) -> float:
    return 1 / (1 + exp(-x))


def of(loss: UnpairedLoss, ratios: list[float], good: list[bool], point: float) -> Tensor:
    return loss(torch.tensor(ratios, dtype=torch.float64), torch.tensor(good), torch.tensor(point, dtype=torch.float64))


def test_kto_by_hand() -> None:
    expected = [
        1.1 * (1 - sg(0.5 * (1.25 - 0.25))), 1.1 * (1 - sg(0.5 * (-0.75 - 0.25))),
        0.7 * (1 - sg(0.5 * (0.25 + 0.5))), 0.7 * (1 - sg(0.5 * (0.25 - 0.5))),
    ]  # fmt: skip
    assert of(LOSSES[0], RATIOS, GOOD, 0.25).tolist() == pytest.approx(expected, rel=1e-14)


def test_apo_zero_by_hand() -> None:
    expected = [1.1 * (1 - sg(0.625)), 1.1 * (1 - sg(-0.375)), 0.7 * sg(-0.25), 0.7 * sg(0.25)]
    assert of(LOSSES[1], RATIOS, GOOD, 7.0).tolist() == pytest.approx(expected, rel=1e-14)
    assert not LOSSES[1].needs_reference_point
    assert LOSSES[0].needs_reference_point


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@settings(deadline=None)
@given(st.floats(-50, 50), st.floats(0, 20))
def test_a_good_answer_is_pulled_up_and_a_bad_one_down_by_its_weight(
    loss: UnpairedLoss, ratio: float, point: float
) -> None:
    leaf = torch.tensor([ratio, ratio], dtype=torch.float64, requires_grad=True)
    losses = loss(leaf, torch.tensor([True, False]), torch.tensor(point, dtype=torch.float64))
    (slopes,) = torch.autograd.grad(losses.sum(), leaf)
    at = point if loss.needs_reference_point else 0.0
    slope = 0.5 * sg(0.5 * (ratio - at)) * sg(-0.5 * (ratio - at))
    assert slopes.tolist() == pytest.approx([-1.1 * slope, 0.7 * slope], rel=1e-9, abs=1e-15)
    # Both kinds together are what the weights allow, wherever the boundary lies.
    assert float(losses.detach()[0] / 1.1 + losses.detach()[1] / 0.7) == pytest.approx(1.0, rel=1e-12)


def test_a_far_answer_has_a_finite_loss_and_no_gradient() -> None:
    leaf = torch.tensor([-1e5, 1e5, -1e5, 1e5], dtype=torch.float64, requires_grad=True)
    losses = KTOLoss(1.0)(leaf, torch.tensor(GOOD), torch.zeros(()).double())
    (slopes,) = torch.autograd.grad(losses.sum(), leaf)
    assert losses.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert slopes.tolist() == [0.0] * 4


def test_the_reference_point_has_no_gradient() -> None:
    total = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert not reference_point(total, torch.tensor(2.0)).requires_grad
    losses = KTOLoss()(torch.ones(2).double(), torch.tensor([True, False]), total)  # also if it were handed one
    assert not losses.requires_grad


def test_the_reference_point_is_a_mean_that_is_never_negative() -> None:
    for total, count, expected in ((3.0, 2.0, 1.5), (-3.0, 2.0, 0.0), (0.0, 0.0, 0.0)):
        assert float(reference_point(torch.tensor(total), torch.tensor(count))) == expected


@pytest.mark.parametrize("kind", [KTOLoss, APOZeroUnpairedLoss])
@pytest.mark.parametrize("field", ["beta", "desirable_weight", "undesirable_weight"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_field_out_of_its_range_is_refused_by_name(kind: type, field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be finite and > 0, got {value}"):
        kind(**{field: value})

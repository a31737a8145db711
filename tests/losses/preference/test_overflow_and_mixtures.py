"""What single losses do at the edges of their numbers, and what mixtures derive from their parts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from lit_align.losses.preference.aot import AOTLoss
from lit_align.losses.preference.chi_po import ChiPOLoss
from lit_align.losses.preference.contract import AnswerScores, PairScores, PreferenceLoss
from lit_align.losses.preference.discopop import DiscoPOPLoss
from lit_align.losses.preference.f_dpo import AlphaDivergence, FDivergence, ForwardKL
from lit_align.losses.preference.ipo import IPOLoss
from lit_align.losses.preference.length import LDDPOLoss
from lit_align.losses.preference.nll import ChosenNLLLoss
from lit_align.losses.preference.orpo import ORPOLoss
from lit_align.losses.preference.sigmoid import SigmoidLoss
from lit_align.losses.preference.simpo import SimPOLoss
from lit_align.losses.preference.weighted_sum import WeightedSum
from lit_align.losses.preference.wpo import WPOLoss
from tests.losses.preference.table import answers, two_pairs

F64 = torch.float64


def value_and_slope(function: object, at: float) -> tuple[float, float]:
    leaf = torch.tensor([at], dtype=F64, requires_grad=True)
    value: Tensor = function(leaf)  # type: ignore[operator]
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return float(value.detach()), float(slope)


def test_discopop_is_its_limit_where_the_plain_product_is_nan() -> None:
    u = torch.tensor([-1000.0], dtype=F64)
    assert ((u / 0.05).sigmoid() * (-u).exp()).isnan()
    value, slope = value_and_slope(DiscoPOPLoss(1.0).of_difference, -1000.0)
    assert value == pytest.approx(1000)  # the logistic part alone
    assert slope == pytest.approx(-1)


@pytest.mark.parametrize(("divergence", "rate"), [(ForwardKL(), 1.0), (AlphaDivergence(0.5), 0.5)], ids=str)
def test_a_divergence_goes_on_as_its_tangent_where_the_exponential_overflows(
    divergence: FDivergence, rate: float
) -> None:
    edge = -80 / rate
    value, slope = value_and_slope(divergence.score, edge + 1e-9)
    beyond, slope_beyond = value_and_slope(divergence.score, edge - 1e-9)
    far, slope_far = value_and_slope(divergence.score, edge - 1e5)
    assert beyond == pytest.approx(value)
    assert slope == pytest.approx(math.exp(80), rel=1e-7)
    assert slope_beyond == slope_far == pytest.approx(slope, rel=1e-7)
    assert far == pytest.approx(value - 1e5 * slope, rel=1e-7)


def of_ratios(chosen: float, rejected: float) -> PairScores:
    return PairScores(answers([(chosen, 0.0, 0.0)]), answers([(rejected, 0.0, 0.0)]))


def test_chi_po_clips_the_exponent_and_the_difference() -> None:
    beta = 1e-9  # so that the loss shows the exponential
    assert ChiPOLoss(beta)(of_ratios(30.0, 0.0)).item() == pytest.approx(
        math.log1p(math.exp(-beta * (math.exp(20) + 30 - 1))), rel=1e-12
    )
    clipped, unclipped = ChiPOLoss(1.0, max_reward=0.25), ChiPOLoss(1.0)
    assert clipped(of_ratios(2.0, -2.0)).item() == pytest.approx(math.log1p(math.exp(-0.5)))
    assert clipped(of_ratios(-2.0, 2.0)).item() == pytest.approx(math.log1p(math.exp(0.5)))
    assert clipped(of_ratios(0.1, 0.0)).item() == unclipped(of_ratios(0.1, 0.0)).item()


def test_chi_po_gradient_is_that_of_the_linear_term_beyond_the_clip() -> None:
    scores = of_ratios(-200.0, 0.0)
    leaf = scores.chosen.token_logps.clone().requires_grad_()
    loss = ChiPOLoss(0.1)(PairScores(replace(scores.chosen, token_logps=leaf), scores.rejected))
    (slope,) = torch.autograd.grad(loss.sum(), leaf)
    assert slope.item() == pytest.approx(-0.1, rel=1e-6)


def policy(chosen: float, rejected: float) -> PairScores:
    """Answers of one token."""
    n = torch.tensor([1])
    return PairScores(*(AnswerScores.of_sums(torch.tensor([logp], dtype=F64), None, n) for logp in (chosen, rejected)))


@pytest.mark.parametrize("logp", [-1e-6, -1e-3, -0.69, -math.log(2), -0.7, -5.0, -50.0, -700.0])
def test_the_odds_of_orpo_are_accurate_near_certainty_and_far_from_it(logp: float) -> None:
    # Against p = 1/2, whose odds are 1: the ratio is p / (1 - p), and log(1 + (1 - p) / p) = -log p.
    loss = ORPOLoss(coef=1.0)(policy(logp, -math.log(2))).item()
    assert loss == pytest.approx(-2 * logp, rel=1e-12, abs=0)


@pytest.mark.parametrize("sides", [(0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-1e4, 0.0), (0.0, -1e4)], ids=str)
def test_orpo_is_finite_for_an_answer_that_is_certain(sides: tuple[float, float]) -> None:
    scores = policy(*sides)
    leaves = [side.token_logps.requires_grad_() for side in (scores.chosen, scores.rejected)]
    loss = ORPOLoss()(scores)
    assert loss.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss.sum(), leaves))


def test_ipo_by_mean_is_blind_to_the_length_and_by_sum_is_not() -> None:
    token = (-1.0, -1.5, 0.0)
    short, long = ([token] * length for length in (2, 20))
    rejected = answers([(-1.0, -1.0, 0.0)], [(-1.0, -1.0, 0.0)])
    mean, total = (IPOLoss(0.1, reduction)(PairScores(answers(short, long), rejected)) for reduction in ("mean", "sum"))
    assert mean[0] == mean[1] == (0.5 - 5) ** 2
    assert total.tolist() == [(1 - 5) ** 2, (10 - 5) ** 2]


def test_ld_dpo_without_a_tail_weight_does_not_see_the_tail() -> None:
    scores = two_pairs()
    tail = (scores.chosen.pairs == 0) & (scores.chosen.positions >= 1)  # the first rejected answer has one token
    moved = replace(scores.chosen, token_logps=torch.where(tail, -9.0, scores.chosen.token_logps))
    loss = LDDPOLoss(SigmoidLoss(), alpha=0.0)
    assert torch.equal(loss(scores), loss(PairScores(moved, scores.rejected)))


def test_wpo_weights_have_no_gradient_and_need_their_statistic() -> None:
    scores = two_pairs()
    leaf = scores.chosen.token_logps.clone().requires_grad_()
    graded = PairScores(replace(scores.chosen, token_logps=leaf), scores.rejected)
    (weighted,) = torch.autograd.grad(WPOLoss(SigmoidLoss())(graded).sum(), leaf)
    (plain,) = torch.autograd.grad(SigmoidLoss()(graded).sum(), leaf)
    weights = torch.tensor([math.exp(0.25), math.exp(-0.5)], dtype=F64)
    torch.testing.assert_close(weighted, plain * weights[scores.chosen.pairs], rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match="needs the statistic log_sum_squares of every token, and it was not given"):
        WPOLoss(SigmoidLoss())(PairScores(replace(scores.chosen, statistics={}), scores.rejected))


@pytest.mark.parametrize(
    ("parts", "reference", "couples", "tokens", "statistics"),
    [
        ((SimPOLoss(), ChosenNLLLoss()), False, False, False, ()),
        ((SimPOLoss(), SigmoidLoss()), True, False, False, ()),
        ((SimPOLoss(), AOTLoss()), True, True, False, ()),
        ((LDDPOLoss(SigmoidLoss()), SigmoidLoss()), True, False, True, ()),
        ((WPOLoss(SimPOLoss()), SimPOLoss()), False, False, True, ("log_sum_squares",)),
        ((WPOLoss(SigmoidLoss()), WPOLoss(WPOLoss(SigmoidLoss()))), True, False, True, ("log_sum_squares",)),
        ((WeightedSum((AOTLoss(),), (1.0,)), SimPOLoss()), True, True, False, ()),
    ],
    ids=str,
)
def test_a_mixture_needs_what_its_parts_need(
    parts: tuple[PreferenceLoss, ...], reference: bool, couples: bool, tokens: bool, statistics: tuple[str, ...]
) -> None:
    mixture = WeightedSum(parts, (1.0,) * len(parts))
    assert mixture.needs_reference == reference
    assert mixture.couples_pairs == couples
    assert mixture.needs_tokens == tokens
    assert mixture.statistics == statistics


def test_a_mixture_is_the_weighted_sum_of_its_parts_and_of_their_gradients() -> None:
    scores = two_pairs()
    leaf = scores.chosen.token_logps.clone().requires_grad_()
    graded = PairScores(replace(scores.chosen, token_logps=leaf), scores.rejected)
    parts: list[PreferenceLoss] = [SigmoidLoss(), IPOLoss(), WPOLoss(SigmoidLoss())]
    mixture = WeightedSum(tuple(parts), (0.5, 0.25, 2.0))
    (got,) = torch.autograd.grad(mixture(graded).sum(), leaf)
    apart = [torch.autograd.grad(part(graded).sum(), leaf)[0] for part in parts]
    torch.testing.assert_close(mixture(scores), 0.5 * parts[0](scores) + 0.25 * parts[1](scores) + 2 * parts[2](scores))
    torch.testing.assert_close(got, 0.5 * apart[0] + 0.25 * apart[1] + 2 * apart[2])


def test_a_long_answer_keeps_its_digits_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    logps, reference = torch.rand(2, 4096, generator=generator).clamp(min=1e-6).log()
    places = torch.arange(4096)
    side = AnswerScores(logps, reference, torch.zeros_like(places), places, 1)
    exact = sum(cast(float, a) - cast(float, b) for a, b in zip(logps.tolist(), reference.tolist(), strict=True))
    assert side.log_ratios.item() == pytest.approx(exact, abs=1e-11)
    assert abs(float((logps - reference).double().sum()) - exact) > 1e-8
    assert abs(float(logps.sum() - reference.sum()) - exact) > 1e-5

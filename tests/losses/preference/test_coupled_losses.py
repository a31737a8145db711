"""Losses that look at a whole window: what one forest cannot know, and what the sum over forests must be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_align.losses.preference.aot import AOTLoss, UnpairedAOTLoss
from lit_align.losses.preference.bco import BCOPairLoss, ShiftedBCOPairLoss
from lit_align.losses.preference.contract import AnswerScores, PairScores, PreferenceLoss
from lit_align.losses.preference.nll import ChosenNLLLoss
from lit_align.losses.preference.sigmoid import SigmoidLoss
from lit_align.losses.preference.weighted_sum import WeightedSum

COUPLED = [
    AOTLoss(0.3),
    UnpairedAOTLoss(0.3),
    ShiftedBCOPairLoss(0.3),
    WeightedSum((AOTLoss(0.3), SigmoidLoss(0.1), ChosenNLLLoss()), (1.0, 0.5, 0.2)),
]
each_coupled = pytest.mark.parametrize("loss", COUPLED, ids=str)


def forest(generator: torch.Generator) -> PairScores:
    """A forest with one pair of answers of a few tokens."""

    def side(length: int) -> AnswerScores:
        logps = -3 * torch.rand(length, generator=generator, dtype=torch.float64)
        reference = logps + torch.randn(length, generator=generator, dtype=torch.float64)
        places = torch.arange(length)
        return AnswerScores(logps, reference, torch.zeros_like(places), places, 1)

    chosen, rejected = torch.randint(1, 9, (2,), generator=generator).tolist()
    return PairScores(side(chosen), side(rejected))


def together(forests: list[PairScores]) -> PairScores:
    """All pairs of a window as sums, as the module hands them over."""

    def side(answers: list[AnswerScores]) -> AnswerScores:
        columns = ([a.logps for a in answers], [a.reference_logps for a in answers], [a.lengths for a in answers])
        return AnswerScores.of_sums(*(torch.cat(column) for column in columns))

    return PairScores(side([each.chosen for each in forests]), side([each.rejected for each in forests]))


@pytest.fixture
def forests() -> list[PairScores]:
    generator = torch.Generator().manual_seed(0)
    return [forest(generator) for _ in range(32)]


@each_coupled
def test_one_forest_after_another_is_not_the_window(loss: PreferenceLoss, forests: list[PairScores]) -> None:
    apart = torch.cat([loss(each) for each in forests]).mean()
    assert (apart / loss(together(forests)).mean() - 1).abs() > 1e-3


@each_coupled
def test_32_forests_of_one_pair_put_together_are_one_forest_of_32_pairs(
    loss: PreferenceLoss, forests: list[PairScores]
) -> None:
    def one_forest(sides: list[AnswerScores]) -> AnswerScores:
        pairs = torch.cat([torch.full_like(side.pairs, number) for number, side in enumerate(sides)])
        logps = torch.cat([side.token_logps for side in sides])
        reference = torch.cat([side.reference_token_logps for side in sides if side.reference_token_logps is not None])
        return AnswerScores(logps, reference, pairs, torch.cat([side.positions for side in sides]), len(sides))

    whole = PairScores(one_forest([each.chosen for each in forests]), one_forest([each.rejected for each in forests]))
    torch.testing.assert_close(loss(together(forests)).mean(), loss(whole).mean(), rtol=1e-14, atol=0)


@each_coupled
def test_gradients_of_the_sums_give_the_window_gradient_of_every_token(
    loss: PreferenceLoss, forests: list[PairScores]
) -> None:
    """What the module does: coefficients from a pass without gradient, then forest by forest with those fixed."""
    leaves = [side.token_logps.requires_grad_() for each in forests for side in (each.chosen, each.rejected)]
    exact = torch.autograd.grad(loss(together(forests)).mean(), leaves)

    known = together(forests)
    sums = [side.token_logps.detach().requires_grad_() for side in (known.chosen, known.rejected)]
    frozen = PairScores(
        *(
            AnswerScores.of_sums(leaf, side.reference_logps, side.lengths)
            for leaf, side in zip(sums, (known.chosen, known.rejected), strict=True)
        )
    )
    coefficients = torch.autograd.grad(loss(frozen).mean(), sums)
    for number, each in enumerate(forests):
        own = [each.chosen.logps[0] * coefficients[0][number], each.rejected.logps[0] * coefficients[1][number]]
        graded = torch.autograd.grad(torch.stack(own).sum(), [each.chosen.token_logps, each.rejected.token_logps])
        for got, expected in zip(graded, exact[2 * number : 2 * number + 2], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)


@each_coupled
def test_the_order_of_the_pairs_does_not_matter(loss: PreferenceLoss, forests: list[PairScores]) -> None:
    torch.testing.assert_close(loss(together(forests)).mean(), loss(together(forests[::-1])).mean(), rtol=1e-13, atol=0)


def test_aot_of_one_pair_is_dpo_and_of_a_window_is_not(forests: list[PairScores]) -> None:
    for each in forests:
        torch.testing.assert_close(AOTLoss(0.3)(each), SigmoidLoss(0.3)(each), rtol=1e-12, atol=0)
    window = together(forests)
    aot, dpo = (loss(window).mean() for loss in (AOTLoss(0.3), SigmoidLoss(0.3)))
    assert (aot / dpo - 1).abs() > 1e-2


def sums(chosen: list[float], rejected: list[float]) -> PairScores:
    """Pairs with these log-ratios."""

    def side(values: list[float]) -> AnswerScores:
        ratios = torch.tensor(values, dtype=torch.float64)
        return AnswerScores.of_sums(ratios, torch.zeros_like(ratios), torch.ones_like(ratios))

    return PairScores(side(chosen), side(rejected))


def test_aot_pairs_quantiles_with_quantiles() -> None:
    # Margins of the policy 3, 1, 2; of the reference 0, 0, 0; then the same with the reference's 1, 2, 3.
    got = AOTLoss(1.0)(sums([3.0, 1.0, 2.0], [0.0, 0.0, 0.0]))
    torch.testing.assert_close(got, torch.nn.functional.softplus(torch.tensor([-1.0, -2.0, -3.0]).double()))
    window = sums([3.0, 1.0, 2.0], [0.0, 0.0, 0.0])
    reference = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    chosen = AnswerScores.of_sums(window.chosen.token_logps, reference, torch.ones(3))
    torch.testing.assert_close(
        AOTLoss(1.0)(PairScores(chosen, window.rejected)), torch.full((3,), 0.6931471805599453).double()
    )


def test_the_shift_of_bco_is_the_mean_reward_of_the_window_and_without_gradient() -> None:
    def gradient(loss: PreferenceLoss, offset: float) -> tuple[Tensor, Tensor]:
        window = sums([2.0 + offset, 1.0 + offset], [0.0 + offset, -3.0 + offset])
        leaf = window.chosen.token_logps.requires_grad_()
        value = loss(window)
        return value, torch.autograd.grad(value.sum(), leaf)[0]

    # The log-ratios have the mean 0, so the shift is nothing; and a common offset of all of them changes nothing.
    for got, expected in zip(gradient(ShiftedBCOPairLoss(0.5), 0.0), gradient(BCOPairLoss(0.5), 0.0), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)
    for got, expected in zip(gradient(ShiftedBCOPairLoss(0.5), 70.0), gradient(BCOPairLoss(0.5), 0.0), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)

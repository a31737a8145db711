"""What holds for every preference loss: values by hand, gradients, ranges, finiteness, and that none is left out."""

from __future__ import annotations

import importlib
import inspect
import math
import pickle
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import Tensor

import lit_align.losses.preference as family
from lit_align.losses.preference.aot import AOTLoss, UnpairedAOTLoss
from lit_align.losses.preference.bco import ShiftedBCOPairLoss
from lit_align.losses.preference.chi_po import ChiPOLoss
from lit_align.losses.preference.contract import AnswerScores, DifferenceLoss, PairScores, PreferenceLoss
from lit_align.losses.preference.dpop import DPOPLoss
from lit_align.losses.preference.f_dpo import AlphaDivergence, FDPOLoss, ForwardKL, ReverseKL
from lit_align.losses.preference.length import LDDPOLoss, LengthNormalizedSigmoidLoss, RDPOLoss
from lit_align.losses.preference.nll import ChosenNLLLoss, RPOLoss
from lit_align.losses.preference.sigmoid import RobustLoss, SigmoidLoss
from lit_align.losses.preference.weighted_sum import WeightedSum
from lit_align.losses.preference.wpo import WPOLoss
from lit_align.ops.token_statistics import Statistic
from tests.losses.preference.table import CASES, TRL, Case, two_pairs

F64 = torch.float64
each_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def concrete_losses() -> set[type[PreferenceLoss]]:
    """Every loss that the package defines."""
    for module in pkgutil.iter_modules(family.__path__, f"{family.__name__}."):
        importlib.import_module(module.name)

    def below(parent: type[PreferenceLoss]) -> Iterator[type[PreferenceLoss]]:
        for child in parent.__subclasses__():
            yield child
            yield from below(child)

    return {
        loss
        for loss in below(PreferenceLoss)
        if not inspect.isabstract(loss) and loss.__module__.startswith(family.__name__)
    }


def untested(losses: Iterable[type[PreferenceLoss]], cases: Iterable[Case]) -> dict[str, str]:
    """What is missing, by the name of the loss; every case gets its gradient checked."""
    missing = {}
    for loss in losses:
        own = [case for case in cases if type(case.loss) is loss]
        if not any(len(case.values) == 2 for case in own):
            missing[loss.__name__] = "no value by hand and no gradient check"
        elif not all(case.trl.settings if isinstance(case.trl, TRL) else case.trl for case in own):
            missing[loss.__name__] = "neither a loss of TRL nor a reason why there is none"
    return missing


def test_no_loss_is_left_out() -> None:
    losses = concrete_losses()
    assert len(losses) >= 25
    assert untested(losses, CASES) == {}


def test_a_loss_that_is_left_out_is_found() -> None:
    @dataclass(frozen=True)
    class NewLoss(SigmoidLoss):
        pass

    assert untested({NewLoss}, CASES) == {"NewLoss": "no value by hand and no gradient check"}
    assert "NewLoss" in untested({NewLoss}, [*CASES, Case(NewLoss(), (1.0, 2.0), "")])
    assert untested({NewLoss}, [*CASES, Case(NewLoss(), (1.0, 2.0), "TRL has none")]) == {}


@each_case
def test_values_by_hand(case: Case) -> None:
    got = case.loss(two_pairs())
    assert got.dtype == F64
    assert got.tolist() == pytest.approx(case.values, rel=1e-13, abs=1e-14)


@each_case
def test_float32_scores_are_reckoned_in_float64(case: Case) -> None:
    exact = two_pairs()  # its numbers are exact in float32
    got = case.loss(PairScores(as_float32(exact.chosen), as_float32(exact.rejected)))
    torch.testing.assert_close(got, case.loss(exact), rtol=0, atol=0)


def as_float32(scores: AnswerScores) -> AnswerScores:
    assert scores.reference_token_logps is not None
    return replace(
        scores, token_logps=scores.token_logps.float(), reference_token_logps=scores.reference_token_logps.float()
    )


LENGTHS = ([3, 1, 4, 2], [2, 3, 4, 6])


def random_side(lengths: list[int]) -> AnswerScores:
    count = sum(lengths)
    logps = -3 * torch.rand(count, dtype=F64) - 0.1
    return AnswerScores(
        logps,
        logps + 0.5 * torch.randn(count, dtype=F64),
        torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
        torch.cat([torch.arange(length) for length in lengths]),
        len(lengths),
        {"log_sum_squares": -torch.rand(count, dtype=F64)},
    )


def random_pairs() -> PairScores:
    return PairScores(*(random_side(lengths) for lengths in LENGTHS))


def as_sums(side: AnswerScores) -> AnswerScores:
    return AnswerScores.of_sums(side.logps, side.reference_logps, side.lengths)


def gradient_target(loss: PreferenceLoss) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The loss as a function of the policy's log-probs, whatever is detached in it held still while they move."""
    start = random_pairs()
    if loss.couples_pairs:
        start = PairScores(as_sums(start.chosen), as_sums(start.rejected))

    def side(at: AnswerScores, logps: Tensor) -> AnswerScores:
        moved = logps.detach() - at.token_logps
        if not loss.couples_pairs:
            # WPO's weight is the log-prob less this statistic.
            held = {name: value + moved for name, value in at.statistics.items()}
            return replace(at, token_logps=logps, statistics=held)
        # One pair more takes the opposite way: the mean reward of the window stays.
        more = torch.cat([logps, -moved.sum().reshape(1)])
        assert at.reference_token_logps is not None
        reference = torch.cat([at.reference_token_logps, torch.zeros(1, dtype=F64)])
        return AnswerScores.of_sums(more, reference, torch.cat([at.lengths, torch.ones(1, dtype=F64)]))

    def function(chosen: Tensor, rejected: Tensor) -> Tensor:
        return loss(PairScores(side(start.chosen, chosen), side(start.rejected, rejected)))

    inputs = (start.chosen.token_logps, start.rejected.token_logps)
    if type(loss) is ShiftedBCOPairLoss:
        return lambda *logps: function(*logps)[:-1], inputs
    if loss.couples_pairs:  # sorting: nothing is held
        return (
            lambda chosen, rejected: loss(
                PairScores(replace(start.chosen, token_logps=chosen), replace(start.rejected, token_logps=rejected))
            ),
            inputs,
        )
    return function, inputs


@each_case
def test_gradients(case: Case) -> None:
    function, inputs = gradient_target(case.loss)
    leaves = tuple(leaf.clone().requires_grad_() for leaf in inputs)
    assert torch.autograd.gradcheck(function, leaves, eps=1e-6, atol=1e-7, rtol=1e-6)
    gradients = torch.autograd.grad(function(*leaves).sum(), leaves, allow_unused=True)
    assert any(gradient is not None and gradient.abs().max() > 1e-6 for gradient in gradients)


@pytest.mark.parametrize("loss", [WPOLoss(SigmoidLoss()), ShiftedBCOPairLoss(0.5)], ids=str)
def test_the_gradient_check_needs_what_is_detached_to_stand_still(loss: PreferenceLoss) -> None:
    start = random_pairs()

    def function(chosen: Tensor, rejected: Tensor) -> Tensor:
        sides = replace(start.chosen, token_logps=chosen), replace(start.rejected, token_logps=rejected)
        return loss(PairScores(*sides))

    leaves = tuple(side.token_logps.clone().requires_grad_() for side in (start.chosen, start.rejected))
    assert not torch.autograd.gradcheck(function, leaves, raise_exception=False)


def two_alike(chosen: float, rejected: float) -> PairScores:
    """Two pairs of answers of one token with these log-ratios; one side of each ratio is certain."""

    def side(ratio: float) -> AnswerScores:
        logps, reference = (torch.full((2,), min(value, 0.0), dtype=F64) for value in (ratio, -ratio))
        statistics: dict[Statistic, Tensor] = {"log_sum_squares": torch.zeros(2, dtype=F64)}
        return AnswerScores(logps, reference, torch.arange(2), torch.zeros(2, dtype=torch.long), 2, statistics)

    return PairScores(side(chosen), side(rejected))


EXTREMES = [(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4), (-1e4, -1e4), (0.0, 0.0), (800.0, -800.0), (-90.0, 0.0)]


@each_case
@pytest.mark.parametrize("ratios", EXTREMES, ids=str)
def test_value_and_gradient_are_finite_at_extreme_ratios(case: Case, ratios: tuple[float, float]) -> None:
    scores = two_alike(*ratios)
    leaves = tuple(side.token_logps.clone().requires_grad_() for side in (scores.chosen, scores.rejected))
    loss = case.loss(
        PairScores(replace(scores.chosen, token_logps=leaves[0]), replace(scores.rejected, token_logps=leaves[1]))
    )
    assert loss.isfinite().all()
    for gradient in torch.autograd.grad(loss.sum(), leaves, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


@each_case
def test_a_missing_reference_is_an_error_exactly_where_one_is_needed(case: Case) -> None:
    scores = two_pairs()
    without = PairScores(*(replace(side, reference_token_logps=None) for side in (scores.chosen, scores.rejected)))
    if case.loss.needs_reference:
        with pytest.raises(ValueError, match="compares with a reference, and none was run"):
            case.loss(without)
    else:
        assert torch.equal(case.loss(without), case.loss(scores))


@each_case
def test_sums_are_enough_exactly_where_no_token_is_needed(case: Case) -> None:
    scores = two_pairs()
    sums = PairScores(as_sums(scores.chosen), as_sums(scores.rejected))
    if case.loss.needs_tokens:
        with pytest.raises(ValueError, match="of every token"):
            case.loss(sums)
    else:
        torch.testing.assert_close(case.loss(sums), case.loss(scores), rtol=1e-14, atol=1e-15)


@each_case
def test_pairs_are_independent_exactly_where_the_loss_does_not_couple_them(case: Case) -> None:
    scores = random_pairs()
    apart = torch.cat(
        [case.loss(PairScores(one(scores.chosen, pair), one(scores.rejected, pair))) for pair in range(4)]
    )
    together = case.loss(scores)
    assert torch.allclose(apart, together, rtol=1e-13, atol=0) != case.loss.couples_pairs


def one(side: AnswerScores, pair: int) -> AnswerScores:
    """A forest that holds that one pair."""
    own = side.pairs == pair
    assert side.reference_token_logps is not None
    return AnswerScores(
        side.token_logps[own],
        side.reference_token_logps[own],
        torch.zeros(int(own.sum()), dtype=torch.long),
        side.positions[own],
        1,
        {name: value[own] for name, value in side.statistics.items()},
    )


@each_case
def test_a_loss_is_a_value(case: Case) -> None:
    assert pickle.loads(pickle.dumps(case.loss)) == case.loss
    assert hash(replace(case.loss)) == hash(case.loss)
    flags = {"needs_reference", "couples_pairs", "needs_tokens", "statistics", "length_normalized"}
    assert not flags & {field.name for field in fields(case.loss)}


@each_case
def test_every_field_of_a_loss_is_described(case: Case) -> None:
    text = inspect.getdoc(type(case.loss)) or ""
    assert "arXiv" in text or type(case.loss) is ChosenNLLLoss
    for field in fields(case.loss):
        assert f"{field.name}: " in text.partition("Attributes:")[2].partition("Raises:")[0]


DIFFERENCE_LOSSES = [case.loss for case in CASES if isinstance(case.loss, DifferenceLoss)]


@pytest.mark.parametrize("loss", DIFFERENCE_LOSSES, ids=str)
def test_swapping_the_answers_negates_the_argument(loss: DifferenceLoss) -> None:
    scores = random_pairs()
    swapped = PairScores(scores.rejected, scores.chosen)
    log_ratios = [side.log_ratios for side in (scores.chosen, scores.rejected)]
    if loss.length_normalized:
        log_ratios = [s / n for s, n in zip(log_ratios, (scores.chosen.lengths, scores.rejected.lengths), strict=True)]
    difference = log_ratios[0] - log_ratios[1]
    torch.testing.assert_close(loss(scores), loss.of_difference(difference), rtol=1e-13, atol=0)
    torch.testing.assert_close(loss(swapped), loss.of_difference(-difference), rtol=1e-13, atol=0)
    assert not torch.allclose(loss(scores), loss(swapped))


def at_the_reference() -> PairScores:
    scores = random_pairs()
    return PairScores(*(replace(side, reference_token_logps=side.token_logps) for side in vars(scores).values()))


@pytest.mark.parametrize(
    "loss",
    [
        SigmoidLoss(),
        SigmoidLoss(label_smoothing=0.2),
        RobustLoss(),
        LengthNormalizedSigmoidLoss(),
        AOTLoss(),
        UnpairedAOTLoss(),
        ChiPOLoss(),
        DPOPLoss(),
        LDDPOLoss(SigmoidLoss()),
        *(
            FDPOLoss(SigmoidLoss(), divergence=divergence)
            for divergence in (ReverseKL(), ForwardKL(), AlphaDivergence())
        ),
        RDPOLoss(alpha=0.0),
    ],
    ids=str,
)
def test_a_policy_equal_to_its_reference_has_the_loss_log_2(loss: PreferenceLoss) -> None:
    torch.testing.assert_close(loss(at_the_reference()), torch.full((4,), math.log(2), dtype=F64), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("loss", "same"),
    [
        (RobustLoss(0.3, label_smoothing=0.0), SigmoidLoss(0.3)),
        (DPOPLoss(0.3, penalty=0.0), SigmoidLoss(0.3)),
        (RDPOLoss(0.3, alpha=0.0), SigmoidLoss(0.3)),
        (RPOLoss(0.3, alpha=0.0), SigmoidLoss(0.3)),
        (LDDPOLoss(SigmoidLoss(0.3), alpha=1.0), SigmoidLoss(0.3)),
        (FDPOLoss(SigmoidLoss(0.3), ReverseKL()), SigmoidLoss(0.3)),
        (RPOLoss(0.3, alpha=0.7), WeightedSum((SigmoidLoss(0.3), ChosenNLLLoss()), (1.0, 0.7))),
        (
            FDPOLoss(SigmoidLoss(), divergence=AlphaDivergence(1 - 1e-9)),
            FDPOLoss(SigmoidLoss(), divergence=ForwardKL()),
        ),
        (FDPOLoss(SigmoidLoss(), divergence=AlphaDivergence(1e-7)), SigmoidLoss()),
    ],
    ids=str,
)
def test_at_the_ends_of_its_options_a_loss_becomes_another(loss: PreferenceLoss, same: PreferenceLoss) -> None:
    scores = random_pairs()
    torch.testing.assert_close(loss(scores), same(scores), rtol=1e-6, atol=0)

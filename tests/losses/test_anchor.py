"""Properties of the divergences and of the anchor's schedule and mask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_align.losses.anchor import Divergence, ForwardKL, JensenShannon, KLAnchor, ReverseKL, TargetMaskedKL

DIVERGENCES = (ReverseKL(), ForwardKL(), JensenShannon(), TargetMaskedKL(), TargetMaskedKL(ReverseKL()))
F64 = torch.float64
each_divergence = pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def naive(divergence: Divergence, logits_p: Tensor, logits_q: Tensor, targets: Tensor) -> Tensor:
    """Textbook formulas in float64, differentiable in ``logits_p``."""
    p, q = logits_p.double().log_softmax(-1), logits_q.double().log_softmax(-1)
    if isinstance(divergence, TargetMaskedKL):
        other = torch.ones_like(p, dtype=torch.bool).scatter(1, targets[:, None], False)
        p, q = (x.double()[other].view(len(x), -1).log_softmax(-1) for x in (logits_p, logits_q))
        divergence = divergence.divergence
    mean = torch.logaddexp(p, q) - math.log(2)
    reverse, forward = (p.exp() * (p - q)).sum(-1), (q.exp() * (q - p)).sum(-1)
    jensen_shannon = (p.exp() * (p - mean) + q.exp() * (q - mean)).sum(-1) / 2
    return {ReverseKL: reverse, ForwardKL: forward, JensenShannon: jensen_shannon}[type(divergence)]


def pair(scale: float, distance: float, n: int = 6, v: int = 11, dtype: torch.dtype = F64) -> tuple[Tensor, ...]:
    logits_p = scale * torch.randn(n, v, dtype=dtype)
    return logits_p, logits_p + distance * torch.randn(n, v, dtype=dtype), torch.randint(v, (n,))


@each_divergence
@pytest.mark.parametrize(("scale", "distance"), [(1, 0.3), (3, 3), (30, 10), (1, 100), (100, 1)])
def test_value_and_gradient_equal_the_naive_form(divergence: Divergence, scale: float, distance: float) -> None:
    logits_p, logits_q, targets = pair(scale, distance)
    leaf = logits_p.clone().requires_grad_()
    expected = naive(divergence, leaf, logits_q, targets)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    value, slope = divergence.value_and_grad(log_p, log_q, targets)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(slope, gradient, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(divergence(log_p, log_q, targets), value, rtol=1e-14, atol=0)


@each_divergence
@pytest.mark.parametrize(("scale", "distance"), [(1, 0.01), (1, 1), (30, 10), (1, 300), (5000, 5000)])
def test_the_analytic_gradient_equals_the_autograd_default(
    divergence: Divergence, scale: float, distance: float
) -> None:
    logits_p, logits_q, targets = pair(scale, distance)
    arguments = (logits_p.log_softmax(-1), logits_q.log_softmax(-1), targets)
    with torch.no_grad():  # as inside the head's forward
        default_value, default_slope = Divergence.value_and_grad(divergence, *arguments)
    value, slope = divergence.value_and_grad(*arguments)
    assert not default_value.requires_grad
    torch.testing.assert_close(value, default_value, rtol=1e-12, atol=0)
    torch.testing.assert_close(slope, default_slope, rtol=1e-9, atol=1e-13)


@each_divergence
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_equal_distributions_give_exactly_zero_value_and_gradient(
    divergence: Divergence, dtype: torch.dtype, scale: float
) -> None:
    logits, _, targets = pair(scale, 0, v=1001, dtype=dtype)
    log_p = logits.log_softmax(-1)
    for compute in (divergence.value_and_grad, lambda *a: Divergence.value_and_grad(divergence, *a)):
        value, slope = compute(log_p, log_p.clone(), targets)
        assert not value.any()
        assert not slope.any()


@each_divergence
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_extreme_logits_stay_finite_and_right(divergence: Divergence, dtype: torch.dtype) -> None:
    # One entry 200 nats lower, one 200 nats higher, a swapped pair of ±1e4, and a target that holds all mass.
    base = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5], dtype=dtype)
    low, high, swap_p, swap_q, sure = (base.clone() for _ in range(5))
    low[1] -= 200
    high[2] += 200
    swap_p[:2] = torch.tensor([1e4, -1e4])
    swap_q[:2] = torch.tensor([-1e4, 1e4])
    sure[4] = 1e4
    logits_p = torch.stack([low, base, high, base, swap_p, swap_q, sure, base])
    logits_q = torch.stack([base, low, base, high, swap_q, swap_p, base, sure])
    for target in range(5):
        targets = torch.full((8,), target)
        value, slope = divergence.value_and_grad(logits_p.log_softmax(-1), logits_q.log_softmax(-1), targets)
        exact_leaf = logits_p.double().requires_grad_()
        exact = naive(divergence, exact_leaf, logits_q, targets)
        (gradient,) = torch.autograd.grad(exact.sum(), exact_leaf)
        assert value.isfinite().all()
        assert slope.isfinite().all()
        torch.testing.assert_close(value.double(), exact.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(slope.double(), gradient, rtol=1e-4, atol=1e-4)


@each_divergence
@pytest.mark.parametrize("distance", [1.5e-2, 1.5e-3])  # a KL of about 1e-4 and 1e-6
def test_a_small_divergence_is_right_to_a_thousandth_in_fp32(divergence: Divergence, distance: float) -> None:
    logits_p, logits_q, targets = pair(3, distance, n=8, v=20_000, dtype=torch.float32)
    exact_leaf = logits_p.double().requires_grad_()
    exact = naive(divergence, exact_leaf, logits_q, targets)
    (gradient,) = torch.autograd.grad(exact.sum(), exact_leaf)
    value, slope = divergence.value_and_grad(logits_p.log_softmax(-1), logits_q.log_softmax(-1), targets)
    assert 1e-8 < exact.min() < 1e-3
    assert ((value - exact) / exact).abs().max() < 1e-3
    assert ((slope - gradient).norm(dim=-1) / gradient.norm(dim=-1)).max() < 2e-3
    assert (value >= 0).all()


def test_the_plain_sum_would_miss_that_accuracy() -> None:
    logits_p, logits_q, targets = pair(3, 1.5e-3, n=8, v=20_000, dtype=torch.float32)
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    exact = naive(ReverseKL(), logits_p, logits_q, targets)
    plain = (log_p.exp() * (log_p - log_q)).sum(-1)
    assert ((plain - exact) / exact).abs().max() > 1e-2


@pytest.mark.parametrize("divergence", DIVERGENCES[3:], ids=str)
def test_the_masked_kl_survives_a_nearly_certain_target(divergence: TargetMaskedKL) -> None:
    # The target leads by 40 nats: 1 - p is 1e-16, so log1p(-p) would be -inf in fp32.
    logits_p, logits_q, targets = pair(2, 0.3, v=1000, dtype=torch.float32)
    for logits in (logits_p, logits_q):
        logits.scatter_(1, targets[:, None], 40.0)
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    assert not log_p.gather(1, targets[:, None]).any()
    value, slope = divergence.value_and_grad(log_p, log_q, targets)
    torch.testing.assert_close(value, naive(divergence, logits_p, logits_q, targets).float(), rtol=1e-4, atol=0)
    assert not slope.gather(1, targets[:, None]).any()


@pytest.mark.parametrize("divergence", DIVERGENCES[3:], ids=str)
def test_the_masked_kl_ignores_the_target_logit(divergence: TargetMaskedKL) -> None:
    logits_p, logits_q, targets = pair(1, 1)
    moved = logits_p.scatter(1, targets[:, None], 5.0)
    values = [divergence(logits.log_softmax(-1), logits_q.log_softmax(-1), targets) for logits in (logits_p, moved)]
    torch.testing.assert_close(*values)
    assert not torch.allclose(
        values[0], divergence.divergence(moved.log_softmax(-1), logits_q.log_softmax(-1), targets)
    )


def test_the_masked_kl_needs_a_token_beside_the_target() -> None:
    with pytest.raises(ValueError, match="vocabulary of 1 tokens"):
        TargetMaskedKL()(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize(
    ("divergence", "value", "slope"),
    [
        # p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2), d = (log 2, 0, -log 2).
        # KL(p|q) = log 2 / 2 - log 2 / 4 = log 2 / 4; slope p (d - KL) = log 2 (3/8, -1/16, -5/16).
        (ReverseKL(), math.log(2) / 4, [math.log(2) * x for x in (3 / 8, -1 / 16, -5 / 16)]),
        # KL(q|p) is the same by symmetry; slope p - q.
        (ForwardKL(), math.log(2) / 4, [0.25, 0.0, -0.25]),
        # m = (3/8, 1/4, 3/8). KL(p|m) = log(4/3)/2 + log(2/3)/4 = KL(q|m), so JS is the same number;
        # slope p/2 (log(p/m) - KL(p|m)).
        (
            JensenShannon(),
            math.log(4 / 3) / 2 + math.log(2 / 3) / 4,
            [
                w / 2 * (x - math.log(4 / 3) / 2 - math.log(2 / 3) / 4)
                for w, x in ((0.5, math.log(4 / 3)), (0.25, 0.0), (0.25, math.log(2 / 3)))
            ],
        ),
        # Without token 0: p' = (1/2, 1/2), q' = (1/3, 2/3). KL(q'|p') = log(2/3)/3 + 2 log(4/3)/3; slope p' - q'.
        (TargetMaskedKL(), math.log(2 / 3) / 3 + 2 * math.log(4 / 3) / 3, [0.0, 1 / 6, -1 / 6]),
        # KL(p'|q') = log(3/2)/2 + log(3/4)/2 = log(9/8)/2; slope 1/2 (log(3/2) - KL) = log(2)/4 and minus it.
        (TargetMaskedKL(ReverseKL()), math.log(9 / 8) / 2, [0.0, math.log(2) / 4, -math.log(2) / 4]),
    ],
    ids=[str(divergence) for divergence in DIVERGENCES],
)
def test_hand_computed_values_and_gradients(divergence: Divergence, value: float, slope: list[float]) -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25]], dtype=F64), torch.tensor([[0.25, 0.25, 0.5]], dtype=F64)
    got, gradient = divergence.value_and_grad(p.log(), q.log(), torch.tensor([0]))
    torch.testing.assert_close(got, torch.tensor([value], dtype=F64))
    torch.testing.assert_close(gradient, torch.tensor([slope], dtype=F64))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 50), st.floats(0, 50))
def test_bounds_symmetry_and_a_gradient_without_sum(seed: int, scale: float, distance: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    p, q = (s * torch.randn(2, 9, generator=generator, dtype=F64) for s in (scale, distance))
    log_p, log_q, targets = p.log_softmax(-1), (p + q).log_softmax(-1), torch.tensor([0, 8])
    kl = {d: d(log_p, log_q, targets) for d in DIVERGENCES}
    for divergence in DIVERGENCES:
        assert (kl[divergence] >= -1e-15).all()
        assert divergence.value_and_grad(log_p, log_q, targets)[1].sum(-1).abs().max() < 1e-10
    js = JensenShannon()
    assert (kl[js] <= math.log(2) + 1e-12).all()
    torch.testing.assert_close(kl[js], js(log_q, log_p, targets), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(kl[ReverseKL()], ForwardKL()(log_q, log_p, targets))


@each_divergence
def test_inputs_are_read_only(divergence: Divergence) -> None:
    logits_p, logits_q, targets = pair(1, 1)
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    before = log_p.clone(), log_q.clone(), targets.clone()
    divergence(log_p, log_q, targets)
    divergence.value_and_grad(log_p, log_q, targets)
    assert all(torch.equal(a, b) for a, b in zip(before, (log_p, log_q, targets), strict=True))


def test_a_subclass_needs_only_its_value() -> None:
    class TotalVariation(Divergence):
        def __call__(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> Tensor:
            return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2

    logits_p, logits_q, targets = pair(1, 1)
    leaf = logits_p.clone().requires_grad_()
    (expected,) = torch.autograd.grad((leaf.softmax(-1) - logits_q.softmax(-1)).abs().sum() / 2, leaf)
    _, slope = TotalVariation().value_and_grad(logits_p.log_softmax(-1), logits_q.log_softmax(-1), targets)
    torch.testing.assert_close(slope, expected)
    assert KLAnchor(divergence=TotalVariation()).divergence == TotalVariation()


def test_a_sampled_token_estimator_as_loss_only_rescales_the_nll() -> None:
    """Why none is offered: the gradient of k1 on gold text is exactly minus the NLL's, the reference drops out."""
    logits_p, logits_q, targets = pair(1, 1)
    leaf = logits_p.clone().requires_grad_()
    logps, reference = (x.log_softmax(-1).gather(1, targets[:, None]) for x in (leaf, logits_q))
    (of_k1,) = torch.autograd.grad((logps - reference).sum(), leaf, retain_graph=True)
    (of_nll,) = torch.autograd.grad(-logps.sum(), leaf)
    assert torch.equal(of_k1, -of_nll)


@pytest.mark.parametrize(
    ("anchor", "weights"),
    [
        (KLAnchor(coef=0.5), {0: 0.5, 1: 0.5, 10**9: 0.5}),
        (KLAnchor(coef=0.5, start_step=3), {0: 0.0, 2: 0.0, 3: 0.5, 4: 0.5}),
        (
            KLAnchor(coef=0.8, start_step=10, warmup_steps=4),
            {9: 0.0, 10: 0.0, 11: 0.2, 12: 0.4, 13: 0.6, 14: 0.8, 99: 0.8},
        ),
        (KLAnchor(coef=0.0, warmup_steps=4), {0: 0.0, 2: 0.0, 4: 0.0}),
    ],
)
def test_weight_follows_the_schedule(anchor: KLAnchor, weights: dict[int, float]) -> None:
    assert {step: anchor.weight(step) for step in weights} == pytest.approx(weights, rel=1e-12, abs=0)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 10), st.integers(0, 50), st.integers(0, 50), st.integers(0, 200))
def test_weight_never_falls_and_ends_at_exactly_coef(coef: float, start: int, warmup: int, step: int) -> None:
    anchor = KLAnchor(coef=coef, start_step=start, warmup_steps=warmup)
    assert 0 <= anchor.weight(step) <= anchor.weight(step + 1) <= coef
    assert anchor.weight(start + warmup) == coef


# Two examples: a trained one with three answer tokens and a replayed one with two.
FROM_END = torch.tensor([2, 1, 0, 1, 0])
REPLAYED = torch.tensor([False, False, False, True, True])


@pytest.mark.parametrize(
    ("text", "tail_tokens", "expected"),
    [
        ("trained", 0, [1, 1, 1, 0, 0]),
        ("replayed", 0, [0, 0, 0, 1, 1]),
        ("both", 0, [1, 1, 1, 1, 1]),
        ("trained", 2, [0, 1, 1, 0, 0]),
        ("replayed", 1, [0, 0, 0, 0, 1]),
        ("both", 1, [0, 0, 1, 0, 1]),
        ("both", 100, [1, 1, 1, 1, 1]),
    ],
)
def test_anchored_targets(text: Any, tail_tokens: int, expected: list[int]) -> None:
    mask = KLAnchor(text=text, tail_tokens=tail_tokens).anchored(FROM_END, REPLAYED)
    assert mask.dtype == torch.bool
    assert mask.int().tolist() == expected


def test_the_mask_is_never_an_alias_of_the_input() -> None:
    replayed = REPLAYED.clone()
    KLAnchor(text="replayed").anchored(FROM_END, replayed).fill_(True)
    assert torch.equal(replayed, REPLAYED)


def test_a_mask_of_arrays_that_do_not_fit_is_refused() -> None:
    anchor = KLAnchor(tail_tokens=1)
    with pytest.raises(ValueError, match=r"got \(4,\) torch.int64 and \(5,\) torch.bool"):
        anchor.anchored(FROM_END[:4], REPLAYED)
    with pytest.raises(ValueError, match="replayed bool"):
        anchor.anchored(FROM_END, REPLAYED.int())
    with pytest.raises(ValueError, match="from_end must be >= 0, got -1"):
        anchor.anchored(FROM_END - 1, REPLAYED)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"coef": -0.1}, "coef must be finite and >= 0, got -0.1"),
        ({"coef": math.nan}, "coef must be finite and >= 0, got nan"),
        ({"coef": math.inf}, "coef must be finite and >= 0, got inf"),
        ({"start_step": -1}, "start_step must be >= 0, got -1"),
        ({"warmup_steps": -2}, "warmup_steps must be >= 0, got -2"),
        ({"tail_tokens": -3}, "tail_tokens must be >= 0, got -3"),
        ({"text": "gold"}, "text must be one of trained, replayed, both, got 'gold'"),
        ({"divergence": "ReverseKL"}, "divergence must be a Divergence, got 'ReverseKL'"),
    ],
)
def test_a_wrong_field_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KLAnchor(**fields)


def test_the_default_is_the_reverse_kl_on_trained_text() -> None:
    assert KLAnchor() == KLAnchor(ReverseKL(), coef=0.03, start_step=0, warmup_steps=0, tail_tokens=0, text="trained")

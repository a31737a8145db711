"""Properties of the frozen head: values, gradients, memory, precision, refusals."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from lit_align.losses.anchor import ForwardKL, JensenShannon, ReverseKL, TargetMaskedKL
from lit_align.ops import frozen_head, head_products
from lit_align.ops.frozen_head import FrozenHead, TokenScores, score_tokens, token_logps

DIVERGENCES = (ReverseKL(), ForwardKL(), JensenShannon(), TargetMaskedKL(), TargetMaskedKL(ReverseKL()))
F64 = torch.float64


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def draw(n: int = 7, v: int = 29, h: int = 6, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor, FrozenHead, Tensor]:
    """Policy's and reference's hidden states, a head with bias, targets."""
    hidden = torch.randn(n, h, dtype=F64).to(dtype)
    reference = (hidden + 0.3 * torch.randn(n, h, dtype=F64)).to(dtype)
    head = FrozenHead(torch.randn(v, h, dtype=F64).to(dtype), torch.randn(v, dtype=F64).to(dtype))
    return hidden.requires_grad_(), reference, head, torch.randint(v, (n,))


def naive_log_probs(hidden: Tensor, head: FrozenHead) -> Tensor:
    bias = 0 if head.bias is None else head.bias.double()
    return (hidden.double() @ head.weight.double().T + bias).log_softmax(-1)


def naive(hidden: Tensor, reference: Tensor, head: FrozenHead, targets: Tensor) -> tuple[Tensor, ...]:
    """Textbook formulas over the whole vocabulary in float64."""

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a.exp() * (a - b)).sum(-1)

    p, q = naive_log_probs(hidden, head), naive_log_probs(reference, head)
    mean = ((p.exp() + q.exp()) / 2).log()
    other = torch.ones_like(p, dtype=torch.bool).scatter(1, targets[:, None], False)
    p_rest, q_rest = (x[other].view(len(x), -1).log_softmax(-1) for x in (p, q))
    logps = p.gather(1, targets[:, None]).squeeze(1)
    return logps, kl(p, q), kl(q, p), (kl(p, mean) + kl(q, mean)) / 2, kl(q_rest, p_rest), kl(p_rest, q_rest)


def outputs(scores: TokenScores) -> tuple[Tensor, ...]:
    return (scores.logps, *scores.divergences)


def test_values_and_gradients_equal_the_naive_form_in_float64() -> None:
    hidden, reference, head, targets = draw()
    ours = outputs(score_tokens(hidden, head, targets, reference_hidden=reference, divergences=DIVERGENCES))
    for mine, theirs in zip(ours, naive(hidden, reference, head, targets), strict=True):
        weights = torch.randn_like(mine)
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            torch.autograd.grad(mine @ weights, hidden, retain_graph=True)[0],
            torch.autograd.grad(theirs @ weights, hidden, retain_graph=True)[0],
            rtol=1e-11,
            atol=1e-12,
        )


def test_gradcheck_of_all_outputs_together() -> None:
    hidden, reference, head, targets = draw(n=3, v=7, h=4)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        return outputs(score_tokens(x, head, targets, reference_hidden=reference, divergences=DIVERGENCES))

    assert torch.autograd.gradcheck(function, hidden)


def test_hand_computed_value_and_gradient() -> None:
    # Head rows 1, 0 and hidden log 3: logits (log 3, 0), p = (3/4, 1/4). d logp_0 / dh = (1 - 3/4) * 1 = 1/4;
    # d logp_1 / dh = 0 - 3/4 * 1 = -3/4. Entropy 0.75 log(4/3) + 0.25 log 4; sum p² = 9/16 + 1/16 = 5/8.
    head = FrozenHead(torch.tensor([[1.0], [0.0]], dtype=F64))
    hidden = torch.full((2, 1), 3.0, dtype=F64).log().requires_grad_()
    scores = score_tokens(hidden, head, torch.tensor([0, 1]), statistics=("entropy", "rank", "log_sum_squares"))
    scores.logps.sum().backward()
    torch.testing.assert_close(scores.logps.exp(), torch.tensor([0.75, 0.25], dtype=F64))
    torch.testing.assert_close(hidden.grad, torch.tensor([[0.25], [-0.75]], dtype=F64))
    entropy = 0.75 * torch.tensor(4 / 3, dtype=F64).log() + 0.25 * torch.tensor(4.0, dtype=F64).log()
    torch.testing.assert_close(scores.statistics["entropy"], entropy.expand(2))
    torch.testing.assert_close(scores.statistics["log_sum_squares"].exp(), torch.full((2,), 0.625, dtype=F64))
    assert scores.statistics["rank"].tolist() == [0, 1]
    assert not any(value.requires_grad for value in scores.statistics.values())


def test_statistics_equal_the_naive_form() -> None:
    hidden, _, head, targets = draw()
    p = naive_log_probs(hidden, head)
    stats = score_tokens(hidden, head, targets, statistics=("log_sum_squares", "rank", "entropy")).statistics
    torch.testing.assert_close(stats["entropy"], -(p.exp() * p).sum(-1))
    torch.testing.assert_close(stats["log_sum_squares"], p.exp().square().sum(-1).log())
    order = p.argsort(-1, descending=True)
    assert torch.equal(stats["rank"], (order == targets[:, None]).nonzero()[:, 1])


def test_duplicates_of_a_row_count_once_each() -> None:
    hidden, reference, head, targets = draw(n=2)
    rows = torch.tensor([0, 1, 0, 0])
    scores = score_tokens(
        hidden[rows], head, targets[rows], reference_hidden=reference[rows], divergences=DIVERGENCES[:1]
    )
    single = score_tokens(hidden, head, targets, reference_hidden=reference, divergences=DIVERGENCES[:1])
    for many, one in zip(outputs(scores), outputs(single), strict=True):
        torch.testing.assert_close(many, one[rows])
        (repeated,) = torch.autograd.grad(many.sum(), hidden, retain_graph=True)
        (once,) = torch.autograd.grad(one.sum(), hidden, retain_graph=True)
        torch.testing.assert_close(repeated, once * torch.tensor([[3.0], [1.0]], dtype=F64))


def test_one_row_may_predict_several_targets() -> None:
    hidden, _, head, _ = draw(n=1, v=5)
    targets = torch.arange(5)
    logps = token_logps(hidden.expand(5, -1), head, targets)
    torch.testing.assert_close(logps, naive_log_probs(hidden, head)[0])
    # sum_v p_v d log p_v = 0: the probability-weighted gradients cancel.
    (gradient,) = torch.autograd.grad(logps @ logps.detach().exp(), hidden)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 1000])
def test_chunk_size_changes_nothing_beyond_rounding(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, reference, head, targets = draw(dtype=torch.float32)
    monkeypatch.setattr(frozen_head, "CPU_BLOCK_BYTES", 29 * 4 * 2)  # two rows at a time
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    results = []
    for chunk_rows in (rows, None):
        scores = score_tokens(
            hidden, head, targets, reference_hidden=reference, divergences=DIVERGENCES, chunk_rows=chunk_rows
        )
        gradients = [torch.autograd.grad(x.sum(), hidden, retain_graph=True)[0] for x in outputs(scores)]
        results.append((*outputs(scores), *gradients))
    for chunked, whole in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=2e-5, atol=2e-6)


def saved_elements(hidden: Tensor, v: int, divergences: tuple[ReverseKL, ...]) -> int:
    head, count = FrozenHead(torch.randn(v, hidden.shape[1])), 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal count
        count += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        targets = torch.zeros(len(hidden), dtype=torch.long)
        reference = torch.randn_like(hidden) if divergences else None
        score_tokens(hidden, head, targets, reference_hidden=reference, divergences=divergences)
    return count


@pytest.mark.parametrize("count", [0, 1, 2])
def test_what_is_saved_for_backward_does_not_depend_on_the_vocabulary(count: int) -> None:
    hidden = torch.randn(5, 4, requires_grad=True)
    for v in (3, 3000):
        assert saved_elements(hidden, v, (ReverseKL(),) * count) == (1 + count) * 5 * 4


def test_without_gradient_nothing_is_saved_and_no_gradient_product_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("gradient work was done")

    monkeypatch.setattr(frozen_head, "head_gradient", refuse)
    assert saved_elements(torch.randn(5, 4), 30, (ReverseKL(),)) == 0
    with torch.no_grad():
        assert saved_elements(torch.randn(5, 4, requires_grad=True), 30, (ReverseKL(),)) == 0
    with pytest.raises(AssertionError, match="gradient work"):
        saved_elements(torch.randn(5, 4, requires_grad=True), 30, ())


def test_never_more_rows_of_logits_at_once_than_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(len(hidden))
        return head_products.head_logits(hidden, weight, bias)

    monkeypatch.setattr(frozen_head, "head_logits", spy)
    monkeypatch.setattr(frozen_head, "CPU_CHUNK_BYTES", 3 * 29 * 8 + 5)  # three rows of float64 and a bit
    hidden, _, head, targets = draw()
    token_logps(hidden, head, targets)
    assert seen == [3, 3, 1]
    seen.clear()
    monkeypatch.setattr(frozen_head, "CPU_CHUNK_BYTES", 1)  # a row that is larger makes a chunk of its own
    token_logps(hidden, head, targets)
    assert seen == [1] * 7


def test_a_chunk_is_gone_when_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Tensor]] = []

    def spy(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert not [one for one in made[: len(made) // 2 * 2] if one() is not None]
        logits = head_products.head_logits(hidden, weight, bias)
        made.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(frozen_head, "head_logits", spy)
    hidden, reference, head, targets = draw()
    score_tokens(
        hidden, head, targets, reference_hidden=reference, divergences=DIVERGENCES, statistics=["rank"], chunk_rows=3
    )
    assert len(made) == 2 * 3  # policy and reference, three chunks


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_half_precision_is_better_than_a_plain_bf16_head(
    weight_dtype: torch.dtype, hidden_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_products, "BLOCK_BYTES", 100 * 64 * 4)  # several blocks, the last one short
    hidden = torch.randn(24, 64).to(hidden_dtype).requires_grad_()
    head = FrozenHead((torch.randn(1030, 64) / 4).to(weight_dtype))
    targets = torch.randint(1030, (24,))
    exact_leaf = hidden.detach().double().requires_grad_()
    exact = naive_log_probs(exact_leaf, head).gather(1, targets[:, None]).squeeze(1)
    exact.sum().backward()
    plain_leaf = hidden.detach().bfloat16().requires_grad_()
    plain = (plain_leaf @ head.weight.bfloat16().T).float().log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    plain.sum().backward()
    logps = token_logps(hidden, head, targets)
    logps.sum().backward()
    assert logps.dtype == torch.float32
    assert hidden.grad is not None
    assert plain_leaf.grad is not None
    assert exact_leaf.grad is not None
    assert hidden.grad.dtype == hidden_dtype
    assert (logps - exact).abs().max() < 1e-3 * (plain - exact).abs().max()
    error, bound = (
        (leaf.grad.double() - exact_leaf.grad).norm() / exact_leaf.grad.norm() for leaf in (hidden, plain_leaf)
    )
    assert error < (bound if hidden_dtype == torch.bfloat16 else 1e-3 * bound)


def test_gradient_of_a_nearly_certain_token_keeps_its_relative_precision() -> None:
    # Logits 14 against 0 over 3 others: 1 - p = 2.5e-6, of which fp32's 1 - p knows 4 %.
    weight = torch.tensor([[14.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    hidden = torch.tensor([[1.0, 0.01]], requires_grad=True)
    exact_leaf = hidden.detach().double().requires_grad_()
    targets = torch.tensor([0])
    token_logps(hidden, FrozenHead(weight), targets).sum().backward()
    naive_log_probs(exact_leaf, FrozenHead(weight))[0, 0].backward()
    torch.testing.assert_close(hidden.grad, exact_leaf.grad, rtol=1e-5, atol=0, check_dtype=False)


def test_autocast_is_off_inside() -> None:
    hidden, reference, head, targets = draw(dtype=torch.float32)
    inside = {}
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            scores = score_tokens(hidden, head, targets, reference_hidden=reference, divergences=DIVERGENCES)
        inside[enabled] = outputs(scores)
    assert all(torch.equal(a, b) for a, b in zip(inside[False], inside[True], strict=True))


def test_extreme_logits_are_finite() -> None:
    head = FrozenHead(torch.tensor([[1e4], [-1e4], [0.0], [200.0]]))
    hidden = torch.tensor([[1.0], [-1.0], [1.0], [0.0]], requires_grad=True)
    scores = score_tokens(
        hidden, head, torch.tensor([0, 0, 1, 2]), reference_hidden=-hidden.detach(), divergences=DIVERGENCES
    )
    for value in outputs(scores):
        assert value.isfinite().all()
        assert torch.autograd.grad(value.sum(), hidden, retain_graph=True)[0].isfinite().all()
    assert scores.logps[1] == -2e4


def test_equal_hidden_states_give_exactly_zero_divergence_and_gradient() -> None:
    hidden = torch.randn(40, 32).bfloat16().requires_grad_()
    head = FrozenHead(torch.randn(1000, 32).bfloat16())
    targets = torch.randint(1000, (40,))
    scores = score_tokens(hidden, head, targets, reference_hidden=hidden.detach().clone(), divergences=DIVERGENCES)
    for value in scores.divergences:
        assert not value.any()
        assert not torch.autograd.grad(value.sum(), hidden, retain_graph=True)[0].any()


def test_empty_input_is_differentiable() -> None:
    hidden, reference, head, targets = draw(n=0)
    scores = score_tokens(
        hidden, head, targets, reference_hidden=reference, divergences=DIVERGENCES[:1], statistics=("rank", "entropy")
    )
    sum(x.sum() for x in outputs(scores)).backward()  # type: ignore[union-attr]
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, 6)


def test_a_second_derivative_is_refused() -> None:
    hidden, _, head, targets = draw()
    (gradient,) = torch.autograd.grad(token_logps(hidden, head, targets).exp().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_wrong_gradient_of_a_divergence_is_caught_by_gradcheck() -> None:
    class Faulty(ReverseKL):
        def value_and_grad(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            value, slope = super().value_and_grad(log_p, log_q, targets)
            return value, slope + 1e-3 * log_p.exp()

    hidden, reference, head, targets = draw(n=2, v=5, h=3)
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(
            lambda x: score_tokens(x, head, targets, reference_hidden=reference, divergences=[Faulty()]).divergences,
            hidden,
        )


def test_a_divergence_of_wrong_shape_is_refused() -> None:
    class Scalar(ReverseKL):
        def value_and_grad(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            value, slope = super().value_and_grad(log_p, log_q, targets)
            return value.mean(), slope

    hidden, reference, head, targets = draw()
    with pytest.raises(ValueError, match=r"value of shape \(7,\).*got \(\)"):
        score_tokens(hidden, head, targets, reference_hidden=reference, divergences=[Scalar()])


def test_a_trainable_head_is_refused_also_when_it_becomes_trainable_later() -> None:
    with pytest.raises(ValueError, match="weight is trainable"):
        FrozenHead(torch.zeros(3, 2, requires_grad=True))
    with pytest.raises(ValueError, match="bias is trainable"):
        FrozenHead(torch.zeros(3, 2), torch.zeros(3, requires_grad=True))
    hidden, _, head, targets = draw()
    head.weight.requires_grad_()
    with pytest.raises(ValueError, match="weight is trainable"):
        token_logps(hidden, head, targets)


@contextmanager
def assert_refused(message: str) -> Iterator[None]:
    with pytest.raises(ValueError, match=message):
        yield


def test_what_does_not_fit_is_refused_by_name() -> None:
    hidden, reference, head, targets = draw()
    kl = (ReverseKL(),)
    with assert_refused(r"weight must be a floating \(V, H\) matrix, got \(4,\) torch.uint8"):
        FrozenHead(torch.zeros(4, dtype=torch.uint8))
    with assert_refused(r"bias must have shape \(3,\), got \(2,\)"):
        FrozenHead(torch.zeros(3, 2), torch.zeros(2))
    with assert_refused(r"hidden must be floating, shape \(N, 6\).*got \(7, 5\)"):
        token_logps(hidden[:, :5], head, targets)
    with assert_refused(r"targets must be int64, shape \(7,\).*got \(6,\)"):
        token_logps(hidden, head, targets[:6])
    with assert_refused("targets must be int64.*int32"):
        token_logps(hidden, head, targets.int())
    for bad in (29, -1, -100):
        with assert_refused(rf"\[0, 29\), got {bad} at row 4"):
            token_logps(hidden, head, targets.index_fill(0, torch.tensor([4]), bad))
    with assert_refused("go together, got 1 and none"):
        score_tokens(hidden, head, targets, divergences=kl)
    with assert_refused(r"go together, got 0 and \(7, 6\)"):
        score_tokens(hidden, head, targets, reference_hidden=reference)
    with assert_refused(r"like hidden, \(7, 6\) torch.float64 on cpu, got \(7, 6\) torch.float32"):
        score_tokens(hidden, head, targets, reference_hidden=reference.float(), divergences=kl)
    with assert_refused("reference_hidden carries gradient"):
        score_tokens(hidden, head, targets, reference_hidden=hidden, divergences=kl)
    with assert_refused("entropy, rank, log_sum_squares, got 'entropie'"):
        score_tokens(hidden, head, targets, statistics=["entropie"])  # type: ignore[list-item]
    with assert_refused("chunk_rows must be at least 1, got 0"):
        token_logps(hidden, head, targets, chunk_rows=0)


@pytest.mark.gpu
def test_the_tensor_core_path_equals_the_blocks() -> None:
    hidden = torch.randn(64, 256).bfloat16()
    weight = torch.randn(5000, 256).bfloat16() / 8
    targets = torch.randint(5000, (64,))
    results = []
    for device in ("cpu", "cuda"):
        leaf = hidden.to(device).requires_grad_()
        logps = token_logps(leaf, FrozenHead(weight.to(device)), targets.to(device))
        logps.sum().backward()
        assert leaf.grad is not None
        results.append((logps.detach().cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=2e-2, atol=2e-2)

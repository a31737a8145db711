"""The gradient of a window of rated answers is the plain formula's however it is cut; the reference point has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_align.forest import TokenForest, TokenPath, Window, targetless_forest
from lit_align.losses.unpaired import APOZeroUnpairedLoss, KTOLoss, UnpairedLoss
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference
from lit_align.models.reference.adapters import adapted_layers
from lit_align.modules.kto import KTOModule, balance


def path(
    prompt: Sequence[int], answer: Sequence[int], name: str, good: bool | None = None, source: str = "a"
) -> TokenPath:
    classes = np.array([0] * len(prompt) + [1] * len(answer), np.uint8)
    return TokenPath(np.array([*prompt, *answer], np.int32), classes, name, source=source, desirable=good)


def row(
    prompt: Sequence[int], answer: Sequence[int], other: Sequence[int], good: bool, name: str, source: str = "a"
) -> tuple[TokenPath, TokenPath]:
    return path(prompt, answer, name, good, source), path(prompt, other, f"{name} mismatched", source=source)


TABLE = [5, 6, 7, 8, 9, 10]
# Groups: three answers to two questions of a table; one that continues its mismatched answer; two equal rows, and one
# answer that is good here and bad there; a lone bad one of another source.
GROUPS = [
    [
        row([*TABLE, 20, 21], [30, 31, 32, 2], [40, 41], True, "q1"),
        row([*TABLE, 20, 21], [30, 31, 33, 34, 2], [44, 45, 2], False, "q1 too"),
        row([*TABLE, 22], [35, 2], [47, 2], True, "q2"),
    ],
    [row([11, 12, 13], [40, 41, 2], [40, 41], True, "prefix")],
    [
        row([14, 15], [44, 45, 2], [35, 2], False, "twin"), row([14, 15], [44, 45, 2], [35, 2], False, "twin"),
        row([14, 15], [44, 45, 2], [30, 31, 32, 2], True, "disputed"),
    ],
    [row([16, 17, 18, 19], [48, 49, 50, 51, 52, 2], [30, 31, 33, 34, 2], False, "lone", source="b")],
]  # fmt: skip
ALL = [both for group in GROUPS for both in group]


def window_of(sizes: Sequence[int]) -> Window:
    ends = np.cumsum(sizes)
    parts = [GROUPS[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    forests = [TokenForest.build([[one for both in group for one in both] for group in part]) for part in parts]
    return Window(tuple(forests), 0, ())


def module_of(base: str, loss: UnpairedLoss | None = None, **options: Any) -> KTOModule:
    module = KTOModule(base, Weights(dtype="float32"), LoRA(rank=4, alpha=8), loss=loss, **options)
    module.configure_model()
    data = SimpleNamespace(source_names=("a", "b"), windows_per_epoch=1)
    module.trainer = SimpleNamespace(datamodule=data, world_size=1, global_rank=0, global_step=0)  # type: ignore[assignment]
    return module


@pytest.fixture(scope="module")
def exact(random_qwen3: str) -> Iterator[KTOModule]:
    """In float64, its adapter no longer that of step 0, without the float32 island in the norms."""
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    def norm(self: torch.nn.Module, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (x * scale)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Qwen3RMSNorm, "forward", norm)
        module = module_of(random_qwen3).double()
        generator = torch.Generator().manual_seed(3)
        for parameter in module.policy.adapter_parameters().values():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
        yield module


def gradient_of(module: KTOModule) -> Tensor:
    grads = [parameter.grad for parameter in module.policy.adapter_parameters().values()]
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def window_gradient(module: KTOModule, window: Window) -> tuple[float, Tensor, Tensor]:
    """Loss, gradient of the adapter, and sums for the log."""
    counts = module.counts(window)
    total, sums = 0.0, torch.zeros(())
    module.policy.zero_grad()
    for forest_loss in module.window_losses(window.forests, counts, 0):
        loss, forest_sums = forest_loss()
        torch.autograd.backward(loss)
        total += float(loss.detach())
        sums = sums + forest_sums
    return total, gradient_of(module), sums


def naive(module: KTOModule, paths: Sequence[TokenPath], function: str = "log-ratios") -> Any:
    """Each path alone, full logits, by transformers and PEFT: sums over answer tokens, or divergences at them."""
    model = module.policy.causal_lm
    model.set_attn_implementation("sdpa")
    found = []
    for one in paths:
        ids = torch.from_numpy(one.tokens.astype(np.int64))[None]
        at = torch.from_numpy(np.flatnonzero(one.classes == 1))
        with torch.no_grad(), module.policy.peft.disable_adapter():
            base = model(input_ids=ids, use_cache=False).logits[0, at - 1].log_softmax(-1)
        own = model(input_ids=ids, use_cache=False).logits[0, at - 1].log_softmax(-1)
        picked = own.gather(1, ids[0, at, None])[:, 0], base.gather(1, ids[0, at, None])[:, 0]
        found.append(
            {
                "log-ratios": (picked[0] - picked[1]).sum(),
                "logps": picked[0].sum(),
                "kl": (own.exp() * (own - base)).sum(),
            }[function]
        )
    model.set_attn_implementation("lit_align_forest")
    return torch.stack(found)


GOOD = torch.tensor([both[0].desirable for both in ALL])
OWN, OTHER = [both[0] for both in ALL], [both[1] for both in ALL]


def formula(module: KTOModule, attached: bool = False) -> Tensor:
    """The loss of the window, written down once more; the reference point with a gradient if that is asked for."""
    loss = module.loss
    z = naive(module, OTHER).mean().clamp(min=0) if loss.needs_reference_point else torch.zeros(())
    u = naive(module, OWN) - (z if attached else z.detach())
    good, bad = loss.desirable_weight, loss.undesirable_weight  # type: ignore[attr-defined]
    beta = loss.reward_scale
    return torch.where(GOOD, good * (1 - (beta * u).sigmoid()), bad * (1 - (-beta * u).sigmoid())).mean()


def plain_gradient(module: KTOModule, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(module.policy.adapter_parameters().values()))
    return torch.cat([part.flatten() for part in found])


LOSSES = [KTOLoss(0.3), KTOLoss(0.3, 1.3, 0.6), APOZeroUnpairedLoss(0.3, 1.3, 0.6)]


def test_the_reference_point_of_these_windows_is_not_0(exact: KTOModule) -> None:
    assert float(naive(exact, OTHER).mean().detach()) > 0.1, "what follows would not see a fault in it"


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("sizes", [(4,), (1, 1, 1, 1), (3, 1)], ids=str)
def test_gradient_of_a_window_is_the_plain_formulas_however_it_is_cut(
    exact: KTOModule, loss: UnpairedLoss, sizes: tuple[int, ...]
) -> None:
    exact.loss = loss
    value, gradient, _ = window_gradient(exact, window_of(sizes))
    expected = formula(exact)
    plain = plain_gradient(exact, expected)
    assert abs(value - float(expected.detach())) < 1e-10 * abs(value)
    assert (gradient - plain).norm() < 1e-9 * plain.norm()


def test_a_gradient_through_the_reference_point_would_be_another(exact: KTOModule) -> None:
    exact.loss = KTOLoss(0.3)
    _, gradient, _ = window_gradient(exact, window_of((3, 1)))
    attached = plain_gradient(exact, formula(exact, attached=True))
    assert (gradient - attached).norm() > 0.01 * attached.norm()


def test_a_negative_mean_is_a_reference_point_of_0(exact: KTOModule) -> None:
    exact.loss = KTOLoss(0.3)
    window = window_of((3, 1))
    _, without, _ = window_gradient(exact, window)
    exact.loss = APOZeroUnpairedLoss(0.3)
    _, at_zero, _ = window_gradient(exact, window)
    assert (without - at_zero).norm() > 1e-3 * at_zero.norm()
    exact.loss = KTOLoss(0.3)
    counts = exact.counts(window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KTOModule, "_mismatched", lambda *_: torch.tensor(-5.0, dtype=torch.float64))
        _, clamped, sums = window_gradient(exact, window)
    assert (clamped - at_zero).norm() < 1e-12 * at_zero.norm()
    assert float(exact.window_metrics(sums, counts)["kl"]) == 0


def test_a_forest_that_is_a_window_by_itself_gives_the_same_in_one_pass(exact: KTOModule) -> None:
    window = window_of((4,))
    for loss in LOSSES[1:]:
        exact.loss = loss
        value, gradient, sums = window_gradient(exact, window)
        exact.policy.zero_grad()
        share, other = exact.forest_loss(window.forests[0], exact.counts(window), 0)
        torch.autograd.backward(share)
        assert float(share.detach()) == pytest.approx(value, rel=1e-10)
        assert (gradient_of(exact) - gradient).norm() < 1e-9 * gradient.norm()
        if loss.needs_reference_point:
            torch.testing.assert_close(other, sums, rtol=1e-9, atol=1e-12)


def test_a_mismatched_answer_is_never_trained_and_costs_no_gradient(
    exact: KTOModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[bool, int]] = []
    original = Policy.hidden

    def counted(self: Policy, forest: TokenForest, rows: Tensor | None = None) -> Tensor:
        runs.append((torch.is_grad_enabled(), len(forest)))
        return original(self, forest, rows)

    monkeypatch.setattr(Policy, "hidden", counted)
    window = window_of((4,))
    labels = window.forests[0].desirable
    kinds = [[number for number, one in enumerate(labels) if (one is None) == none] for none in (False, True)]
    own, other = (len(window.forests[0].only(kind)) for kind in kinds)
    exact.loss = KTOLoss(0.3)
    window_gradient(exact, window)
    assert sorted(runs) == sorted([(False, other), (False, other), (False, own), (True, own)])
    runs.clear()
    exact.loss = APOZeroUnpairedLoss(0.3)
    window_gradient(exact, window)
    assert sorted(runs) == [(False, own), (True, own)]


def test_a_rank_without_a_forest_takes_part_with_weight_zero(exact: KTOModule) -> None:
    exact.loss = KTOLoss(0.3)
    idle = Window((targetless_forest(torch.device("cpu")),), 0, ())
    assert exact.counts(idle).tolist() == exact.counts(Window((), 0, ())).tolist() == [0.0, 0.0]
    value, gradient, sums = window_gradient(exact, idle)
    assert value == 0
    assert not gradient.any()
    assert not sums.any()
    exact._validation_tables = []
    assert not exact.validation_sums(idle.forests[0]).any()
    assert not exact._validation_tables


@pytest.mark.parametrize("loss", [KTOLoss(5.0, 1.5, 0.5), APOZeroUnpairedLoss(5.0, 1.5, 0.5)], ids=repr)
def test_a_fresh_adapter_costs_half_its_weights_and_its_log_ratios_are_0_in_train_mode(
    random_qwen3: str, loss: UnpairedLoss
) -> None:
    module = module_of(random_qwen3, loss).train()
    window = window_of((3, 1))
    value, gradient, sums = window_gradient(module, window)
    assert value == pytest.approx((1.5 * 4 + 0.5 * 4) / 8 / 2, abs=1e-15)
    assert gradient.norm() > 0
    metrics = module.window_metrics(sums, module.counts(window))
    for key in ("logratio/chosen", "logratio/rejected", "displacement/chosen", "rewards/margins"):
        assert float(metrics[key]) == 0
    assert float(metrics["rewards/accuracies"]) == 0.5
    assert float(metrics.get("kl", 0.0)) == 0
    assert ("kl" in metrics) == loss.needs_reference_point


# ------------------------------------------------------------------------------------------------ metrics


def by_hand(module: KTOModule, source: str | None) -> dict[str, float]:
    """Metrics from answers computed alone; of one source, or of all."""
    with torch.no_grad():
        ratios, logps, z = naive(module, OWN), naive(module, OWN, "logps"), naive(module, OTHER).mean()
    mine = torch.tensor([source in (None, one.source) for one in OWN])
    good, bad = mine & GOOD, mine & ~GOOD
    beta = module.loss.reward_scale
    lengths = torch.tensor([int((one.classes == 1).sum()) for one in OWN])
    losses = module.loss(ratios, GOOD, z)
    return {
        "rewards/chosen": float(beta * ratios[good].mean()),
        "rewards/rejected": float(beta * ratios[bad].mean()),
        "rewards/margins": float(beta * (ratios[good].mean() - ratios[bad].mean())),
        "rewards/accuracies": float(torch.where(GOOD, ratios > z, ratios < z)[mine].double().mean()),
        "logps/chosen": float(logps[good].mean()),
        "logps/rejected": float(logps[bad].mean()),
        "logratio/rejected": float(ratios[bad].mean()),
        "logratio/chosen_per_token": float((ratios / lengths)[good].mean()),
        "displacement/chosen": float((ratios[good] < 0).double().mean()),
        "displacement/rejected": float((ratios[bad] < 0).double().mean()),
        "count/chosen": float(good.sum()),
        "count/rejected": float(bad.sum()),
        "kl": float(z),
        "loss": float(losses[mine].mean()),
    }


def test_metrics_are_means_over_each_kind_and_by_source(exact: KTOModule) -> None:
    exact.loss = KTOLoss(0.3, 1.3, 0.6)
    window = window_of((3, 1))
    _, _, sums = window_gradient(exact, window)
    metrics = exact.window_metrics(sums, exact.counts(window))
    expected = by_hand(exact, None)
    expected.pop("loss")  # logged by the window loop
    assert {key: float(metrics[key]) for key in expected} == pytest.approx(expected, rel=1e-9)
    a, b = by_hand(exact, "a"), by_hand(exact, "b")
    assert float(metrics["by_source/a/margins"]) == pytest.approx(a["rewards/margins"], rel=1e-9)
    assert "by_source/b/margins" not in metrics  # it has a bad answer alone
    for name, one in (("a", a), ("b", b)):
        assert float(metrics[f"by_source/{name}/loss"]) == pytest.approx(one["loss"], rel=1e-9)
    assert [float(metrics[f"by_source/{name}/share"]) for name in "ab"] == [7 / 8, 1 / 8]


def test_a_kind_that_a_window_does_not_have_is_left_out_and_its_count_is_0(exact: KTOModule) -> None:
    exact.loss = KTOLoss(0.3)
    paths = [replace(one, desirable=False) if one.desirable else one for both in GROUPS[0] for one in both]
    window = Window((TokenForest.build([paths]),), 0, ())
    _, _, sums = window_gradient(exact, window)
    metrics = exact.window_metrics(sums, exact.counts(window))
    assert float(metrics["count/chosen"]) == 0
    assert float(metrics["count/rejected"]) == 3
    assert not {"rewards/chosen", "rewards/margins", "displacement/chosen", "entropy"} & {*metrics}
    assert all(bool(torch.as_tensor(value).isfinite()) for value in metrics.values())


@pytest.mark.parametrize("loss", LOSSES[1:], ids=repr)
def test_validation_has_the_reference_point_of_the_whole_set_and_the_exact_divergence(
    exact: KTOModule, loss: UnpairedLoss
) -> None:
    exact.loss = loss
    exact._validation_tables = []
    sums = [exact.validation_sums(forest) for forest in window_of((1, 2, 1)).forests]
    metrics = exact.validation_metrics(torch.stack(sums).sum(0))
    expected = by_hand(exact, None)
    if not loss.needs_reference_point:
        expected.pop("rewards/accuracies")
    assert {key: float(metrics[key]) for key in expected} == pytest.approx(expected, rel=1e-9)
    good = [one for one in OWN if one.desirable]
    with torch.no_grad():
        kl = naive(exact, good, "kl").sum() / sum(int((one.classes == 1).sum()) for one in good)
    assert float(metrics["kl_chosen"]) == pytest.approx(float(kl), rel=1e-9)


def test_how_the_kinds_weigh_is_told_with_the_weight_that_would_be_right() -> None:
    assert "weigh 1.00 times as much as bad ones: within the [1, 4/3]" in balance(KTOLoss(), 100, 100)
    assert "weigh 1.33 times" in balance(KTOLoss(), 400, 300)
    assert "within" in balance(KTOLoss(), 400, 300).split(";")[0]
    told = balance(KTOLoss(desirable_weight=0.5, undesirable_weight=2.0), 100, 400)
    assert "weigh 0.06 times as much as bad ones: outside" in told
    assert "`model.loss.desirable_weight` in [8, 10.7] would be within" in told
    assert "within the" in balance(KTOLoss(desirable_weight=8.0, undesirable_weight=2.0), 100, 400)


def test_the_reference_runs_beside_the_policy_in_the_same_forest(exact: KTOModule) -> None:
    # Were it another one, log-ratios in bf16 would not be 0 at step 0.
    seen: list[tuple[str, int]] = []
    original = BaseReference.target_logps

    def logged(self: BaseReference, policy: Policy, forest: TokenForest) -> Tensor:
        seen.append(("reference", len(forest)))
        return original(self, policy, forest)

    exact.loss = KTOLoss(0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseReference, "target_logps", logged)
        policy_hidden = Policy.hidden

        def hidden(self: Policy, forest: TokenForest, rows: Tensor | None = None) -> Tensor:
            if all(layer.disable_adapters is False for layer in adapted_layers(self)):
                seen.append(("policy", len(forest)))
            return policy_hidden(self, forest, rows)

        patch.setattr(Policy, "hidden", hidden)
        window_gradient(exact, window_of((3, 1)))
    by_model = {model: [size for name, size in seen if name == model] for model in ("reference", "policy")}
    assert by_model["reference"] == by_model["policy"]
    assert len(by_model["policy"]) == 4

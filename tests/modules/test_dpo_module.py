"""The gradient of a window of pairs is the plain formula's however it is cut, also where pairs are coupled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_align.forest import TokenForest, TokenPath, Window, targetless_forest
from lit_align.losses.preference import (
    AnswerScores,
    AOTLoss,
    IPOLoss,
    LDDPOLoss,
    ORPOLoss,
    PairScores,
    PreferenceLoss,
    RPOLoss,
    ShiftedBCOPairLoss,
    SigmoidLoss,
    SimPOLoss,
    SPPOHardLoss,
    UnpairedAOTLoss,
    WeightedSum,
    WPOLoss,
)
from lit_align.models.loading import LoRA, Weights
from lit_align.models.reference import BaseReference
from lit_align.modules.dpo import DPOModule

Pair = tuple[TokenPath, TokenPath]


def pair(prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int], name: str, source: str = "a") -> Pair:
    def path(answer: Sequence[int], side: str) -> TokenPath:
        classes = np.array([0] * len(prompt) + [1] * len(answer), np.uint8)
        return TokenPath(np.array([*prompt, *answer], np.int32), classes, f"{name} {side}", source=source)

    return path(chosen, "chosen"), path(rejected, "rejected")


TABLE = [5, 6, 7, 8, 9, 10]
# Groups: two questions of a table, one of them with answers that begin alike; a pair of which one answer continues the
# other; two equal pairs; a lone pair of another source.
GROUPS: list[list[Pair]] = [
    [
        pair([*TABLE, 20, 21], [30, 31, 32, 2], [30, 31, 33, 34, 2], "q1"),
        pair([*TABLE, 22], [35, 2], [36, 37, 2], "q2"),
    ],
    [pair([11, 12, 13], [40, 41], [40, 41, 42, 43, 2], "prefix")],
    [pair([14, 15], [44, 45, 2], [46, 2], "twin"), pair([14, 15], [44, 45, 2], [46, 2], "twin")],
    [pair([16, 17, 18, 19], [47, 2], [48, 49, 50, 51, 52, 2], "lone", source="b")],
]


def window_of(sizes: Sequence[int]) -> Window:
    ends = np.cumsum(sizes)
    parts = [GROUPS[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    forests = [TokenForest.build([[path for both in group for path in both] for group in part]) for part in parts]
    return Window(tuple(forests), 0, ())


@contextmanager
def exact_module(base: str) -> Iterator[DPOModule]:
    """A module in float64, its adapter no longer that of step 0, without the float32 island in the norms."""
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    def norm(self: torch.nn.Module, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (x * scale)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Qwen3RMSNorm, "forward", norm)
        module = module_of(base).double()
        generator = torch.Generator().manual_seed(3)
        for parameter in module.policy.adapter_parameters().values():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
        yield module


@pytest.fixture(scope="module")
def exact(random_qwen3: str) -> Iterator[DPOModule]:
    with exact_module(random_qwen3) as module:
        yield module


def module_of(base: str, loss: PreferenceLoss | None = None, **options: Any) -> DPOModule:
    module = DPOModule(base, Weights(dtype="float32"), LoRA(rank=4, alpha=8), loss=loss, **options)
    module.configure_model()
    data = SimpleNamespace(source_names=("a", "b"), windows_per_epoch=1)
    trainer = SimpleNamespace(datamodule=data, world_size=1, global_rank=0, global_step=0)
    module.trainer = trainer  # type: ignore[assignment]
    return module


def window_gradient(module: DPOModule, window: Window, step: int = 0) -> tuple[float, Tensor, Tensor]:
    """Loss, gradient of the adapter, and sums for the log."""
    counts = module.counts(window)
    total, sums = 0.0, torch.zeros(())
    for parameter in module.policy.adapter_parameters().values():
        parameter.grad = None
    for forest_loss in module.window_losses(window.forests, counts, step):
        loss, forest_sums = forest_loss()
        torch.autograd.backward(loss)
        total += float(loss.detach())
        sums = sums + forest_sums
    grads = [parameter.grad for parameter in module.policy.adapter_parameters().values()]
    return total, torch.cat([grad.flatten() for grad in grads if grad is not None]), sums


def naive_scores(module: DPOModule, pairs: Sequence[Pair]) -> PairScores:
    """Each answer alone, full logits, by transformers and PEFT."""
    model = module.policy.causal_lm
    model.set_attn_implementation("sdpa")

    def side(index: int) -> AnswerScores:
        logps, reference, squares = [], [], []
        for both in pairs:
            path = both[index]
            ids = torch.from_numpy(path.tokens.astype(np.int64))[None]
            at = torch.from_numpy(np.flatnonzero(path.classes == 1))
            with torch.no_grad(), module.policy.peft.disable_adapter():
                base = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            own = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            logps.append(own[at - 1, ids[0, at]])
            reference.append(base[at - 1, ids[0, at]])
            squares.append((2 * own[at - 1]).logsumexp(-1).detach())
        lengths = [len(one) for one in logps]
        numbers = torch.repeat_interleave(torch.arange(len(pairs)), torch.tensor(lengths))
        places = torch.cat([torch.arange(length) for length in lengths])
        statistics: Any = {"log_sum_squares": torch.cat(squares)}
        return AnswerScores(torch.cat(logps), torch.cat(reference), numbers, places, len(pairs), statistics)

    scores = PairScores(side(0), side(1))
    model.set_attn_implementation("lit_align_forest")
    return scores


ALL_PAIRS = [both for group in GROUPS for both in group]

LOSSES = [
    SigmoidLoss(beta=0.3), IPOLoss(beta=0.3), IPOLoss(beta=0.3, reduction="sum"), LDDPOLoss(SigmoidLoss(beta=0.3), 0.5),
    WPOLoss(SigmoidLoss(beta=0.3)), RPOLoss(), SimPOLoss(), ORPOLoss(), SPPOHardLoss(beta=0.5), AOTLoss(beta=0.3),
    UnpairedAOTLoss(beta=0.3), ShiftedBCOPairLoss(beta=0.3),
    WeightedSum((AOTLoss(beta=0.3), SigmoidLoss(beta=0.1)), (0.5, 2.0)),
]  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("sizes", [(4,), (1, 1, 1, 1), (3, 1)], ids=str)
def test_gradient_of_a_window_is_the_plain_formulas_however_it_is_cut(
    exact: DPOModule, loss: PreferenceLoss, sizes: tuple[int, ...]
) -> None:
    exact.loss = loss
    value, gradient, _ = window_gradient(exact, window_of(sizes))
    expected = loss(naive_scores(exact, ALL_PAIRS)).mean()
    found = torch.autograd.grad(expected, list(exact.policy.adapter_parameters().values()))
    plain = torch.cat([part.flatten() for part in found])
    assert abs(value - float(expected.detach())) < 1e-10 * abs(value)
    assert (gradient - plain).norm() < 1e-9 * plain.norm()


def test_coupled_pairs_are_not_single_pairs(exact: DPOModule) -> None:
    exact.loss = UnpairedAOTLoss(beta=0.3)
    _, coupled, _ = window_gradient(exact, window_of((1, 1, 1, 1)))
    exact.loss = SigmoidLoss(beta=0.3)
    _, single, _ = window_gradient(exact, window_of((1, 1, 1, 1)))
    assert (coupled - single).norm() > 0.05 * single.norm()


def test_a_rank_without_a_forest_takes_part_with_weight_zero(exact: DPOModule) -> None:
    idle = Window((targetless_forest(torch.device("cpu")),), 0, ())
    assert exact.counts(idle).tolist() == [0.0, 0.0]
    value, gradient, sums = window_gradient(exact, idle)
    assert value == 0
    assert not gradient.any()
    assert not sums.any()


# ------------------------------------------------------------------------------------------------ the start


@pytest.mark.parametrize("beta", [0.02, 0.1, 5.0])
def test_the_loss_of_a_fresh_adapter_is_ln_2_and_its_log_ratios_are_0_in_train_mode(
    random_qwen3: str, beta: float
) -> None:
    module = module_of(random_qwen3, SigmoidLoss(beta=beta)).train()
    window = window_of((3, 1))
    value, gradient, sums = window_gradient(module, window)
    assert abs(value - math.log(2)) < 1e-12
    assert gradient.norm() > 0
    metrics = module.window_metrics(sums, module.counts(window))
    for key in ("logratio/chosen", "logratio/rejected", "displacement/chosen", "rewards/margins"):
        assert float(metrics[key]) == 0
    assert float(metrics["rewards/accuracies"]) == 0.5


def test_a_loss_without_reference_runs_none(exact: DPOModule, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    @contextmanager
    def counted(self: BaseReference, policy: object) -> Iterator[None]:
        runs.append(policy)
        with original(self, policy):  # type: ignore[arg-type]
            yield

    original = BaseReference.active
    monkeypatch.setattr(BaseReference, "active", counted)
    for loss, expected in ((SimPOLoss(), 0), (ORPOLoss(), 0), (SigmoidLoss(), 2), (AOTLoss(), 2)):
        runs.clear()
        exact.loss = loss
        window_gradient(exact, window_of((3, 1)))
        assert len(runs) == expected, loss


def test_dropout_with_coupled_pairs_is_refused(random_qwen3: str) -> None:
    lora = LoRA(rank=4, alpha=8, dropout=0.1)
    with pytest.raises(ValueError, match=r"`lora.dropout` = 0.1: AOTLoss couples the pairs"):
        DPOModule(random_qwen3, lora=lora, loss=AOTLoss())
    assert DPOModule(random_qwen3, lora=lora).loss == SigmoidLoss()


# ------------------------------------------------------------------------------------------------ metrics


def by_hand(module: DPOModule, source: str | None) -> dict[str, float]:
    """Metrics from answers computed alone; of one source, or of all."""
    chosen_pairs = [both for both in ALL_PAIRS if source in (None, both[0].source)]
    with torch.no_grad():
        scores = naive_scores(module, chosen_pairs)
    w, r = scores.chosen.log_ratios, scores.rejected.log_ratios
    beta = module.loss.reward_scale
    return {
        "rewards/chosen": float(beta * w.mean()),
        "rewards/margins": float(beta * (w - r).mean()),
        "rewards/accuracies": float((w > r).double().mean()),
        "logps/rejected": float(scores.rejected.logps.mean()),
        "logratio/chosen_per_token": float((w / scores.chosen.lengths).mean()),
        "displacement/chosen": float((w < 0).double().mean()),
        "displacement/both": float(((w < 0) & (r < 0)).double().mean()),
        "loss": float(module.loss(scores).mean()),
    }


def test_metrics_are_means_over_pairs_and_by_source(exact: DPOModule) -> None:
    exact.loss = SigmoidLoss(beta=0.3)
    window = window_of((3, 1))
    _, _, sums = window_gradient(exact, window)
    metrics = exact.window_metrics(sums, exact.counts(window))
    expected = by_hand(exact, None)
    expected.pop("loss")  # logged by the window loop
    assert {key: float(metrics[key]) for key in expected} == pytest.approx(expected, rel=1e-9)
    for source in ("a", "b"):
        one = by_hand(exact, source)
        assert float(metrics[f"by_source/{source}/margins"]) == pytest.approx(one["rewards/margins"], rel=1e-9)
        assert float(metrics[f"by_source/{source}/loss"]) == pytest.approx(one["loss"], rel=1e-9)


@pytest.mark.parametrize("loss", [SigmoidLoss(beta=0.3), AOTLoss(beta=0.3), SimPOLoss()], ids=repr)
def test_validation_gives_loss_kl_and_displacement_of_the_whole_set(exact: DPOModule, loss: PreferenceLoss) -> None:
    exact.loss = loss
    exact._validation_tables = []
    sums = [exact.validation_sums(forest) for forest in window_of((3, 1)).forests]
    metrics = exact.validation_metrics(torch.stack(sums).sum(0))
    with torch.no_grad():
        scores = naive_scores(exact, ALL_PAIRS)
    assert float(metrics["loss"]) == pytest.approx(float(loss(scores).mean()), rel=1e-9)
    assert float(metrics["displacement/chosen"]) == float((scores.chosen.log_ratios < 0).double().mean())
    assert float(metrics["kl"]) > 0

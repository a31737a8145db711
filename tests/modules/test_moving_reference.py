"""Runs from an earlier adapter and against a moving average: when it moves, what is trained, and exact resumes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

from lit_align.checkpoint import AdapterCheckpointIO
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.scale_answers import ScalePairs
from lit_align.data.sources.table_skills import TableSkills
from lit_align.losses.anchor import KLAnchor
from lit_align.losses.preference import ShiftedBCOPairLoss
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import EMAReference, FrozenAdapterReference, Reference
from lit_align.models.reference.adapters import AVERAGE, LIVE, adapted_layers, factors
from lit_align.modules import startup
from lit_align.modules.base import AlignModule
from lit_align.modules.dpo import DPOModule
from lit_align.modules.sft import SFTModule

EARLIER = "package:lit_align/assets/tiny_qwen3_undecided"  # rank 8, alpha 16
EVERY = 2
EMA = EMAReference(every_n_windows=EVERY)


def tensors(policy: Policy, adapter: str) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in factors(policy, adapter).items()}


class ByHand(L.Callback):
    """Averages in float64 and counts windows itself; holds the run's average and optimizer against that."""

    def __init__(self, alpha: float, save: Path | None = None) -> None:
        self.alpha, self.save = alpha, save
        self.windows = 0
        self.average: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, AlignModule)
        self.average = {name: value.double() for name, value in tensors(pl_module.policy, LIVE).items()}
        self.held(trainer, pl_module.policy)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        assert isinstance(pl_module, AlignModule)
        self.windows += 1
        if self.windows % EVERY == 0:
            for name, value in tensors(pl_module.policy, LIVE).items():
                self.average[name] = self.alpha * value.double() + (1 - self.alpha) * self.average[name]
        self.held(trainer, pl_module.policy)
        if self.save is not None:
            trainer.save_checkpoint(self.save / f"{self.windows}.ckpt")

    def held(self, trainer: L.Trainer, policy: Policy) -> None:
        assert policy.average_updates == self.windows // EVERY, "moved in another window"
        for name, value in tensors(policy, AVERAGE).items():
            assert torch.allclose(value.double(), self.average[name], rtol=1e-6, atol=1e-7), "not the average"
        trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
        assert trained == {id(p) for p in factors(policy, LIVE).values()}, "the optimizer holds something else"


def fit(
    module: AlignModule, steps: int, callbacks: Sequence[L.Callback] = (), ckpt: Path | None = None, **data: Any
) -> None:
    torch.manual_seed(11)
    windows = PreferenceDataModule(
        sources=[ScalePairs(n=8)], window=2, **{"val_fraction": 0.0, "token_budget": 320, **data}
    )
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0, callbacks=list(callbacks),
        plugins=[AdapterCheckpointIO()],
    )  # fmt: skip
    trainer.fit(module, datamodule=windows, ckpt_path=None if ckpt is None else str(ckpt), weights_only=True)


def a_module(reference: Reference, dropout: float = 0.0, **options: Any) -> DPOModule:
    torch.manual_seed(5)
    return DPOModule(
        weights=Weights(dtype="float32"),
        lora=LoRA(rank=8, alpha=16, dropout=dropout),
        reference=reference,
        optimizer=lambda parameters: AdamW(parameters, lr=1e-2),
        **options,
    )


def state(module: AlignModule) -> dict[str, Tensor]:
    policy = module.policy
    both = ((adapter, tensors(policy, adapter)) for adapter in (LIVE, AVERAGE))
    return {f"{adapter} {name}": value for adapter, one in both for name, value in one.items()}


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------- the average


@pytest.mark.parametrize(
    ("start", "options", "data"),
    [
        (None, {"dropout": 0.1}, {"val_fraction": 0.3}),
        (FrozenAdapterReference(EARLIER), {"loss": ShiftedBCOPairLoss()}, {"token_budget": 160}),
        (FrozenAdapterReference(EARLIER, init="continue"), {"dropout": 0.1, "activation_checkpointing": True}, {}),
    ],
    ids=["base", "stack, coupled, many forests", "continue, checkpointing"],
)
def test_the_nth_update_follows_on_exactly_n_times_every_windows(
    start: Reference | None, options: dict[str, Any], data: dict[str, Any]
) -> None:
    watch = ByHand(0.6)
    fit(a_module(EMAReference(0.6, EVERY, start), **options), 2 * EVERY + 1, [watch], **data)
    assert watch.windows == 2 * EVERY + 1


@dataclass(frozen=True)
class LateReference(EMAReference):
    def after_window(self, policy: Policy, windows: int) -> dict[str, float]:
        return super().after_window(policy, windows - 1) if windows > 1 else {}


@dataclass(frozen=True)
class EarlyReference(EMAReference):
    def after_window(self, policy: Policy, windows: int) -> dict[str, float]:
        return super().after_window(policy, windows + 1)


@dataclass(frozen=True)
class TrainedReference(EMAReference):
    def attach(self, policy: Policy) -> None:
        super().attach(policy)
        for parameter in factors(policy, AVERAGE).values():
            parameter.requires_grad_(True)


@pytest.mark.parametrize(
    ("reference", "says"),
    [(LateReference, "another window"), (EarlyReference, "another window"), (TrainedReference, "something else")],
)
def test_an_average_that_moves_late_or_early_or_is_trained_is_caught(reference: type[EMAReference], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        fit(a_module(reference(0.6, EVERY)), EVERY + 1, [ByHand(0.6)])


def test_a_run_resumed_around_an_update_is_the_unbroken_one_to_the_bit(tmp_path: Path) -> None:
    steps = 2 * EVERY

    def module(**changes: Any) -> DPOModule:
        return a_module(EMAReference(**{"every_n_windows": EVERY, **changes}), dropout=0.1)

    whole = module()
    fit(whole, steps, [ByHand(0.6, tmp_path)])
    expected = state(whole)
    assert not same_bits(tensors(whole.policy, LIVE), tensors(whole.policy, AVERAGE))
    for at in (EVERY - 1, EVERY, EVERY + 1):
        saved = torch.load(tmp_path / f"{at}.ckpt", weights_only=True)
        assert saved["lit_align"]["reference"]["updates"] == at // EVERY
        assert all(".default." in name for name in saved["state_dict"])
        resumed = module()
        fit(resumed, steps, ckpt=tmp_path / f"{at}.ckpt")
        assert same_bits(state(resumed), expected), f"resumed after window {at}"
        assert resumed.policy.average_updates == 2
    for change in ({"alpha": 0.5}, {"every_n_windows": 3}):
        with pytest.raises(ValueError, match=r"reference: EMAReference\(alpha=0.6, every_n_windows=2, .* in the check"):
            fit(module(**change), steps, ckpt=tmp_path / f"{EVERY}.ckpt")


def test_a_checkpoint_whose_average_does_not_fit_its_step_is_refused(tmp_path: Path) -> None:
    fit(a_module(EMA), EVERY + 1, [ByHand(0.6, tmp_path)])
    path = tmp_path / f"{EVERY}.ckpt"
    for state, says in (
        ({"updates": 0}, "its average was updated 0 times in 2 windows"),
        (None, "it holds no average"),
    ):
        saved = torch.load(path, weights_only=True)
        own = saved["lit_align"]
        own["reference"] = {} if state is None else {**own["reference"], **state}
        torch.save(saved, tmp_path / "harmed.ckpt")
        with pytest.raises(ValueError, match=rf"checkpoint .*harmed\.ckpt does not fit EMAReference\(.*{says}"):
            fit(a_module(EMA), EVERY + 1, ckpt=tmp_path / "harmed.ckpt")


def test_an_average_that_never_moves_trains_as_the_reference_that_it_starts_from() -> None:
    start = FrozenAdapterReference(EARLIER)
    moving, still = a_module(EMAReference(start=start)), a_module(start)
    for module in (moving, still):
        fit(module, EVERY + 1)
    assert same_bits(tensors(moving.policy, LIVE), tensors(still.policy, LIVE))


def test_an_anchor_holds_on_to_a_moving_average_too() -> None:
    torch.manual_seed(5)
    module = SFTModule(
        weights=Weights(dtype="float32"), lora=LoRA(rank=4), reference=EMA, anchor=KLAnchor(coef=1.0, text="trained")
    )
    trainer = L.Trainer(
        accelerator="cpu", max_steps=EVERY + 1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[ByHand(0.6)],
    )  # fmt: skip
    trainer.fit(
        module,
        datamodule=SFTDataModule(sources=[TableSkills(skills=["scale"], n=6, seed=1)], window=2, token_budget=256),
    )
    assert module.policy.average_updates == 1


# ---------------------------------------------------------------------- the start


def test_a_continued_run_with_dropout_starts_as_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = FrozenAdapterReference(EARLIER, init="continue")
    module = a_module(reference, dropout=0.3)
    fit(module, 2)
    assert not same_bits(tensors(module.policy, LIVE), tensors(module.policy, "frozen"))
    monkeypatch.setattr(startup, "live_dropout_off", nullcontext)
    with pytest.raises(RuntimeError, match="at step 0 the policy differs from its reference FrozenAdapterReference"):
        fit(a_module(reference, dropout=0.3), 1)


def _drops_out(policy: Policy) -> None:
    for layer in adapted_layers(policy):
        layer.lora_dropout["frozen"] = torch.nn.Dropout(0.5)


def _is_not_the_copy(policy: Policy) -> None:
    next(iter(factors(policy, LIVE).values())).data.add_(0.1)


@pytest.mark.parametrize(("init", "harm"), [("stack", _drops_out), ("continue", _is_not_the_copy)])
def test_a_policy_that_does_not_start_as_the_frozen_adapter_is_refused(init: Any, harm: Any) -> None:
    module = a_module(FrozenAdapterReference(EARLIER, init=init))
    module.configure_model()
    harm(module.policy)
    with pytest.raises(RuntimeError, match="the adapter does not start as that, or something else drops out"):
        fit(module, 1)

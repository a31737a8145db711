"""The module's KTO loss and LoRA gradients equal those of TRL's KTOTrainer, on the trainer's own batch and weights."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_align.forest import TokenForest, TokenPath, Window
from lit_align.losses.unpaired import APOZeroUnpairedLoss, KTOLoss, UnpairedLoss
from lit_align.models.loading import LoRA, Weights
from lit_align.modules.kto import KTOModule
from tests.parity.test_trl_preference_losses import WORDS, fill, tokenizer

pytest.importorskip("trl")

pytestmark = [
    pytest.mark.slow,
    # transformers renames gradient to activation checkpointing; TRL and PEFT still use the old names.
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"),
]

LENGTHS = (6, 3, 9, 6, 1, 8, 5, 7)
LABELS = (True, True, False, True, False, False, True, True)


@dataclass(frozen=True, eq=False)
class Step:
    """A batch of TRL's, what TRL makes of it, and our module on the same weights."""

    batch: dict[str, Tensor]
    loss: float
    point: float
    gradient: dict[str, Tensor]
    module: KTOModule


def rows(seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)

    def words(number: int) -> str:
        return "".join(f" {draw.choice(WORDS)}" for _ in range(number))

    return [
        {"prompt": words(4), "completion": words(length), "label": label}
        for length, label in zip(LENGTHS, LABELS, strict=True)
    ]


def trl_step(base: str, seed: int, settings: dict[str, Any]) -> Step:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import KTOConfig, KTOTrainer

    data = rows(seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = KTOTrainer(
            model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            args=KTOConfig(
                output_dir=folder, per_device_train_batch_size=len(data), gradient_checkpointing=False, bf16=False,
                use_cpu=True, report_to=[], disable_tqdm=True, train_sampling_strategy="sequential", **settings,
            ),
            train_dataset=Dataset.from_list(data),
            processing_class=tokenizer(),
            peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
        )  # fmt: skip
    fill(trainer.model)
    trainer.model.train()
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(data))])
    loss = trainer.compute_loss(trainer.model, dict(batch))
    names, parameters = zip(*((n, p) for n, p in trainer.model.named_parameters() if p.requires_grad), strict=True)
    gradients = torch.autograd.grad(loss, parameters)

    module = KTOModule(base, Weights(dtype="float32"), LoRA(rank=4, alpha=8))
    module.configure_model()
    data_module = SimpleNamespace(source_names=("",), windows_per_epoch=1)
    module.trainer = SimpleNamespace(datamodule=data_module, world_size=1, global_rank=0)  # type: ignore[assignment]
    ours = module.policy.adapter_parameters()
    assert {name.removeprefix("peft.") for name in ours} == {*names}
    for name, parameter in zip(names, parameters, strict=True):
        ours[f"peft.{name}"].data.copy_(parameter.data)
    point = trainer._metrics["train"]["kl"][-1]
    found = {f"peft.{name}": gradient for name, gradient in zip(names, gradients, strict=True)}
    return Step(batch, float(loss.detach()), point, found, module.train())


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Step]:
    from random_models import save_random_model

    base = save_random_model(Path(tmp_path_factory.mktemp("base")), "qwen3", vocab_size=61)
    found: dict[str, Step] = {}

    def get(seed: int = 4, **settings: Any) -> Step:
        key = f"{seed} {sorted(settings.items())}"
        return found[key] if key in found else found.setdefault(key, trl_step(base, seed, settings))

    return get


def paths(batch: dict[str, Tensor], prefix: str) -> list[TokenPath]:
    columns = [batch[f"{prefix}{name}"] for name in ("input_ids", "attention_mask", "completion_mask")]
    return [
        TokenPath(ids[real.bool()].numpy().astype(np.int32), answer[real.bool()].numpy().astype(np.uint8), f"{number}")
        for number, (ids, real, answer) in enumerate(zip(*columns, strict=True))
    ]


def ours(
    step: Step, loss: UnpairedLoss, forests: int, own_answers: bool = False
) -> tuple[float, dict[str, Tensor], float]:
    """Loss, gradients and reference point of our module on TRL's batch; by fault, of the rows' own answers."""
    module = step.module
    module.loss = loss
    labels = step.batch["label"]
    own = [replace(one, desirable=bool(label)) for one, label in zip(paths(step.batch, ""), labels, strict=True)]
    groups = [[one] for one in own]
    if loss.needs_reference_point:
        other = paths(step.batch, "" if own_answers else "KL_")
        groups = [list(both) for both in zip(own, other, strict=True)]
    size = len(groups) // forests
    window = Window(tuple(TokenForest.build(groups[at : at + size]) for at in range(0, len(groups), size)), 0, ())
    counts = module.counts(window)
    module.policy.zero_grad()
    total, sums = 0.0, torch.zeros(())
    for forest_loss in module.window_losses(window.forests, counts, 0):
        share, forest_sums = forest_loss()
        torch.autograd.backward(share)
        total += float(share.detach())
        sums = sums + forest_sums
    gradients = {n: p.grad.clone() for n, p in module.policy.adapter_parameters().items() if p.grad is not None}
    return total, gradients, float(module.window_metrics(sums, counts).get("kl", 0.0))


def difference(step: Step, gradients: dict[str, Tensor]) -> float:
    """Relative, of the gradient."""
    assert len(gradients) == len(step.gradient) == 28  # two factors for seven layers in two blocks
    mine, theirs = (torch.cat([g[n].flatten() for n in sorted(g)]).double() for g in (gradients, step.gradient))
    return float((mine - theirs).norm() / theirs.norm())


CASES = [
    (KTOLoss(0.5), {"beta": 0.5}),
    (KTOLoss(0.5, 1.25, 0.75), {"beta": 0.5, "desirable_weight": 1.25, "undesirable_weight": 0.75}),
    (
        APOZeroUnpairedLoss(0.5, 1.25, 0.75),
        {"loss_type": "apo_zero_unpaired", "beta": 0.5, "desirable_weight": 1.25, "undesirable_weight": 0.75},
    ),
]


@pytest.mark.parametrize(("loss", "settings"), CASES, ids=lambda one: repr(one))
@pytest.mark.parametrize("forests", [1, 4])
def test_value_point_and_gradients_are_those_of_trl(
    loss: UnpairedLoss, settings: dict[str, Any], forests: int, step: Callable[..., Step]
) -> None:
    trl = step(**settings)
    value, gradients, point = ours(trl, loss, forests)
    far = abs(value - trl.loss) / trl.loss, abs(point - trl.point), difference(trl, gradients)
    print(f"{loss}: loss {far[0]:.1e}, point {far[1]:.1e} of {trl.point:.3f}, gradient {far[2]:.1e}")  # noqa: T201
    assert far[0] < 1e-6
    assert far[1] < 2e-6 * max(1.0, trl.point)
    assert far[2] < 2e-6
    assert not loss.needs_reference_point or trl.point > 0.1, "at a point of 0 a fault in it would not be seen"


def test_a_mean_below_0_is_the_point_0_of_trl(step: Callable[..., Step]) -> None:
    trl = step(seed=0, beta=0.5)
    assert trl.point == 0
    _, gradients, point = ours(trl, KTOLoss(0.5), 4)
    assert point == 0
    assert difference(trl, gradients) < 2e-6


@pytest.mark.parametrize(
    "planted", [KTOLoss(0.51), KTOLoss(0.5, 1.02), KTOLoss(0.5, 1.0, 1.02), APOZeroUnpairedLoss(0.5)], ids=repr
)
def test_another_loss_is_told_apart(planted: UnpairedLoss, step: Callable[..., Step]) -> None:
    trl = step(beta=0.5)
    _, gradients, _ = ours(trl, planted, 4)
    assert difference(trl, gradients) > 1e-3


def test_answers_to_the_prompts_themselves_are_told_apart(step: Callable[..., Step]) -> None:
    trl = step(beta=0.5)
    _, gradients, point = ours(trl, KTOLoss(0.5), 4, own_answers=True)
    assert abs(point - trl.point) > 1e-2 * trl.point
    assert difference(trl, gradients) > 1e-3

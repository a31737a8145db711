"""A run of three stages, small enough to be repeated, and a callback that looks at the policy between them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

Config = dict[str, Any]

_PAIRS = {"class_path": "ScalePairs", "init_args": {"n": 24, "seed": 1}}
_SKILLS = {"class_path": "SkillPairs", "init_args": {"skills": ["rise"], "n": 24, "seed": 1}}
_RUN: Config = {
    "name": "run",
    "seed_everything": 0,
    "cpu_threads": 1,
    "model": {
        "class_path": "DPOModule",
        "init_args": {
            "base": "tiny-qwen3",
            "weights": {"dtype": "float32"},
            "lora": {"rank": 2, "alpha": 4, "target_modules": ["q_proj", "down_proj"]},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
        },
    },
    "data": {
        "class_path": "StagedPreferences",
        "init_args": {"window": 6, "token_budget": 700, "lengths": {"max_length": 256}},
    },
    "trainer": {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False},
    "checkpoint": {"every_n_windows": 1, "keep": "all"},
}
# Three windows each: a stacked one with dropout, another one of another shape, and one that goes on with the second.
DATA: list[Config] = [
    {"name": "one", "sources": [_PAIRS], "windows": 3},
    {"name": "two", "sources": [_SKILLS], "pairs": 18},
    {"name": "three", "sources": [_PAIRS, _SKILLS], "windows": 3},
]
STAGES: list[Config] = [
    {"name": "one", "reference": "base", "lora": {"rank": 4, "alpha": 8, "dropout": 0.3}, "lr": 5e-3},
    {
        "name": "two", "reference": "previous", "lora": {"rank": 3, "alpha": 3, "dropout": 0.2},
        "loss": {"class_path": "IPOLoss", "init_args": {"beta": 0.2}}, "schedule": {"class_path": "ConstantSchedule"},
    },
    {"name": "three", "reference": "start"},
]  # fmt: skip

PROBE: Config = {"class_path": "staged_runs.Probe"}


def progressive(
    names: tuple[str, ...] = ("one", "two", "three"), model: Config | None = None, trainer: Config | None = None,
    callbacks: list[Config] | None = None, gates: dict[str, list[Config]] | None = None, **top: Any,
) -> Config:  # fmt: skip
    """Settings of a run of some of the stages."""
    config = deepcopy(_RUN)
    config["model"]["init_args"].update(model or {})
    config["data"]["init_args"]["stages"] = [deepcopy(one) for one in DATA if one["name"] in names]
    stages = [deepcopy(one) for one in STAGES if one["name"] in names]
    for stage in stages:
        stage["gates"] = (gates or {}).get(stage["name"], [])
    transition = {"class_path": "StageTransition", "init_args": {"stages": stages}}
    config["trainer"].update({**(trainer or {}), "callbacks": [*(callbacks or []), transition]})
    config.update(top)
    return config


def transition(config: Config) -> list[Config]:
    """The stages of a configuration, to be changed."""
    stages: list[Config] = config["trainer"]["callbacks"][-1]["init_args"]["stages"]
    return stages


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


class Probe(pl.Callback):
    """Keeps what the policy is before each transition and after it; stands before StageTransition.

    Attributes:
        ends: By step, hidden states in evaluation mode after the last window of a stage.
        starts: By step, the same before the first window of the next one, and other facts.
        gradients: The folder that takes each rank's gradients of each window; None for none.
    """

    last: Probe

    def __init__(self, gradients: str | None = None) -> None:
        self.ends: dict[int, Tensor] = {}
        self.starts: dict[int, dict[str, Any]] = {}
        self.rates: list[float] = []
        self.losses: list[str] = []
        self.gradients = gradients
        Probe.last = self

    @torch.no_grad()
    def _hidden(self, trainer: Any, module: Any) -> Tensor:
        modes = [(part, part.training) for part in module.policy.modules()]
        module.policy.eval()
        hidden: Tensor = module.policy.hidden(trainer.datamodule.probe_forest().to(module.device)).clone()
        for part, training in modes:
            part.training = training
        return hidden

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        policy = pl_module.policy
        with pl_module.reference.active(policy):
            reference = policy.hidden(trainer.datamodule.probe_forest()).clone()
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.losses.append(repr(pl_module.loss))
        self.starts[trainer.global_step] = {
            "policy": self._hidden(trainer, pl_module),
            "reference": reference,
            "trained": sorted(policy.adapter_parameters()),
            "optimized": sum(len(group["params"]) for group in trainer.optimizers[0].param_groups),
            "optimizer steps": len(trainer.optimizers[0].state),
            "drop out": [n for n, part in policy.named_modules() if isinstance(part, torch.nn.Dropout)],
            "base": sorted(
                {type(part.base_layer).__name__ for part in policy.modules() if hasattr(part, "base_layer")}
            ),
            "frozen": {
                name: value.detach().clone()
                for name, value in policy.named_parameters()
                if ".stage-" in name or ".frozen" in name
            },
        }

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if self.gradients is not None:
            rank, step = trainer.global_rank, trainer.global_step
            found = {name: value.grad.clone() for name, value in pl_module.policy.adapter_parameters().items()}
            torch.save(found, Path(self.gradients) / f"gradients-{step}-{rank}.pt")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.ends[trainer.global_step] = self._hidden(trainer, pl_module)

"""The step as this project computes it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks.contender import Contender, PreparedStep, fill
from benchmarks.dpo.pairs import PairWorkload
from lit_align.losses.preference.sigmoid import SigmoidLoss
from lit_align.models.loading import LoRA
from lit_align.models.reference import CachedReference
from lit_align.modules.dpo import DPOModule


@dataclass(frozen=True)
class Ours(Contender[PairWorkload]):
    """``DPOModule.window_losses`` and backward, forest by forest; packing and building forests is part of the step.

    Attributes:
        cached: The reference's log-probs come from a cache on disk, which the first step fills; reading it is part of
            the step.
    """

    cached: bool = False

    @property
    def name(self) -> str:
        """See :class:`~benchmarks.contender.Contender`."""
        return "lit_align" + (", reference cached" if self.cached else "")

    def prepare(self, workload: PairWorkload, base: str) -> PreparedStep:
        """See :class:`~benchmarks.contender.Contender`."""
        lora = LoRA(rank=workload.rank, alpha=2 * workload.rank)
        reference = CachedReference(folder=f"{base}/cache") if self.cached else None
        setting = workload.setting
        module = DPOModule(
            base, setting.weights, lora, setting.attention, reference, loss=SigmoidLoss(beta=workload.beta)
        )
        module.configure_model()
        module.to(setting.device).train()
        sources = tuple(dict.fromkeys(path.source for pair in workload.rows.pairs() for path in pair))
        # What the module asks of Lightning's trainer: names for its log, and that there is one process.
        data = SimpleNamespace(source_names=sources, windows_per_epoch=1)
        trainer = SimpleNamespace(datamodule=data, world_size=1, global_rank=0)
        module.trainer = trainer  # type: ignore[assignment]
        adapter = fill({name.removeprefix("peft."): p for name, p in module.policy.adapter_parameters().items()})

        def run() -> Tensor:
            window = workload.rows.window().to(setting.device)
            total = torch.zeros((), dtype=torch.float64)
            for forest_loss in module.window_losses(window.forests, module.counts(window), step=0):
                with setting.autocast():
                    loss, _ = forest_loss()
                torch.autograd.backward(loss)
                total += loss.detach().cpu()
            return total

        return PreparedStep(run, module, adapter)

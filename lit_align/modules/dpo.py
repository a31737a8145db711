"""Preference training: any loss on pairs, against a reference that shares the policy's weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import AdamW

from lit_align.forest import TokenForest, Window
from lit_align.losses.anchor import ReverseKL
from lit_align.losses.preference.contract import PreferenceLoss
from lit_align.losses.preference.sigmoid import SigmoidLoss
from lit_align.models.loading import LoRA, Weights
from lit_align.models.reference import Reference
from lit_align.models.tree_attention import AttentionPath
from lit_align.modules.base import AlignModule
from lit_align.modules.objective import ForestLoss
from lit_align.modules.optimizer import OptimizerFactory
from lit_align.modules.pair_metrics import BASIC, pair_metrics, pair_sums
from lit_align.modules.pair_scoring import (
    ScoredPairs,
    answer_sums,
    count_pairs,
    pairs_of_sums,
    reference_hidden,
    reference_logps,
    score_pairs,
)
from lit_align.modules.resume import Identity, over_ranks
from lit_align.modules.schedule import Schedule
from lit_align.ops.frozen_head import token_logps


class DPOModule(AlignModule):
    r"""Trains a LoRA policy on pairs of a chosen and a rejected answer.

    The loss is the mean of a per-pair loss over the whole window, all forests and ranks. The default is that of DPO
    (Rafailov et al. 2023, arXiv 2305.18290, equation 7),

    .. math:: -\log \sigma\left(\beta \log \frac{\pi(y_w|x)}{\pi_{ref}(y_w|x)}
              - \beta \log \frac{\pi(y_l|x)}{\pi_{ref}(y_l|x)}\right),

    with sums over answer tokens. The reference is the same network with its adapters off; a loss that needs none runs
    none. A loss that couples the pairs of a window (AOT, the reward shift of BCO) sees all of them: a first pass
    without gradient collects the log-probs, the loss's gradient with respect to them is taken, and the second pass
    applies it, so the gradient is exact however the window is cut.

    Args:
        base: Hub id, folder, GGUF file, ``package:NAME/FILE`` or ``tiny-qwen3`` (bundled).
        weights: Number format and quantisation of the frozen base.
        lora: The trained adapter. Dropout is off by default: with it policy and reference differ by noise.
        attention: ``tree_sdpa`` (everywhere), ``flex`` (CUDA) or ``padded`` (no sharing).
        reference: What the policy is compared with; ``FrozenAdapterReference`` trains on from an earlier adapter,
            ``EMAReference`` follows the policy, None is the bare base.
        loss: The loss of a pair, by class path: ``--model.loss=IPOLoss --model.loss.beta=0.2``. None is SigmoidLoss.
        optimizer: Made from the trainable parameters: ``torch.optim.AdamW``, ``AdamW8bit``, ``PagedAdamW8bit``,
            ``PagedAdamW32bit`` or any other class path.
        schedule: Factor of the learning rate by step; None is a cosine without warm-up.
        max_grad_norm: Gradients are scaled down to this 2-norm; 0 leaves them alone.
        activation_checkpointing: Each layer's activations are computed again in the backward pass instead of kept:
            the same numbers for less memory and more time.

    Raises:
        ValueError: `max_grad_norm` is negative; or the loss couples pairs and the adapter has dropout.
    """

    trains_on = "pairs"

    def __init__(
        self,
        base: str = "tiny-qwen3",
        weights: Weights = Weights(),
        lora: LoRA = LoRA(),
        attention: AttentionPath = "tree_sdpa",
        reference: Reference | None = None,
        loss: PreferenceLoss | None = None,
        optimizer: OptimizerFactory = AdamW,
        schedule: Schedule | None = None,
        max_grad_norm: float = 1.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            base, weights, lora, attention, reference, optimizer, schedule, max_grad_norm, activation_checkpointing
        )
        self.loss: PreferenceLoss = loss or SigmoidLoss()
        if self.loss.couples_pairs and lora.dropout:
            raise ValueError(
                f"`lora.dropout` = {lora.dropout}: {type(self.loss).__name__} couples the pairs of a window, which are "
                "passed twice, and dropout would be drawn anew: set it to 0 or take a loss of single pairs"
            )
        self._validation_tables: list[Tensor] = []

    @property
    def _sources(self) -> tuple[str, ...]:
        return cast(tuple[str, ...], cast(Any, self._data).source_names)

    def counts(self, window: Window) -> Tensor:
        """Pairs."""
        pairs = sum(count_pairs(forest) for forest in window.forests)
        return torch.tensor([pairs], dtype=torch.float64, device=self.device)

    def forest_loss(self, forest: TokenForest, counts: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """See :class:`~lit_align.modules.objective.Objective`; sums are those of ``pair_metrics.py``."""
        del step
        scored = score_pairs(self.policy, forest, self._reference(forest), self.loss.statistics)
        losses = self.loss(scored.scores)
        return losses.sum() / counts[0].clamp(min=1), self._sums(scored, losses)

    def _reference(self, forest: TokenForest) -> Tensor | None:
        return reference_logps(self.policy, forest, self.reference) if self.loss.needs_reference else None

    def _sums(self, scored: ScoredPairs, losses: Tensor) -> Tensor:
        return pair_sums(scored, losses, self.loss.reward_scale, self._sources)

    def window_losses(self, forests: Sequence[TokenForest], counts: Tensor, step: int) -> Iterator[ForestLoss]:
        """See :class:`~lit_align.modules.objective.Objective`; coupled pairs are all looked at first."""
        if not self.loss.couples_pairs or (len(forests) == 1 and self.trainer.world_size == 1):
            yield from super().window_losses(forests, counts, step)
            return
        references = [self._reference(forest) for forest in forests]
        with torch.no_grad():
            tables = [
                answer_sums(score_pairs(self.policy, forest, reference).scores)
                for forest, reference in zip(forests, references, strict=True)
            ]
        losses, slopes = self._coupled(torch.cat(tables, dim=1))
        start = 0
        for forest, reference in zip(forests, references, strict=True):
            part = slice(start, start + count_pairs(forest))
            yield partial(self._coupled_share, forest, reference, losses[part], slopes[:, part], counts)
            start = part.stop

    def _coupled(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of this rank's pairs among those of all ranks ``(P,)``, and the slopes of their sum ``(2, P)``."""
        by_rank = [table.to(own.device) for table in over_ranks(own.cpu())]
        whole = torch.cat(by_rank, dim=1)
        logps = whole[:2].clone().requires_grad_()
        with torch.enable_grad():
            losses = self.loss(pairs_of_sums(logps, whole[2:], self.loss.needs_reference))
            (slopes,) = torch.autograd.grad(losses.sum(), logps)
        start = sum(table.shape[1] for table in by_rank[: self.trainer.global_rank])
        mine = slice(start, start + own.shape[1])
        return losses.detach()[mine], slopes[:, mine]

    def _coupled_share(
        self, forest: TokenForest, reference: Tensor | None, losses: Tensor, slopes: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A forest's share where the window's losses and slopes are known: the same value and gradient."""
        scored = score_pairs(self.policy, forest, reference)
        linear = slopes[0] * scored.scores.chosen.logps + slopes[1] * scored.scores.rejected.logps
        share = (losses + linear - linear.detach()).sum() / counts[0].clamp(min=1)
        return share, self._sums(scored, losses)

    def window_metrics(self, sums: Tensor, counts: Tensor) -> dict[str, Tensor | float]:
        """Rewards, log-probs, log-ratios and displacement; see ``pair_metrics.py``."""
        del counts
        return pair_metrics(sums, self._sources, self.loss.needs_reference)

    # ------------------------------------------------------------------ validation

    def on_validation_start(self) -> None:
        """Set the random numbers aside."""
        super().on_validation_start()
        self._validation_tables = []

    @torch.no_grad()
    def validation_sums(self, forest: TokenForest) -> Tensor:
        """The sums of a window, with a reference in any case, and KL(policy ‖ reference) over the chosen answers."""
        hidden = reference_hidden(self.policy, forest, self.reference)
        reference = token_logps(hidden, self.policy.head, forest.pair_tokens)[forest.target_pairs]
        scored = score_pairs(
            self.policy, forest, reference, self.loss.statistics, compared_with=hidden, divergences=[ReverseKL()]
        )
        if self.loss.couples_pairs:
            self._validation_tables.append(answer_sums(scored.scores))
            losses = torch.zeros(count_pairs(forest), dtype=torch.float64, device=self.device)
        else:
            losses = self.loss(scored.scores)
        return torch.cat([self._sums(scored, losses), scored.chosen_divergences[0].sum()[None]])

    def validation_metrics(self, sums: Tensor) -> dict[str, Tensor | float]:
        """Means over the pairs of the validation set; a loss that couples pairs couples the whole set."""
        table = sums[:-1].reshape(len(self._sources), -1)
        pairs, loss = table[:, BASIC.index("pairs")].sum(), table[:, BASIC.index("loss")].sum()
        tokens = table[:, BASIC.index("tokens")].sum()
        if self.loss.couples_pairs:
            tables = [
                one.to(self.device) for rank in over_ranks([t.cpu() for t in self._validation_tables]) for one in rank
            ]
            whole = torch.cat(tables, dim=1)
            loss = self.loss(pairs_of_sums(whole[:2], whole[2:], self.loss.needs_reference)).sum()
        return {
            "loss": loss / pairs.clamp(min=1),
            **pair_metrics(sums[:-1], self._sources, compared=True),
            "kl": sums[-1] / tokens.clamp(min=1),
        }

    def objective_identity(self) -> Identity:
        """The loss."""
        return {"loss": repr(self.loss)}

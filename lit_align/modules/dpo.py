"""Preference training: any loss on pairs, against a reference that shares the policy's weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.optim import AdamW

from lit_align.forest import TokenForest, Window
from lit_align.losses.anchor import KLAnchor, ReverseKL
from lit_align.losses.preference.contract import PreferenceLoss
from lit_align.losses.preference.sigmoid import SigmoidLoss
from lit_align.models.loading import LoRA, Weights
from lit_align.models.reference import Reference
from lit_align.models.tree_attention import AttentionPath
from lit_align.modules.comparison import Comparison, reference_hidden
from lit_align.modules.objective import ForestLoss
from lit_align.modules.optimizer import OptimizerFactory
from lit_align.modules.pair_metrics import BASIC, pair_metrics, pair_sums
from lit_align.modules.pair_scoring import (
    ReferenceView,
    ScoredPairs,
    answer_sums,
    chosen_targets,
    count_pairs,
    hidden_logps,
    pairs_of_sums,
    score_pairs,
)
from lit_align.modules.resume import Identity, over_ranks
from lit_align.modules.staged import StagedModule
from lit_align.modules.startup import prepare_reference
from lit_align.schedule import Schedule
from lit_align.stage import refuse_coupled_dropout


class DPOModule(StagedModule):
    r"""Trains a LoRA policy on pairs of a chosen and a rejected answer.

    The loss is the mean of a per-pair loss over the whole window, all forests and ranks. The default is that of DPO
    (Rafailov et al. 2023, arXiv 2305.18290, equation 7),

    .. math:: -\log \sigma\left(\beta \log \frac{\pi(y_w|x)}{\pi_{ref}(y_w|x)}
              - \beta \log \frac{\pi(y_l|x)}{\pi_{ref}(y_l|x)}\right),

    with sums over answer tokens. The reference is the same network with its adapters off; a loss that needs none runs
    none. A loss that couples the pairs of a window (AOT, the reward shift of BCO) sees all of them: a first pass
    without gradient collects the log-probs, the loss's gradient with respect to them is taken, and the second pass
    applies it, so the gradient is exact however the window is cut.

    The anchor adds :math:`c(s) \frac{1}{K} \sum_t D(\pi_t, \pi^{ref}_t)`, a divergence that is exact over the
    vocabulary, at tokens of the chosen answers (``anchor.text: trained``), of replayed conversations (``replayed``,
    with ``data.replay``) or of ``both``; K counts these tokens over the whole window and all ranks. A rejected answer
    never carries it. It is off by default, and while c(s) is 0 nothing is computed for it.

    Args:
        base: Hub id, folder, GGUF file, ``package:NAME/FILE`` or ``tiny-qwen3`` (bundled).
        weights: Number format and quantisation of the frozen base.
        lora: The trained adapter. Dropout is off by default: with it policy and reference differ by noise.
        attention: ``tree_sdpa`` (everywhere), ``flex`` (CUDA) or ``padded`` (no sharing).
        reference: What the policy is compared with; ``FrozenAdapterReference`` trains on from an earlier adapter,
            ``EMAReference`` follows the policy, ``CachedReference`` computes a frozen one once for all runs, None is
            the bare base.
        loss: The loss of a pair, by class path: ``--model.loss=IPOLoss --model.loss.beta=0.2``. None is SigmoidLoss.
        anchor: Divergence to the reference beside the loss, its coefficient, schedule and tokens: ``anchor.coef: 0.1``.
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
        anchor: KLAnchor = KLAnchor(coef=0.0),
        optimizer: OptimizerFactory = AdamW,
        schedule: Schedule | None = None,
        max_grad_norm: float = 1.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            base, weights, lora, attention, reference, optimizer, schedule, max_grad_norm, activation_checkpointing
        )
        self.loss: PreferenceLoss = loss or SigmoidLoss()
        self.anchor = anchor
        refuse_coupled_dropout(self.loss, lora)
        self._validation_tables: list[Tensor] = []

    def on_train_start(self) -> None:
        """Check the start, and let the reference get ready; leaves no trace."""
        super().on_train_start()
        if self.loss.needs_reference:
            prepare_reference(self, self._data)

    def on_train_end(self) -> None:
        """Let the reference have the last word."""
        super().on_train_end()
        if self.loss.needs_reference:
            self.reference.finish()

    def counts(self, window: Window) -> Tensor:
        """Pairs and anchored tokens."""
        pairs = anchored = 0
        for forest in window.forests:
            pairs += count_pairs(forest)
            anchored += int(self._anchored(forest).sum())
        return torch.tensor([pairs, anchored], dtype=torch.float64, device=self.device)

    def _anchored(self, forest: TokenForest) -> Tensor:
        """Which targets carry the anchor once it has begun, ``(M,)``, bool."""
        wanted = self.anchor.anchored(forest.target_from_end, forest.replayed)
        return wanted & (forest.replayed | chosen_targets(forest))

    def forest_loss(self, forest: TokenForest, counts: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """See :class:`~lit_align.modules.objective.Objective`; sums are those of ``pair_metrics.py`` and divergence."""
        scored = score_pairs(self.policy, forest, self._reference(forest, step), self.loss.statistics)
        losses = self.loss(scored.scores)
        return self._share(losses.sum(), scored, counts, step), self._sums(scored, losses)

    def _share(self, loss: Tensor, scored: ScoredPairs, counts: Tensor, step: int) -> Tensor:
        anchor = self.anchor.weight(step) * scored.divergence / counts[1].clamp(min=1)
        return loss / counts[0].clamp(min=1) + anchor

    def _reference(self, forest: TokenForest, step: int) -> ReferenceView:
        """What this step needs of the reference; where the anchor runs it, the log-probs are of the same run."""
        needs_logps = self.loss.needs_reference
        anchored = self._anchored(forest)
        if self.anchor.weight(step) > 0 and bool(anchored.any()):
            hidden = reference_hidden(self.policy, forest, self.reference)
            comparison = Comparison.at(forest, anchored, self.anchor.divergence, hidden)
            return ReferenceView(hidden_logps(self.policy, forest, hidden) if needs_logps else None, comparison)
        if needs_logps and not count_pairs(forest):  # idle, or all replayed and the anchor at 0: no loss reads them
            return ReferenceView(torch.zeros(len(anchored), device=anchored.device))
        return ReferenceView(self.reference.target_logps(self.policy, forest) if needs_logps else None)

    def _sums(self, scored: ScoredPairs, losses: Tensor) -> Tensor:
        sums = pair_sums(scored, losses, self.loss.reward_scale, self._data.source_names)
        return torch.cat([sums, scored.divergence.detach()[None]])

    def window_losses(self, forests: Sequence[TokenForest], counts: Tensor, step: int) -> Iterator[ForestLoss]:
        """See :class:`~lit_align.modules.objective.Objective`; coupled pairs are all looked at first."""
        if not self.loss.couples_pairs or (len(forests) == 1 and self.trainer.world_size == 1):
            yield from super().window_losses(forests, counts, step)
            return
        references = [self._reference(forest, step) for forest in forests]
        with torch.no_grad():
            tables = [
                answer_sums(score_pairs(self.policy, forest, replace(reference, comparison=None)).scores)
                for forest, reference in zip(forests, references, strict=True)
            ]
        losses, slopes = self._coupled(torch.cat(tables, dim=1))
        start = 0
        for forest, reference in zip(forests, references, strict=True):
            part = slice(start, start + count_pairs(forest))
            yield partial(self._coupled_share, forest, reference, losses[part], slopes[:, part], counts, step)
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
        self, forest: TokenForest, reference: ReferenceView, losses: Tensor, slopes: Tensor, counts: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """A forest's share where the window's losses and slopes are known: the same value and gradient."""
        scored = score_pairs(self.policy, forest, reference)
        linear = slopes[0] * scored.scores.chosen.logps + slopes[1] * scored.scores.rejected.logps
        loss = (losses + linear - linear.detach()).sum()
        return self._share(loss, scored, counts, step), self._sums(scored, losses)

    def window_metrics(self, sums: Tensor, counts: Tensor) -> dict[str, Tensor | float]:
        """Those of ``pair_metrics.py``; divergence and coefficient of the anchor."""
        weight = self.anchor.weight(self.global_step)
        anchor: dict[str, Tensor | float] = {"kl": sums[-1] / counts[1].clamp(min=1)} if weight else {}
        return {
            **pair_metrics(sums[:-1], self._data.source_names, self.loss.needs_reference),
            **anchor,
            "kl_coef": weight,
        }

    # ------------------------------------------------------------------ validation

    def on_validation_start(self) -> None:
        """Set the random numbers aside."""
        super().on_validation_start()
        self._validation_tables = []

    @torch.no_grad()
    def validation_sums(self, forest: TokenForest) -> Tensor:
        """The sums of a window, with a reference in any case, and KL(policy ‖ reference) over the chosen answers."""
        hidden = reference_hidden(self.policy, forest, self.reference)
        comparison = Comparison.at(forest, chosen_targets(forest), ReverseKL(), hidden)
        view = ReferenceView(hidden_logps(self.policy, forest, hidden), comparison)
        scored = score_pairs(self.policy, forest, view, self.loss.statistics)
        if self.loss.couples_pairs:
            self._validation_tables.append(answer_sums(scored.scores))
            losses = torch.zeros(count_pairs(forest), dtype=torch.float64, device=self.device)
        else:
            losses = self.loss(scored.scores)
        return self._sums(scored, losses)

    def validation_metrics(self, sums: Tensor) -> dict[str, Tensor | float]:
        """Means over the pairs of the validation set; a loss that couples pairs couples the whole set."""
        table = sums[:-1].reshape(len(self._data.source_names), -1)
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
            **pair_metrics(sums[:-1], self._data.source_names, compared=True),
            "kl": sums[-1] / tokens.clamp(min=1),
        }

    def objective_identity(self) -> Identity:
        """The loss and the anchor."""
        return {"loss": repr(self.loss), "anchor": repr(self.anchor)}

"""Supervised fine-tuning with an exact divergence to the reference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import AdamW

from lit_align.forest import TokenForest, Window
from lit_align.losses.anchor import ForwardKL, KLAnchor, ReverseKL
from lit_align.models.loading import LoRA, Weights
from lit_align.models.reference import CachedReference, Reference
from lit_align.models.tree_attention import AttentionPath
from lit_align.modules.base import AlignModule
from lit_align.modules.comparison import Comparison, reference_hidden, score_forest
from lit_align.modules.optimizer import OptimizerFactory
from lit_align.modules.resume import Identity
from lit_align.modules.source_metrics import source_metrics, source_sums
from lit_align.ops.frozen_head import score_tokens
from lit_align.schedule import Schedule


class SFTModule(AlignModule):
    r"""SFT of a LoRA policy, anchored to its reference.

    .. math:: \frac{1}{N}\sum_{t \in \text{trained}} -\log \pi(y_t)
        + c(s)\,\frac{1}{K}\sum_{t \in \text{anchored}} D(\pi_t, \pi^{ref}_t)

    N and K count tokens over the whole window and all ranks; D is exact over the vocabulary, in nats; c(s) follows
    the anchor's schedule. While c(s) is 0 the reference is not run.

    Args:
        base: Hub id, folder, GGUF file, ``package:NAME/FILE`` or ``tiny-qwen3`` (bundled).
        weights: Number format and quantisation of the frozen base.
        lora: The trained adapter.
        attention: ``tree_sdpa`` (everywhere), ``flex`` (CUDA) or ``padded`` (no sharing).
        reference: What the anchor holds on to; None is the bare base.
        anchor: Divergence, coefficient, schedule and tokens of the anchor; ``anchor.coef: 0`` is plain SFT.
        optimizer: Made from the trainable parameters, those of fewer than two dimensions without weight decay:
            ``torch.optim.AdamW``, ``AdamW8bit``, ``PagedAdamW8bit``, ``PagedAdamW32bit`` or any other class path.
        schedule: Factor of the learning rate by step; None is a cosine without warm-up.
        max_grad_norm: Gradients are scaled down to this 2-norm; 0 leaves them alone.
        activation_checkpointing: Each layer's activations are computed again in the backward pass instead of kept:
            the same numbers for less memory and more time.

    Raises:
        ValueError: `max_grad_norm` is negative; or the reference is a cache of log-probs, which an anchor cannot use.
    """

    trains_on = "conversations"

    def __init__(
        self,
        base: str = "tiny-qwen3",
        weights: Weights = Weights(),
        lora: LoRA = LoRA(),
        attention: AttentionPath = "tree_sdpa",
        reference: Reference | None = None,
        anchor: KLAnchor = KLAnchor(),
        optimizer: OptimizerFactory = AdamW,
        schedule: Schedule | None = None,
        max_grad_norm: float = 1.0,
        activation_checkpointing: bool = False,
    ) -> None:
        if isinstance(reference, CachedReference):
            raise ValueError(
                "`model.reference` CachedReference would never be read: it keeps log-probs of target tokens, and the "
                "anchor compares whole distributions; set `model.reference` to what stands in its `of`"
            )
        super().__init__(
            base, weights, lora, attention, reference, optimizer, schedule, max_grad_norm, activation_checkpointing
        )
        self.anchor = anchor

    def counts(self, window: Window) -> Tensor:
        """Trained and anchored tokens."""
        trained = anchored = 0
        for forest in window.forests:
            trained += int((~forest.replayed).sum())
            anchored += int(self.anchor.anchored(forest.target_from_end, forest.replayed).sum())
        return torch.tensor([trained, anchored], dtype=torch.float64, device=self.device)

    def forest_loss(self, forest: TokenForest, counts: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """See :class:`~lit_align.modules.base.AlignModule`; sums are of NLL, divergence, entropy and hits.

        After them stand those of ``source_metrics.py``.
        """
        weight = self.anchor.weight(step)
        anchored = self.anchor.anchored(forest.target_from_end, forest.replayed)
        comparison = None
        if weight > 0 and bool(anchored.any()):
            seen = reference_hidden(self.policy, forest, self.reference)
            comparison = Comparison.at(forest, anchored, self.anchor.divergence, seen)
        scores = score_forest(self.policy, forest, ["entropy", "rank"], comparison)
        trained = ~forest.replayed
        at = forest.target_pairs[trained]
        nlls = -(scores.logps.double()[at] * forest.target_weights[trained])
        nll = nlls.sum()
        loss = nll / counts[0].clamp(min=1) + weight * scores.divergence / counts[1].clamp(min=1)
        entropy, hits = scores.statistics["entropy"][at], scores.statistics["rank"][at] == 0
        sums = [nll.detach(), scores.divergence.detach(), entropy.double().sum(), hits.double().sum()]
        by_source = source_sums(nlls.detach(), hits, forest, self._data.source_names)
        return loss, torch.cat([torch.stack(sums), by_source])

    def window_metrics(self, sums: Tensor, counts: Tensor) -> dict[str, Tensor | float]:
        """NLL and its perplexity, divergence and coefficient of the anchor, entropy, accuracy; those by source."""
        trained = counts[0].clamp(min=1)
        weight = self.anchor.weight(self.global_step)
        anchor: dict[str, Tensor | float] = {"kl": sums[1] / counts[1].clamp(min=1)} if weight else {}
        return {
            "nll": sums[0] / trained,
            "perplexity": (sums[0] / trained).exp(),
            **anchor,
            "kl_coef": weight,
            "entropy": sums[2] / trained,
            "mean_token_accuracy": sums[3] / trained,
            **source_metrics(sums[4:], self._data.source_names),
        }

    @torch.no_grad()
    def validation_sums(self, forest: TokenForest) -> Tensor:
        """Tokens, NLL, KL in both directions, entropy and hits; those of ``source_metrics.py``."""
        seen = reference_hidden(self.policy, forest, self.reference)
        scores = score_tokens(
            self.policy.hidden(forest, forest.pair_rows),
            self.policy.head,
            forest.pair_tokens,
            reference_hidden=seen,
            divergences=[ReverseKL(), ForwardKL()],
            statistics=["entropy", "rank"],
        )
        at = forest.target_pairs
        columns = [-scores.logps, *scores.divergences, scores.statistics["entropy"], scores.statistics["rank"] == 0]
        values = [column.double()[at] for column in columns]
        totals = [value.sum() for value in values]
        by_source = source_sums(values[0], values[-1], forest, self._data.source_names)
        return torch.cat([torch.stack([totals[0].new_tensor(len(at)), *totals]), by_source])

    def validation_metrics(self, sums: Tensor) -> dict[str, Tensor | float]:
        """Means over the tokens of the validation set."""
        means = sums[1:6] / sums[0].clamp(min=1)
        return {
            "loss": means[0],
            "nll": means[0],
            "perplexity": means[0].exp(),
            "kl": means[1],
            "kl_forward": means[2],
            "entropy": means[3],
            "mean_token_accuracy": means[4],
            **source_metrics(sums[6:], self._data.source_names),
        }

    def objective_identity(self) -> Identity:
        """The anchor."""
        return {"anchor": repr(self.anchor)}

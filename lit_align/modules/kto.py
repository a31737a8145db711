"""Training on answers that are good or bad, each on its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.optim import AdamW

from lit_align.forest import TokenForest, Window
from lit_align.losses.anchor import ReverseKL
from lit_align.losses.preference.contract import AnswerScores
from lit_align.losses.unpaired import KTOLoss, UnpairedLoss, reference_point
from lit_align.models.loading import LoRA, Weights
from lit_align.models.reference import Reference
from lit_align.models.tree_attention import AttentionPath
from lit_align.modules.base import AlignModule
from lit_align.modules.comparison import Comparison, reference_hidden, score_forest
from lit_align.modules.objective import ForestLoss, WindowData
from lit_align.modules.optimizer import OptimizerFactory
from lit_align.modules.pair_scoring import hidden_logps
from lit_align.modules.rated_metrics import rated_metrics, rated_sums, rated_table, table_losses
from lit_align.modules.resume import Identity, over_ranks
from lit_align.modules.startup import prepare_reference
from lit_align.schedule import Schedule

logger = logging.getLogger(__name__)


class RatedData(WindowData, Protocol):
    """What the module asks of the data module beyond windows."""

    rated_counts: tuple[int, int]


class KTOModule(AlignModule):
    r"""Trains a LoRA policy on answers of which each is good or bad.

    The loss is the mean of a per-answer loss over the whole window, all forests and ranks. The default is KTO
    (Ethayarajh et al. 2024, arXiv 2402.01306): with :math:`s` an answer's log-ratio to the reference,

    .. math:: \lambda_D (1 - \sigma(\beta(s - z_0))) \text{ for a good answer}, \qquad
        \lambda_U (1 - \sigma(\beta(z_0 - s))) \text{ for a bad one},

    where :math:`z_0` is the mean log-ratio of mismatched answers, at least 0, over the whole window and all ranks. They
    are scored before the first backward pass and without gradient, so value and gradient do not depend on how the
    window is cut. Their prompts are those of the window, their answers from anywhere in the data.

    Args:
        base: Hub id, folder, GGUF file, ``package:NAME/FILE`` or ``tiny-qwen3`` (bundled).
        weights: Number format and quantisation of the frozen base.
        lora: The trained adapter. Dropout is off by default: with it policy and reference differ by noise.
        attention: ``tree_sdpa`` (everywhere), ``flex`` (CUDA) or ``padded`` (no sharing).
        reference: What the policy is compared with; None is the bare base.
        loss: The loss of an answer, by class path: ``--model.loss=APOZeroUnpairedLoss``. None is KTOLoss.
        optimizer: Made from the trainable parameters: ``torch.optim.AdamW``, ``AdamW8bit``, ``PagedAdamW8bit``,
            ``PagedAdamW32bit`` or any other class path.
        schedule: Factor of the learning rate by step; None is a cosine without warm-up.
        max_grad_norm: Gradients are scaled down to this 2-norm; 0 leaves them alone.
        activation_checkpointing: Each layer's activations are computed again in the backward pass instead of kept:
            the same numbers for less memory and more time.

    Raises:
        ValueError: `max_grad_norm` is negative.
    """

    trains_on = "rated answers"

    def __init__(
        self,
        base: str = "tiny-qwen3",
        weights: Weights = Weights(),
        lora: LoRA = LoRA(),
        attention: AttentionPath = "tree_sdpa",
        reference: Reference | None = None,
        loss: UnpairedLoss | None = None,
        optimizer: OptimizerFactory = AdamW,
        schedule: Schedule | None = None,
        max_grad_norm: float = 1.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            base, weights, lora, attention, reference, optimizer, schedule, max_grad_norm, activation_checkpointing
        )
        self.loss: UnpairedLoss = loss or KTOLoss()
        self._validation_tables: list[Tensor] = []

    def on_train_start(self) -> None:
        """Check the start, say how the two kinds weigh, and let the reference get ready; leaves no trace."""
        super().on_train_start()
        if isinstance(self.loss, KTOLoss):
            logger.info(balance(self.loss, *cast(RatedData, self._data).rated_counts))
        prepare_reference(self, self._data)

    def on_train_end(self) -> None:
        """Let the reference have the last word."""
        super().on_train_end()
        self.reference.finish()

    def counts(self, window: Window) -> Tensor:
        """Rated and mismatched answers."""
        parts = [(len(rated), len(mismatched)) for rated, mismatched in map(_kinds, window.forests)]
        rated, mismatched = (sum(numbers) for numbers in zip(*parts, strict=True)) if parts else (0, 0)
        return torch.tensor([rated, mismatched], dtype=torch.float64, device=self.device)

    def forest_loss(self, forest: TokenForest, counts: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """A forest that is a window by itself, all answers in one pass: no window takes more memory.

        See :class:`~lit_align.modules.objective.Objective`; sums are those of ``rated_metrics.py`` and of the
        log-ratios of mismatched answers.
        """
        del step
        scores = self._scores(forest)
        mismatched = scores.log_ratios.detach()[_kinds(forest)[1]].sum()
        return self._share(forest, scores, mismatched, self._point(mismatched, counts), counts)

    def window_losses(self, forests: Sequence[TokenForest], counts: Tensor, step: int) -> Iterator[ForestLoss]:
        """See :class:`~lit_align.modules.objective.Objective`; the mismatched answers are all looked at first."""
        del step
        mismatched = [self._mismatched(forest, self.loss.needs_reference_point) for forest in forests]
        own = torch.stack(mismatched).sum()
        total = torch.stack(over_ranks(own.cpu())).sum().to(own.device)
        point = self._point(total, counts)
        for forest, part in zip(forests, mismatched, strict=True):
            yield partial(self._rated_share, forest, part, point, counts)

    def _rated_share(
        self, forest: TokenForest, mismatched: Tensor, point: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        rated, _ = _kinds(forest)
        part = forest.only(rated) if rated else forest  # an idle rank has a forest without any answer
        return self._share(part, self._scores(part), mismatched, point, counts)

    @torch.no_grad()
    def _mismatched(self, forest: TokenForest, wanted: bool) -> Tensor:
        """Log-ratios of a forest's mismatched answers, added up; 0 where they are not wanted."""
        _, mismatched = _kinds(forest)
        if not (wanted and mismatched):
            return torch.zeros((), dtype=torch.float64, device=self.device)
        return self._scores(forest.only(mismatched)).log_ratios.sum()

    def _scores(self, forest: TokenForest) -> AnswerScores:
        """Of all answers of a forest, beside the reference's in the same forest: at step 0 equal to the bit."""
        return self._beside(forest, self.reference.target_logps(self.policy, forest), None)[0]

    def _beside(
        self, forest: TokenForest, reference: Tensor, comparison: Comparison | None
    ) -> tuple[AnswerScores, Tensor]:
        token = score_forest(self.policy, forest, ("entropy", "rank"), comparison)
        at = forest.target_pairs
        statistics = {name: values[at] for name, values in token.statistics.items()}
        positions = torch.zeros_like(at)  # no loss here reads them
        scores = AnswerScores(
            token.logps[at], reference, forest.target_examples, positions, len(forest.examples), statistics
        )
        return scores, token.divergence

    def _point(self, mismatched: Tensor, counts: Tensor) -> Tensor:
        return reference_point(mismatched, counts[1])

    def _share(
        self, forest: TokenForest, scores: AnswerScores, mismatched: Tensor, point: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        rated, _ = _kinds(forest)
        table = rated_table(scores, forest, rated, self._data.source_names)
        losses = self.loss(scores.log_ratios[rated], table[1].bool(), point)
        sums = rated_sums(table, losses, point, len(self._data.source_names))
        return losses.sum() / counts[0].clamp(min=1), torch.cat([sums, mismatched[None]])

    def window_metrics(self, sums: Tensor, counts: Tensor) -> dict[str, Tensor | float]:
        """Those of ``rated_metrics.py``; the reference point, as ``kl``."""
        point: dict[str, Tensor | float] = {}
        if self.loss.needs_reference_point:
            point["kl"] = self._point(sums[-1], counts)
        return {**rated_metrics(sums[:-1], self._data.source_names, self.loss.reward_scale), **point}

    # ------------------------------------------------------------------ validation

    def on_validation_start(self) -> None:
        """Set the random numbers aside."""
        super().on_validation_start()
        self._validation_tables = []

    @torch.no_grad()
    def validation_sums(self, forest: TokenForest) -> Tensor:
        """Log-ratios and number of mismatched answers; KL(policy ‖ reference) over the good answers, and its tokens."""
        rated, mismatched = _kinds(forest)
        strangers = self._mismatched(forest, wanted=True)
        divergence, tokens = strangers.new_zeros(()), 0
        if rated:
            part = forest.only(rated)
            good = torch.tensor([bool(one) for one in part.desirable], device=self.device)[part.target_examples]
            hidden = reference_hidden(self.policy, part, self.reference)
            comparison = Comparison.at(part, good, ReverseKL(), hidden)
            scores, divergence = self._beside(part, hidden_logps(self.policy, part, hidden), comparison)
            places = range(len(part.examples))
            self._validation_tables.append(rated_table(scores, part, places, self._data.source_names))
            tokens = int(good.sum())
        return torch.stack([strangers, strangers.new_tensor(len(mismatched)), divergence, strangers.new_tensor(tokens)])

    def validation_metrics(self, sums: Tensor) -> dict[str, Tensor | float]:
        """Means over the validation set, whose reference point is that of the whole set.

        ``kl`` is that point, nats by answer; ``kl_chosen`` the exact divergence over the good answers, nats by token.
        """
        by_rank = over_ranks([table.cpu() for table in self._validation_tables])
        table = torch.cat([one for tables in by_rank for one in tables], dim=1).to(self.device)
        point = reference_point(sums[0], sums[1])
        losses = table_losses(table, self.loss, point)
        whole = rated_sums(table, losses, point, len(self._data.source_names))
        return {
            "loss": losses.mean(),
            **rated_metrics(whole, self._data.source_names, self.loss.reward_scale),
            "kl": point,
            "kl_chosen": sums[2] / sums[3].clamp(min=1),
        }

    def objective_identity(self) -> Identity:
        """The loss."""
        return {"loss": repr(self.loss)}


def _kinds(forest: TokenForest) -> tuple[list[int], list[int]]:
    """Numbers of the rated and of the mismatched answers of a forest; an idle rank's has neither."""
    numbers = range(len(forest.examples))
    rated = [one for one in numbers if forest.desirable[one] is not None]
    return rated, [one for one in numbers if forest.desirable[one] is None] if rated else []


def balance(loss: KTOLoss, good: int, bad: int) -> str:
    r"""How much good and bad answers weigh, :math:`\lambda_D n_D / \lambda_U n_U`, beside the paper's [1, 4/3].

    Args:
        loss: The loss.
        good: Good answers of an epoch, > 0.
        bad: Bad ones, > 0.

    Example:
        >>> balance(KTOLoss(), 100, 400).split("; ")[1]
        '`model.loss.desirable_weight` in [4, 5.33] would be within'
    """
    share = loss.desirable_weight * good / (loss.undesirable_weight * bad)
    said = f"good answers weigh {share:.2f} times as much as bad ones: "
    paper = "the [1, 4/3] of KTO (Ethayarajh et al. 2024)"
    if 1 - 1e-9 <= share <= 4 / 3 + 1e-9:
        return f"{said}within {paper}"
    low, high = (factor * loss.desirable_weight / share for factor in (1, 4 / 3))
    return f"{said}outside of {paper}; `model.loss.desirable_weight` in [{low:.3g}, {high:.3g}] would be within"

"""Mixtures of preference losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.ops.token_statistics import Statistic


@dataclass(frozen=True)
class WeightedSum(PreferenceLoss):
    r"""A mixture :math:`\sum_i w_i \ell_i`, such as MPO: 0.8 DPO + 0.2 BCO + 1 NLL.

    That mixture is Wang et al.'s, 2024, "Enhancing the Reasoning Ability of MLLMs via MPO" (arXiv 2411.10442).

    It couples pairs if a part does. The terms of a coupled part belong to quantiles rather than pairs (AOT), so only
    the mean over the window has a meaning then.

    Attributes:
        losses: The parts, at least one.
        weights: One number for each, finite and >= 0.

    Raises:
        ValueError: The two do not fit together, a weight is out of range, or a part couples pairs, which are handed
            over as sums, while another reads single tokens.

    Example:
        >>> from lit_align.losses.preference.nll import ChosenNLLLoss
        >>> from lit_align.losses.preference.sigmoid import SigmoidLoss
        >>> WeightedSum((SigmoidLoss(), ChosenNLLLoss()), (0.8, 1.0)).needs_reference
        True
        >>> WeightedSum((ChosenNLLLoss(),), (0.8, 1.0))
        Traceback (most recent call last):
        ValueError: there are 1 losses and 2 weights
    """

    losses: tuple[PreferenceLoss, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.losses) != len(self.weights):
            raise ValueError(f"there are {len(self.losses)} losses and {len(self.weights)} weights")
        if not self.losses:
            raise ValueError("losses must hold at least one loss, got none")
        for loss, weight in zip(self.losses, self.weights, strict=True):
            if not isinstance(loss, PreferenceLoss):
                raise ValueError(f"losses must be PreferenceLosses, got {loss!r}")
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"weights must be finite and >= 0, got {weight!r} for {loss!r}")
        coupled = [loss for loss in self.losses if loss.couples_pairs]
        by_token = [loss for loss in self.losses if loss.needs_tokens]
        if coupled and by_token:
            raise ValueError(
                f"{coupled[0]!r} couples pairs, which are handed over as sums, and {by_token[0]!r} reads single tokens"
            )

    @property
    def needs_reference(self) -> bool:  # noqa: D102
        return any(loss.needs_reference for loss in self.losses)

    @property
    def couples_pairs(self) -> bool:  # noqa: D102
        return any(loss.couples_pairs for loss in self.losses)

    @property
    def needs_tokens(self) -> bool:  # noqa: D102
        return any(loss.needs_tokens for loss in self.losses)

    @property
    def statistics(self) -> Sequence[Statistic]:  # noqa: D102
        return tuple(dict.fromkeys(name for loss in self.losses for name in loss.statistics))

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        parts = zip(self.losses, self.weights, strict=True)
        return torch.stack([weight * loss(scores) for loss, weight in parts]).sum(0)

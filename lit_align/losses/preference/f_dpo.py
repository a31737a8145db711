r"""f-DPO: DPO whose anchor to the reference is another f-divergence than the reverse KL.

The optimal policy under a penalty :math:`\beta D_f(\pi ‖ \pi_{ref})` has the reward
:math:`\beta f'(\pi(y|x) / \pi_{ref}(y|x))` plus a term of the prompt alone, so :math:`f'` of the ratio takes the place
of the log-ratio. Wang et al. 2023, "Beyond Reverse KL", Table 1 (arXiv 2309.16240).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import (
    DifferenceLoss,
    PairScores,
    PreferenceLoss,
    require_difference_of_sums,
)

LARGEST_EXPONENT = 80.0
"""Where the exponential goes on as its tangent: the paper is silent, and TRL is flat from there on."""


@dataclass(frozen=True)
class FDivergence(ABC):
    """An f-divergence, by what it makes of a log-ratio."""

    @abstractmethod
    def score(self, log_ratios: Tensor) -> Tensor:
        """:math:`f'(e^s)` of each log-ratio :math:`s`, up to a constant; rises with it."""


@dataclass(frozen=True)
class ReverseKL(FDivergence):
    r"""KL(policy ‖ reference): :math:`s`, plain DPO.

    Example:
        >>> import torch
        >>> ReverseKL().score(torch.tensor([2.0]))
        tensor([2.])
    """

    def score(self, log_ratios: Tensor) -> Tensor:  # noqa: D102
        return log_ratios


@dataclass(frozen=True)
class ForwardKL(FDivergence):
    r"""KL(reference ‖ policy): :math:`1 - e^{-s}`.

    Beyond :math:`s = -80` it goes on as its tangent, so that an answer that fell far still has a gradient that says up.

    Example:
        >>> import torch
        >>> ForwardKL().score(torch.tensor([0.0, math.log(2)]))
        tensor([0.0000, 0.5000])
    """

    def score(self, log_ratios: Tensor) -> Tensor:  # noqa: D102
        return 1 - _exp(-log_ratios)


@dataclass(frozen=True)
class JensenShannon(FDivergence):
    r"""Jensen-Shannon: :math:`\log\frac{2}{1 + e^{-s}}`; at most log 2.

    Example:
        >>> import torch
        >>> JensenShannon().score(torch.tensor([0.0, 100.0]))
        tensor([0.0000, 0.6931])
    """

    def score(self, log_ratios: Tensor) -> Tensor:  # noqa: D102
        return math.log(2) + logsigmoid(log_ratios)


@dataclass(frozen=True)
class AlphaDivergence(FDivergence):
    r"""Alpha: :math:`(1 - e^{-\alpha s}) / \alpha`; between the reverse KL (to 0) and the forward KL (to 1).

    *Sources disagree:* this is the paper's :math:`\alpha`. TRL's ``f_alpha_divergence_coef`` is :math:`1 - \alpha`.

    Attributes:
        alpha: In (0, 1); 0.3, 0.5 and 0.7 in the paper.

    Raises:
        ValueError: It is outside.

    Example:
        >>> import torch
        >>> AlphaDivergence(0.5).score(torch.tensor([0.0, 2 * math.log(2)]))
        tensor([0., 1.])
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), got {self.alpha!r}")

    def score(self, log_ratios: Tensor) -> Tensor:  # noqa: D102
        return (1 - _exp(-self.alpha * log_ratios)) / self.alpha


@dataclass(frozen=True)
class FDPOLoss(PreferenceLoss):
    r"""f-DPO: ``loss`` of the difference of scores :math:`f'(e^{s_w}) - f'(e^{s_l})`.

    Wang et al. 2023 (arXiv 2309.16240). Only in a difference of the two answers does the normaliser of the
    prompt cancel. A loss of each answer on its own (NCA, BCO, SPPO, APO, AOT) is refused, and so is one that divides
    by length: the normaliser over :math:`n_w` is not the one over :math:`n_l`. TRL 1.16 lets the latter pass.

    Attributes:
        loss: The loss of the difference, such as SigmoidLoss.
        divergence: The divergence that anchors the policy.

    Raises:
        ValueError: The normaliser does not cancel in ``loss``.

    Example:
        >>> from lit_align.losses.preference.ipo import IPOLoss
        >>> FDPOLoss(IPOLoss())
        Traceback (most recent call last):
        ValueError: loss must be one of a difference of sums, such as SigmoidLoss, got IPOLoss(...)
        >>> FDPOLoss(IPOLoss(reduction="sum")).divergence
        JensenShannon()
    """

    loss: DifferenceLoss
    divergence: FDivergence = JensenShannon()

    def __post_init__(self) -> None:
        require_difference_of_sums(self.loss)
        if not isinstance(self.divergence, FDivergence):
            raise ValueError(f"divergence must be an FDivergence, got {self.divergence!r}")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        score = self.divergence.score
        return self.loss.of_difference(score(scores.chosen.log_ratios) - score(scores.rejected.log_ratios))


def _exp(x: Tensor) -> Tensor:
    """The exponential, and its tangent from :data:`LARGEST_EXPONENT` on."""
    return x.clamp(max=LARGEST_EXPONENT).exp() * (1 + (x - LARGEST_EXPONENT).relu())

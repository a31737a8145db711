r"""DPO and what it becomes where some labels are wrong.

:math:`d` is the difference of the log-ratios, :math:`\log\frac{\pi(y_w|x)}{\pi_{ref}(y_w|x)} -
\log\frac{\pi(y_l|x)}{\pi_{ref}(y_l|x)}`, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import DifferenceLoss
from lit_align.losses.preference.ranges import require_positive, require_smoothing


@dataclass(frozen=True)
class SigmoidLoss(DifferenceLoss):
    r"""DPO, and conservative DPO (cDPO) where labels are smoothed.

    .. math:: -(1-\epsilon) \log\sigma(\beta d) - \epsilon \log\sigma(-\beta d)

    Rafailov et al. 2023, Eq. 7 (arXiv 2305.18290); with smoothing Mitchell 2023, Eq. 3 ("A note on DPO with noisy
    preferences & relationship to IPO", ericmitchell.ai/cdpo.pdf): its gradient is 0 once :math:`\sigma(\beta d) =
    1-\epsilon`. TRL has no cDPO; its ``label_smoothing`` acts in other losses.

    Attributes:
        beta: Inverse temperature, > 0: how dear it is to leave the reference. 0.1 in the paper.
        label_smoothing: Assumed share of swapped labels, in [0, 0.5).

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> SigmoidLoss(beta=0.1).of_difference(torch.tensor([0.0, 10.0]))  # log 2, log(1 + 1/e)
        tensor([0.6931, 0.3133])
    """

    beta: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        require_smoothing(self.label_smoothing)

    def of_difference(self, difference: Tensor) -> Tensor:  # noqa: D102
        return smoothed_sigmoid(self.beta * difference, self.label_smoothing)


@dataclass(frozen=True)
class RobustLoss(DifferenceLoss):
    r"""Robust DPO: an unbiased estimate of the DPO loss under correct labels, from labels swapped at a known rate.

    .. math:: \frac{-(1-\epsilon) \log\sigma(\beta d) + \epsilon \log\sigma(-\beta d)}{1 - 2\epsilon}

    Ray Chowdhury, Kini and Natarajan 2024, "Provably Robust DPO", section 3.1 (arXiv 2403.00409). Not bounded below: a
    pair with a very large :math:`\beta d` has a negative loss.

    Attributes:
        beta: Inverse temperature, > 0.
        label_smoothing: Known share of swapped labels, in [0, 0.5); 0.1 in the paper, 0 is DPO.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> RobustLoss(beta=1.0, label_smoothing=0.25).of_difference(torch.tensor([0.0, 4.0]))
        tensor([ 0.6931, -1.9819])
    """

    beta: float = 0.1
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        require_smoothing(self.label_smoothing)

    def of_difference(self, difference: Tensor) -> Tensor:  # noqa: D102
        u, swapped = self.beta * difference, self.label_smoothing
        return ((swapped - 1) * logsigmoid(u) + swapped * logsigmoid(-u)) / (1 - 2 * swapped)


def smoothed_sigmoid(u: Tensor, label_smoothing: float) -> Tensor:
    r"""The logistic loss of a scaled difference :math:`u` under smoothed labels."""
    return (label_smoothing - 1) * logsigmoid(u) - label_smoothing * logsigmoid(-u)

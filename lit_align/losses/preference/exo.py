"""EXO: the policy's own distribution over the two answers, held against the labels'."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import DifferenceLoss
from lit_align.losses.preference.ranges import require_positive


@dataclass(frozen=True)
class EXOPairLoss(DifferenceLoss):
    r"""EXO on pairs: the reverse KL from the policy's choice to the smoothed label, where DPO has the forward one.

    .. math:: \sigma(\beta d)\,[\log\sigma(\beta d) - \log(1-\epsilon)]
        + \sigma(-\beta d)\,[\log\sigma(-\beta d) - \log\epsilon]

    Ji et al. 2024, "Towards Efficient Exact Optimization of Language Model Alignment", Eq. 16 (arXiv 2402.00856).

    Attributes:
        beta: Inverse temperature, > 0.
        label_smoothing: Probability that a label is wrong, in (0, 0.5); 0 would make the KL infinite. 1e-3 in the
            paper.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> EXOPairLoss(beta=1.0, label_smoothing=0.25).of_difference(torch.tensor([0.0, 4.0]).double())
        tensor([0.1438, 0.2173], dtype=torch.float64)
    """

    beta: float = 0.1
    label_smoothing: float = 1e-3

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        if not 0 < self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in (0, 0.5), got {self.label_smoothing!r}")

    def of_difference(self, difference: Tensor) -> Tensor:  # noqa: D102
        u = self.beta * difference
        first = u.sigmoid() * (logsigmoid(u) - math.log1p(-self.label_smoothing))
        return first + (-u).sigmoid() * (logsigmoid(-u) - math.log(self.label_smoothing))

"""IPO: the difference is regressed onto a fixed margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lit_align.losses.preference.contract import DifferenceLoss
from lit_align.losses.preference.ranges import require_positive


@dataclass(frozen=True)
class IPOLoss(DifferenceLoss):
    r"""IPO: a squared distance, so that certain labels do not drive the difference to infinity.

    .. math:: \left(h - \tfrac{1}{2\beta}\right)^2, \qquad
        h = \frac{s_w}{n_w} - \frac{s_l}{n_l} \;\text{(mean)}, \quad h = s_w - s_l \;\text{(sum)}

    with :math:`s` an answer's log-ratio and :math:`n` its tokens. Azar et al. 2023, Eq. 17 (arXiv 2310.12036), where
    :math:`\beta` is called :math:`\tau`. *Sources disagree:* the equation has sums, as have Mitchell's reference code
    and OpenRLHF; TRL and LLaMA-Factory divide by length, and TRL reports that the authors confirmed this as what their
    experiments did. The default follows the latter. The two scales differ by the length of an answer: a ``beta`` for
    the one is not a ``beta`` for the other.

    Attributes:
        beta: Half the reciprocal of the target margin, > 0: nats a token (mean) or an answer (sum).
        reduction: ``mean`` log-ratio by token, or ``sum`` over the answer.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> IPOLoss(beta=0.1).of_difference(torch.tensor([0.0, 5.0, 6.0]))  # the target is 5
        tensor([25.,  0.,  1.])
    """

    beta: float = 0.1
    reduction: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        if self.reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be mean or sum, got {self.reduction!r}")

    @property
    def length_normalized(self) -> bool:  # noqa: D102
        return self.reduction == "mean"

    def of_difference(self, difference: Tensor) -> Tensor:  # noqa: D102
        return (difference - 1 / (2 * self.beta)) ** 2

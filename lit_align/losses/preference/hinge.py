"""The hinge loss on log-ratios."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lit_align.losses.preference.contract import DifferenceLoss
from lit_align.losses.preference.ranges import require_positive


@dataclass(frozen=True)
class HingeLoss(DifferenceLoss):
    r"""Hinge: a pair is done with once its difference reaches the margin :math:`1/\beta`.

    .. math:: \max(0, 1 - \beta d)

    Zhao et al. 2023, SLiC-HF (arXiv 2305.10425), on ratios to a reference as in Liu et al. 2023, RSO
    (arXiv 2309.06657, hinge-norm).

    Attributes:
        beta: Reciprocal of the margin in nats, > 0; 0.05 in RSO.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> HingeLoss(beta=0.05).of_difference(torch.tensor([0.0, 10.0, 30.0]))
        tensor([1.0000, 0.5000, 0.0000])
    """

    beta: float = 0.05

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def of_difference(self, difference: Tensor) -> Tensor:  # noqa: D102
        return (1 - self.beta * difference).relu()

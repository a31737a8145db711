"""DiscoPOP: a loss that a language model found."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import DifferenceLoss
from lit_align.losses.preference.ranges import require_positive


@dataclass(frozen=True)
class DiscoPOPLoss(DifferenceLoss):
    r"""DiscoPOP, the log-ratio modulated loss: logistic for negative differences, exponential for positive ones.

    .. math:: -(1 - m)\log\sigma(u) + m\, e^{-u}, \qquad u = \beta d, \quad m = \sigma(u / \tau)

    Lu et al. 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models", Eq. 5
    (arXiv 2406.08414). Not convex: near 0 it has a local optimum. The second term is computed as
    :math:`\exp(\log\sigma(u/\tau) - u)`, which is finite for every :math:`u`; the product is 0 times infinity where
    the pair is far on the wrong side.

    Attributes:
        beta: Inverse temperature, > 0; 0.05 in the paper.
        tau: Temperature of the blend, in (0, 1]; above 1 the loss itself is unbounded exponentially. 0.05 in the paper.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> DiscoPOPLoss().of_difference(torch.tensor([0.0]))  # (log 2 + 1) / 2
        tensor([0.8466])
    """

    beta: float = 0.05
    tau: float = 0.05

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        if not 0 < self.tau <= 1:
            raise ValueError(f"tau must be in (0, 1], got {self.tau!r}")

    def of_difference(self, difference: Tensor) -> Tensor:  # noqa: D102
        u = self.beta * difference
        blend = u / self.tau
        return (logsigmoid(blend) - u).exp() - (-blend).sigmoid() * logsigmoid(u)

"""Chi-squared preference optimization: DPO with a heavier anchor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_positive

LOWEST, HIGHEST = -88.0, 20.0
"""Range of the exponent, as in the authors' experiments."""


@dataclass(frozen=True)
class ChiPOLoss(PreferenceLoss):
    r"""Chi-PO: the anchor is the KL plus the chi-squared divergence, which over-optimisation cannot escape.

    .. math:: -\log\sigma\left(\operatorname{clip}_{[-2R, 2R]}\,\beta\,[\phi(s_w) - \phi(s_l)]\right), \qquad
        \phi(s) = e^s + s

    with :math:`s` an answer's log-ratio. Huang et al. 2024, "Correcting the Mythos of KL-Regularization",
    Algorithm 1 (arXiv 2407.13399). The exponent is clipped to [-88, 20], as the authors report for their experiments
    (recalled, not checked against the text): there the gradient is that of the linear term alone. A pair beyond
    :math:`2R` has no gradient, which is what the algorithm says.

    Attributes:
        beta: Inverse temperature, > 0.
        max_reward: The paper's :math:`R_{max}`, a bound on the true reward, > 0; infinite leaves the difference as
            it is.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> one = torch.tensor([1])
        >>> chosen = AnswerScores.of_sums(torch.tensor([0.0]), torch.tensor([0.0]), one)
        >>> rejected = AnswerScores.of_sums(torch.tensor([-100.0]), torch.tensor([0.0]), one)
        >>> ChiPOLoss(beta=1.0, max_reward=0.5)(PairScores(chosen, rejected))  # log(1 + 1/e)
        tensor([0.3133], dtype=torch.float64)
    """

    beta: float = 0.1
    max_reward: float = math.inf

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        if not self.max_reward > 0:
            raise ValueError(f"max_reward must be > 0, got {self.max_reward!r}")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        difference = self.beta * (_link(scores.chosen.log_ratios) - _link(scores.rejected.log_ratios))
        return -logsigmoid(difference.clamp(-2 * self.max_reward, 2 * self.max_reward))


def _link(log_ratios: Tensor) -> Tensor:
    r""":math:`\phi(s) = e^s + s`, the exponent clipped."""
    return log_ratios.clamp(LOWEST, HIGHEST).exp() + log_ratios

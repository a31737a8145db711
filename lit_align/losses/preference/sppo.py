"""SPPO: each answer's log-ratio is regressed onto its win rate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_positive


@dataclass(frozen=True)
class SPPOHardLoss(PreferenceLoss):
    r"""SPPO with hard labels: the chosen answer wins with probability 1, the rejected one with 0.

    .. math:: \left(s_w - \tfrac{1}{2\beta}\right)^2 + \left(s_l + \tfrac{1}{2\beta}\right)^2

    with :math:`s` an answer's log-ratio. Wu et al. 2024, "Self-Play Preference Optimization", Eq. 4.7 with
    :math:`\eta = 1/\beta` (arXiv 2405.00675). The value starts at :math:`1/(2\beta^2)`, half a million at the paper's
    beta, and the gradient is as large: clip it, or take a larger beta.

    Attributes:
        beta: Reciprocal of the paper's :math:`\eta`, > 0; 1e-3 there.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> same = AnswerScores.of_sums(torch.tensor([-3.0]), torch.tensor([-3.0]), torch.tensor([2]))
        >>> SPPOHardLoss(beta=0.1)(PairScores(same, same))
        tensor([50.], dtype=torch.float64)
    """

    beta: float = 1e-3

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        target = 1 / (2 * self.beta)
        return (scores.chosen.log_ratios - target) ** 2 + (scores.rejected.log_ratios + target) ** 2

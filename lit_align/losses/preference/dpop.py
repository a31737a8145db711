"""DPOP (Smaug): DPO that does not let the chosen answer fall."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_nonnegative, require_positive


@dataclass(frozen=True)
class DPOPLoss(PreferenceLoss):
    r"""DPO-Positive: a penalty wherever the chosen answer is less likely than under the reference.

    .. math:: -\log\sigma\left(\beta\,[d - \lambda \max(0, -s_w)]\right)

    with :math:`s_w` the chosen answer's log-ratio. Pal et al. 2024, "Smaug: Fixing Failure Modes of Preference
    Optimisation with DPO-Positive", Eq. 3 (arXiv 2402.13228).

    Attributes:
        beta: Inverse temperature, > 0; 0.3 in the paper.
        penalty: The paper's :math:`\lambda`, >= 0; 50 in the paper, 0 is DPO.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> fell = AnswerScores.of_sums(torch.tensor([-4.0]), torch.tensor([-3.0]), torch.tensor([2]))
        >>> DPOPLoss(beta=1.0, penalty=2.0)(PairScores(fell, fell))  # log(1 + e^2)
        tensor([2.1269], dtype=torch.float64)
    """

    beta: float = 0.3
    penalty: float = 50.0

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        require_nonnegative(self, "penalty")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        fall = (-scores.chosen.log_ratios).relu()
        return -logsigmoid(self.beta * (scores.log_ratio_difference - self.penalty * fall))

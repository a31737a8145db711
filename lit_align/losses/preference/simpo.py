"""SimPO: the reward is the policy's own log-prob by token; there is no reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_positive


@dataclass(frozen=True)
class SimPOLoss(PreferenceLoss):
    r"""SimPO: no reference, rewards by token, and a target margin.

    .. math:: -\log\sigma\left(\frac{\beta}{n_w}\log\pi(y_w|x) - \frac{\beta}{n_l}\log\pi(y_l|x) - \gamma\right)

    Meng et al. 2024, Eq. 6 (arXiv 2405.14734). :math:`\gamma` is the paper's and TRL's ``simpo_gamma``; the authors'
    code has ``gamma_beta_ratio`` :math:`= \gamma / \beta`.

    Attributes:
        beta: Scale of the reward, > 0; 2 to 10 in the paper.
        gamma: Target margin of the rewards; 0.1 to 0.8 times beta in the paper.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> chosen = AnswerScores.of_sums(torch.tensor([-2.0]), None, torch.tensor([4]))
        >>> rejected = AnswerScores.of_sums(torch.tensor([-3.0]), None, torch.tensor([2]))
        >>> SimPOLoss(beta=2.0, gamma=1.0)(PairScores(chosen, rejected))  # log(1 + 1/e)
        tensor([0.3133], dtype=torch.float64)
    """

    beta: float = 2.0
    gamma: float = 1.0
    needs_reference = False

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        if not math.isfinite(self.gamma):
            raise ValueError(f"gamma must be finite, got {self.gamma!r}")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        return -logsigmoid(self.beta * (scores.chosen.mean_logps - scores.rejected.mean_logps) - self.gamma)

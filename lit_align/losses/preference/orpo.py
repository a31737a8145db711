"""ORPO: the NLL of the chosen answer plus the odds ratio of the two; there is no reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_nonnegative

CERTAIN = -1e-7
"""A mean log-prob above this is float32's rounding of a certain answer, whose odds are infinite."""


@dataclass(frozen=True)
class ORPOLoss(PreferenceLoss):
    r"""ORPO: fine-tuning and preference in one stage.

    .. math:: -a_w - \lambda \log\sigma\left(\log\frac{e^{a_w}}{1 - e^{a_w}} - \log\frac{e^{a_l}}{1 - e^{a_l}}\right)

    with :math:`a` an answer's log-prob by token. Hong et al. 2024, Eq. 6 and 7 (arXiv 2403.07691). *Sources disagree on
    the NLL:* the paper's is of the answer; the authors' code and TRL train the prompt as well, and average over the
    tokens of a micro-batch. This follows the paper, and pairs count the same.

    Attributes:
        coef: The paper's :math:`\lambda`, >= 0 (TRL calls it ``beta``); 0.1 in the paper.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> same = AnswerScores.of_sums(torch.tensor([-3.0]), None, torch.tensor([2]))
        >>> ORPOLoss(coef=1.0)(PairScores(same, same))  # 1.5 + log 2
        tensor([2.1931], dtype=torch.float64)
    """

    coef: float = 0.1
    needs_reference = False

    def __post_init__(self) -> None:
        require_nonnegative(self, "coef")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        chosen, rejected = scores.chosen.mean_logps, scores.rejected.mean_logps
        return -chosen - self.coef * logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def _log_odds(log_p: Tensor) -> Tensor:
    """``log(p / (1 - p))``; expm1 keeps the digits of ``1 - p`` where p is close to 1."""
    log_p = log_p.clamp(max=CERTAIN)
    return log_p - torch.log(-torch.expm1(log_p))

"""NCA: noise contrastive alignment, which holds each answer's own reward down as well as their order."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_positive


@dataclass(frozen=True)
class NCAPairLoss(PreferenceLoss):
    r"""NCA on pairs: raises the chosen answer's own likelihood, where DPO may let both fall.

    .. math:: -\log\sigma(\beta s_w) - \tfrac12 \log\sigma(-\beta s_w) - \tfrac12 \log\sigma(-\beta s_l)

    with :math:`s` an answer's log-ratio. Chen et al. 2024, "Noise Contrastive Alignment of Language Models with
    Explicit Rewards", section 4.1 (arXiv 2402.05369).

    Attributes:
        beta: Inverse temperature, > 0; 0.01 in the paper.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> same = AnswerScores.of_sums(torch.tensor([-3.0]), torch.tensor([-3.0]), torch.tensor([2]))
        >>> NCAPairLoss()(PairScores(same, same))  # 2 log 2
        tensor([1.3863], dtype=torch.float64)
    """

    beta: float = 0.01

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        chosen, rejected = self.beta * scores.chosen.log_ratios, self.beta * scores.rejected.log_ratios
        return -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2

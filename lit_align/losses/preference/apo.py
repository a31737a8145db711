"""APO: anchored preference optimization, which says where each likelihood shall go, not only their order."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_positive


@dataclass(frozen=True)
class APOZeroLoss(PreferenceLoss):
    r"""APO-zero: chosen up, rejected down; for chosen answers that are better than what the model writes.

    .. math:: 1 - \sigma(\beta s_w) + \sigma(\beta s_l)

    with :math:`s` an answer's log-ratio. D'Oosterlinck et al. 2024, Eq. 7 (arXiv 2408.06266), with the constant 1
    that TRL adds, so that it is never negative.

    Attributes:
        beta: Inverse temperature, > 0; 0.1 in the paper.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> same = AnswerScores.of_sums(torch.tensor([-3.0]), torch.tensor([-3.0]), torch.tensor([2]))
        >>> APOZeroLoss()(PairScores(same, same))
        tensor([1.], dtype=torch.float64)
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        return (-self.beta * scores.chosen.log_ratios).sigmoid() + (self.beta * scores.rejected.log_ratios).sigmoid()


@dataclass(frozen=True)
class APODownLoss(PreferenceLoss):
    r"""APO-down: both down, rejected further; for chosen answers that are worse than what the model writes.

    .. math:: \sigma(\beta s_w) + 1 - \sigma(\beta (s_w - s_l))

    with :math:`s` an answer's log-ratio. D'Oosterlinck et al. 2024, Eq. 8 (arXiv 2408.06266), with the constant 1
    that TRL adds.

    Attributes:
        beta: Inverse temperature, > 0; 0.1 in the paper.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> same = AnswerScores.of_sums(torch.tensor([-3.0]), torch.tensor([-3.0]), torch.tensor([2]))
        >>> APODownLoss()(PairScores(same, same))
        tensor([1.], dtype=torch.float64)
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        down = (self.beta * scores.chosen.log_ratios).sigmoid()
        return down + (-self.beta * scores.log_ratio_difference).sigmoid()

"""The NLL of the chosen answers, alone (for mixtures) and beside DPO."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_nonnegative, require_positive


@dataclass(frozen=True)
class ChosenNLLLoss(PreferenceLoss):
    r"""NLL of the chosen answer by token, :math:`-\frac{1}{n_w} \log\pi(y_w|x)`: a part for :class:`WeightedSum`.

    Every pair counts the same. TRL's ``sft`` averages over the tokens of its micro-batch, where a long answer counts
    for more and accumulation changes the weights.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> answers = AnswerScores.of_sums(torch.tensor([-3.0]), None, torch.tensor([2]))
        >>> ChosenNLLLoss()(PairScores(answers, answers))
        tensor([1.5000], dtype=torch.float64)
    """

    needs_reference = False

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        return -scores.chosen.mean_logps


@dataclass(frozen=True)
class RPOLoss(PreferenceLoss):
    r"""RPO: DPO plus the NLL of the chosen answer, so that it does not fall with the rejected one.

    .. math:: -\log\sigma(\beta d) - \frac{\alpha}{n_w} \log\pi(y_w|x)

    Pang et al. 2024, "Iterative Reasoning Preference Optimization", Eq. 1 (arXiv 2404.19733; from its third version on
    :math:`\alpha` weighs the NLL). The NLL is the mean over the answer's tokens, and pairs count the same: see
    :class:`ChosenNLLLoss`.

    Attributes:
        beta: Inverse temperature, > 0; 0.1 in the paper.
        alpha: Weight of the NLL, >= 0; 1 in the paper, 0 is DPO.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> same = AnswerScores.of_sums(torch.tensor([-3.0]), torch.tensor([-3.0]), torch.tensor([2]))
        >>> RPOLoss()(PairScores(same, same))  # log 2 + 1.5
        tensor([2.1931], dtype=torch.float64)
    """

    beta: float = 0.1
    alpha: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        require_nonnegative(self, "alpha")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        return -logsigmoid(self.beta * scores.log_ratio_difference) - self.alpha * scores.chosen.mean_logps

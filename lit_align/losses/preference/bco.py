"""BCO: a classifier that tells chosen from rejected answers by their rewards, each on its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_positive


@dataclass(frozen=True)
class BCOPairLoss(PreferenceLoss):
    r"""BCO on pairs without the reward shift: an upper bound of DPO's loss.

    .. math:: -\log\sigma(\beta s_w) - \log\sigma(-\beta s_l)

    with :math:`s` an answer's log-ratio. Jung et al. 2024, "Binary Classifier Optimization", section 4 with
    :math:`\delta = 0` (arXiv 2404.04656). *Sources disagree:* this is TRL's ``bco_pair``; the paper and LLaMA-Factory
    subtract :math:`\delta`, see :class:`ShiftedBCOPairLoss`.

    Attributes:
        beta: Inverse temperature, > 0.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> same = AnswerScores.of_sums(torch.tensor([-3.0]), torch.tensor([-3.0]), torch.tensor([2]))
        >>> BCOPairLoss()(PairScores(same, same))  # 2 log 2
        tensor([1.3863], dtype=torch.float64)
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        return -logsigmoid(self.beta * scores.chosen.log_ratios) - logsigmoid(-self.beta * scores.rejected.log_ratios)


@dataclass(frozen=True)
class ShiftedBCOPairLoss(PreferenceLoss):
    r"""BCO on pairs with the reward shift: the boundary between the two classes lies at the mean reward.

    .. math:: -\log\sigma(\beta s_w - \delta) - \log\sigma(-(\beta s_l - \delta)), \qquad
        \delta = \tfrac12 \left(\overline{\beta s_w} + \overline{\beta s_l}\right)

    Jung et al. 2024, section 4 (arXiv 2404.04656). :math:`\delta` has no gradient. *Sources differ:* the
    paper and LLaMA-Factory estimate it by a moving average over steps, which is a state that a resumed run needs;
    here it is the mean over the pairs of the window, the same number for every split into forests and ranks.

    Attributes:
        beta: Inverse temperature, > 0.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> chosen = AnswerScores.of_sums(torch.tensor([4.0]), torch.tensor([0.0]), torch.tensor([2]))
        >>> rejected = AnswerScores.of_sums(torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([2]))
        >>> ShiftedBCOPairLoss(beta=1.0)(PairScores(chosen, rejected))  # 2 log(1 + 1/e)
        tensor([0.6265], dtype=torch.float64)
    """

    beta: float = 0.1
    couples_pairs = True

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        chosen, rejected = self.beta * scores.chosen.log_ratios, self.beta * scores.rejected.log_ratios
        shift = torch.cat([chosen, rejected]).detach().mean()
        return -logsigmoid(chosen - shift) - logsigmoid(shift - rejected)

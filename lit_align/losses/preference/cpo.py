"""CPO: contrastive preference optimization, DPO under a uniform reference, with an NLL."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_nonnegative, require_positive


@dataclass(frozen=True)
class CPOLoss(PreferenceLoss):
    r"""CPO: no reference, and the NLL of the chosen answer as a regulariser.

    .. math:: -\log\sigma(\beta [\log\pi(y_w|x) - \log\pi(y_l|x)]) - \frac{\alpha}{n_w} \log\pi(y_w|x)

    Xu et al. 2024, Eq. 3 for the first term (arXiv 2401.08417). *Sources disagree on the NLL:* the paper's is the sum
    over the answer, TRL's the mean over the tokens of its micro-batch; here it is the mean over the answer's tokens,
    which no split into batches changes.

    Attributes:
        beta: Inverse temperature, > 0; 0.1 in the paper.
        alpha: Weight of the NLL, >= 0; 1 in the paper.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> same = AnswerScores.of_sums(torch.tensor([-3.0]), None, torch.tensor([2]))
        >>> CPOLoss()(PairScores(same, same))  # log 2 + 1.5
        tensor([2.1931], dtype=torch.float64)
    """

    beta: float = 0.1
    alpha: float = 1.0
    needs_reference = False

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        require_nonnegative(self, "alpha")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        preference = -logsigmoid(self.beta * (scores.chosen.logps - scores.rejected.logps))
        return preference - self.alpha * scores.chosen.mean_logps

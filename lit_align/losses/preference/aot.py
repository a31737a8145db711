"""AOT: alignment by optimal transport, which compares sorted rewards of a whole window."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lit_align.losses.preference.contract import PairScores, PreferenceLoss
from lit_align.losses.preference.ranges import require_positive, require_smoothing
from lit_align.losses.preference.sigmoid import smoothed_sigmoid


@dataclass(frozen=True)
class AOTLoss(PreferenceLoss):
    r"""AOT for paired data: the policy's margins shall dominate the reference's in distribution, quantile by quantile.

    .. math:: -(1-\epsilon)\log\sigma(\beta u_k) - \epsilon\log\sigma(-\beta u_k), \qquad
        u_k = \operatorname{sort}(\log\pi(y_w) - \log\pi(y_l))_k
        - \operatorname{sort}(\log\pi_{ref}(y_w) - \log\pi_{ref}(y_l))_k

    Melnyk et al. 2024, "Distributional Preference Alignment of LLMs via Optimal Transport", section 3
    (arXiv 2406.05882); smoothing as in TRL. Sorted is the whole window over all forests and ranks; over a single pair
    the sort does nothing and AOT is DPO. The result is in the order of the quantiles, not of the pairs.

    Attributes:
        beta: Inverse temperature, > 0.
        label_smoothing: Assumed share of swapped labels, in [0, 0.5).

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> n, zero = torch.tensor([1, 1]), torch.tensor([0.0, 0.0])
        >>> chosen = AnswerScores.of_sums(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), n)
        >>> rejected = AnswerScores.of_sums(zero, zero, n)
        >>> AOTLoss()(PairScores(chosen, rejected))  # the same margins, at other pairs: log 2
        tensor([0.6931, 0.6931], dtype=torch.float64)
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    couples_pairs = True

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        require_smoothing(self.label_smoothing)

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        margins = scores.chosen.logps - scores.rejected.logps
        reference = scores.chosen.reference_logps - scores.rejected.reference_logps
        return smoothed_sigmoid(self.beta * (margins.sort().values - reference.sort().values), self.label_smoothing)


@dataclass(frozen=True)
class UnpairedAOTLoss(PreferenceLoss):
    r"""AOT for unpaired data: rewards of chosen answers shall dominate those of rejected ones, quantile by quantile.

    .. math:: -(1-\epsilon)\log\sigma(\beta u_k) - \epsilon\log\sigma(-\beta u_k), \qquad
        u_k = \operatorname{sort}(s_w)_k - \operatorname{sort}(s_l)_k

    with :math:`s` an answer's log-ratio. Melnyk et al. 2024, section 3 (arXiv 2406.05882); the rest as for
    :class:`AOTLoss`.

    Attributes:
        beta: Inverse temperature, > 0.
        label_smoothing: Assumed share of swapped labels, in [0, 0.5).

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> import torch
        >>> from lit_align.losses.preference.contract import AnswerScores
        >>> n, zero = torch.tensor([1, 1]), torch.tensor([0.0, 0.0])
        >>> chosen = AnswerScores.of_sums(torch.tensor([3.0, 1.0]), zero, n)
        >>> rejected = AnswerScores.of_sums(torch.tensor([1.0, 3.0]), zero, n)
        >>> UnpairedAOTLoss()(PairScores(chosen, rejected))  # sorted they are the same: log 2
        tensor([0.6931, 0.6931], dtype=torch.float64)
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    couples_pairs = True

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        require_smoothing(self.label_smoothing)

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        difference = scores.chosen.log_ratios.sort().values - scores.rejected.log_ratios.sort().values
        return smoothed_sigmoid(self.beta * difference, self.label_smoothing)

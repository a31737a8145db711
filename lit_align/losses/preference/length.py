"""DPO that does not reward length: by tokens, by a penalty, or by discounting the longer answer's tail."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.losses.preference.contract import (
    AnswerScores,
    DifferenceLoss,
    PairScores,
    PreferenceLoss,
    require_difference_of_sums,
)
from lit_align.losses.preference.ranges import require_nonnegative, require_positive


@dataclass(frozen=True)
class LengthNormalizedSigmoidLoss(DifferenceLoss):
    r"""DPO-norm: DPO on log-ratios a token.

    .. math:: -\log\sigma\left(\beta \left[\frac{s_w}{n_w} - \frac{s_l}{n_l}\right]\right)

    with :math:`s` an answer's log-ratio and :math:`n` its tokens. Lambert et al. 2024, Tülu 3
    (arXiv 2411.15124); open-instruct's default, TRL's ``sigmoid_norm``.

    Attributes:
        beta: Inverse temperature, > 0. It multiplies nats a token: 5 in Tülu 3, where DPO has 0.1.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> n = torch.tensor([4])
        >>> chosen = AnswerScores.of_sums(torch.tensor([-1.0]), torch.tensor([-2.0]), n)
        >>> rejected = AnswerScores.of_sums(torch.tensor([-2.0]), torch.tensor([-1.0]), n)
        >>> LengthNormalizedSigmoidLoss(beta=2.0)(PairScores(chosen, rejected))  # log(1 + 1/e)
        tensor([0.3133], dtype=torch.float64)
    """

    beta: float = 5.0
    length_normalized = True

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def of_difference(self, difference: Tensor) -> Tensor:  # noqa: D102
        return -logsigmoid(self.beta * difference)


@dataclass(frozen=True)
class RDPOLoss(PreferenceLoss):
    r"""R-DPO: DPO whose reward is the human's less a price on every token.

    .. math:: -\log\sigma\left(\beta d + \alpha (n_w - n_l)\right)

    Park et al. 2024, "Disentangling Length from Quality in DPO" (arXiv 2403.19159), with the sign of its derivation:
    the policy that is optimal for :math:`r - \alpha n` has :math:`r = \beta s + \alpha n` plus a constant, so a chosen
    answer that is longer by itself explains part of the preference, and the policy has less to learn from it. Table 3
    of SimPO (arXiv 2405.14734) has the same sign.

    Attributes:
        beta: Inverse temperature, > 0.
        alpha: Price of a token, nats, >= 0; 0 is DPO.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> chosen = AnswerScores.of_sums(torch.tensor([-3.0]), torch.tensor([-3.0]), torch.tensor([30]))
        >>> rejected = AnswerScores.of_sums(torch.tensor([-3.0]), torch.tensor([-3.0]), torch.tensor([20]))
        >>> RDPOLoss(alpha=0.1)(PairScores(chosen, rejected))  # log(1 + 1/e)
        tensor([0.3133], dtype=torch.float64)
    """

    beta: float = 0.1
    alpha: float = 0.01

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        require_nonnegative(self, "alpha")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        longer = scores.chosen.lengths - scores.rejected.lengths
        return -logsigmoid(self.beta * scores.log_ratio_difference + self.alpha * longer)


@dataclass(frozen=True)
class LDDPOLoss(PreferenceLoss):
    r"""LD-DPO: what the longer answer says after the shorter one has ended counts :math:`\alpha` times.

    .. math:: s = \sum_{t \le n} s_t + \alpha \sum_{t > n} s_t, \qquad n = \min(n_w, n_l)

    with :math:`s_t` a token's log-ratio; these take the place of the sums in ``loss``. Liu et al. 2024, "Length
    Desensitization in Direct Preference Optimization" (arXiv 2409.06411). *Sources disagree:* TRL discounts policy and
    reference, LLaMA-Factory the policy alone. This follows TRL: otherwise the reference's whole tail would stand
    against a discounted one, and a policy equal to its reference would not have a log-ratio of 0. (The paper's own
    equation could not be consulted.) Shared is the *length*; the answers need not begin alike.

    Attributes:
        loss: The loss of the difference, such as SigmoidLoss.
        alpha: Weight of a token beyond the shared length, in [0, 1]; 0.5 in the paper, 1 is ``loss`` itself.

    Raises:
        ValueError: A field is outside its range, or ``loss`` is not one of a difference of sums.

    Example:
        >>> from lit_align.losses.preference.sigmoid import SigmoidLoss
        >>> LDDPOLoss(SigmoidLoss(), alpha=1.5)
        Traceback (most recent call last):
        ValueError: alpha must be in [0, 1], got 1.5
    """

    loss: DifferenceLoss
    alpha: float = 0.5
    needs_tokens = True

    def __post_init__(self) -> None:
        require_difference_of_sums(self.loss)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {self.alpha!r}")

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        if not (scores.chosen.has_tokens and scores.rejected.has_tokens):
            raise ValueError("LDDPOLoss needs the log-prob of every token, and only sums are known")
        shared = torch.minimum(scores.chosen.lengths, scores.rejected.lengths)
        return self.loss.of_difference(
            self._discounted(scores.chosen, shared) - self._discounted(scores.rejected, shared)
        )

    def _discounted(self, answers: AnswerScores, shared: Tensor) -> Tensor:
        """Log-ratio of each answer with its tail discounted, ``(P,)``."""
        front = answers.positions < shared[answers.pairs]
        ratios = answers.token_log_ratios
        return answers.sums(torch.where(front, ratios, self.alpha * ratios))

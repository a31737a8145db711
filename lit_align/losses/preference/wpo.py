"""WPO: pairs count as much as the policy would have written them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lit_align.losses.preference.contract import AnswerScores, PairScores, PreferenceLoss
from lit_align.ops.token_statistics import Statistic


@dataclass(frozen=True)
class WPOLoss(PreferenceLoss):
    r"""WPO: ``loss`` times the weights of both answers, so that off-policy pairs count less.

    .. math:: w(x, y_w)\, w(x, y_l)\, \ell, \qquad
        w(x, y) = \exp \frac1n \sum_t \left[\log\pi(y_t) - \log \textstyle\sum_v \pi(v)^2\right]

    Zhou et al. 2024, "WPO: Enhancing RLHF with Weighted Preference Optimization", Eq. 2
    (arXiv 2406.11827). The weights have no gradient. *Sources disagree:* this is TRL's; open-instruct takes
    :math:`\min(1, \exp \frac1n \sum_t \log\pi(y_t))`, without the alignment.

    Attributes:
        loss: What is weighted, such as SigmoidLoss; not one that couples pairs, whose terms belong to no single pair.

    Raises:
        ValueError: ``loss`` couples pairs.

    Example:
        >>> from lit_align.losses.preference.aot import AOTLoss
        >>> from lit_align.losses.preference.sigmoid import SigmoidLoss
        >>> WPOLoss(SigmoidLoss()).statistics
        ('log_sum_squares',)
        >>> WPOLoss(AOTLoss())
        Traceback (most recent call last):
        ValueError: WPO weighs single pairs, and AOTLoss(...) couples them
    """

    loss: PreferenceLoss
    needs_tokens = True

    def __post_init__(self) -> None:
        if not isinstance(self.loss, PreferenceLoss):
            raise ValueError(f"loss must be a PreferenceLoss, got {self.loss!r}")
        if self.loss.couples_pairs:
            raise ValueError(f"WPO weighs single pairs, and {self.loss!r} couples them")

    @property
    def needs_reference(self) -> bool:  # noqa: D102
        return self.loss.needs_reference

    @property
    def statistics(self) -> Sequence[Statistic]:  # noqa: D102
        return tuple(dict.fromkeys(("log_sum_squares", *self.loss.statistics)))

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        return self.loss(scores) * _weights(scores.chosen) * _weights(scores.rejected)


def _weights(answers: AnswerScores) -> Tensor:
    """Weight of each answer, without gradient, ``(P,)``."""
    if "log_sum_squares" not in answers.statistics:
        raise ValueError("WPOLoss needs the statistic log_sum_squares of every token, and it was not given")
    aligned = answers.token_logps.detach().double() - answers.statistics["log_sum_squares"].double()
    return (answers.sums(aligned) / answers.lengths).exp()

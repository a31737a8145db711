r"""What a good or a bad answer costs, each on its own: losses on unpaired preference data.

An answer's log-ratio is :math:`s = \log\frac{\pi(y|x)}{\pi_{ref}(y|x)}`, in nats, summed over its tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align.losses.preference.ranges import require_positive


@dataclass(frozen=True)
class UnpairedLoss(ABC):
    """A loss on rated answers: a frozen dataclass whose fields are its hyper-parameters; it has no state.

    A subclass overrides a property with a plain class attribute (with an annotation it would be a field).
    """

    @property
    def needs_reference(self) -> bool:
        """Whether log-probs of a reference are read; of all losses here they are."""
        return True

    @property
    def needs_reference_point(self) -> bool:
        """Whether the reference point is read; no mismatched answer is scored in training otherwise."""
        return True

    @property
    def reward_scale(self) -> float:
        r"""Factor of a log-ratio in the rewards that are logged: :math:`\beta`, or 1 for a loss without one."""
        return float(getattr(self, "beta", 1.0))

    @abstractmethod
    def __call__(self, log_ratios: Tensor, desirable: Tensor, point: Tensor) -> Tensor:
        """The loss of each answer, float64, ``(R,)``, differentiable with respect to the log-ratios.

        Args:
            log_ratios: Of each answer, nats, float64, ``(R,)``.
            desirable: Whether it is a good one, bool, ``(R,)``.
            point: The reference point of the window, see :func:`reference_point`; a scalar.
        """


@dataclass(frozen=True)
class KTOLoss(UnpairedLoss):
    r"""KTO: a good answer shall gain on the reference by more than the policy has moved at large, a bad one by less.

    .. math:: \lambda_D\,(1 - \sigma(\beta(s - z_0))) \text{ for a good answer}, \qquad
        \lambda_U\,(1 - \sigma(\beta(z_0 - s))) \text{ for a bad one}

    Ethayarajh et al. 2024, "KTO: Model Alignment as Prospect Theoretic Optimization", section 4 (arXiv 2402.01306).
    :math:`z_0` is :func:`reference_point`, over the whole window and all ranks, without gradient; TRL takes it over a
    batch of one forward pass. The loss saturates on both sides: an answer far from the boundary has no gradient, so
    that wrong labels do less harm than in DPO.

    Attributes:
        beta: Inverse temperature, > 0; 0.1 in the paper.
        desirable_weight: :math:`\lambda_D`, > 0.
        undesirable_weight: :math:`\lambda_U`, > 0. The paper's advice is a ratio :math:`\lambda_D n_D / \lambda_U n_U`
            in [1, 4/3] for :math:`n_D` good and :math:`n_U` bad answers; the log says at the start what it is.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> ratios, good = torch.tensor([2.0, 2.0]).double(), torch.tensor([True, False])
        >>> KTOLoss(beta=1.0)(ratios, good, torch.tensor(2.0))  # both at the boundary
        tensor([0.5000, 0.5000], dtype=torch.float64)
        >>> KTOLoss(beta=1.0, undesirable_weight=2.0)(ratios, good, torch.tensor(0.0))  # 1 - σ(2), 2 σ(2)
        tensor([0.1192, 1.7616], dtype=torch.float64)
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "beta", "desirable_weight", "undesirable_weight")

    def __call__(self, log_ratios: Tensor, desirable: Tensor, point: Tensor) -> Tensor:  # noqa: D102
        excess = log_ratios - point.detach()
        good = self.desirable_weight * (-self.beta * excess).sigmoid()
        bad = self.undesirable_weight * (self.beta * excess).sigmoid()
        return torch.where(desirable, good, bad)


@dataclass(frozen=True)
class APOZeroUnpairedLoss(UnpairedLoss):
    r"""APO-zero on single answers: KTO with the reference point at 0.

    .. math:: 1 - \sigma(\beta s) \text{ for a good answer}, \qquad \sigma(\beta s) \text{ for a bad one}

    D'Oosterlinck et al. 2024, Eq. 7 (arXiv 2408.06266), each answer on its own as in TRL's ``apo_zero_unpaired``; for
    good answers that are better than what the model writes. No mismatched answer is scored.

    Attributes:
        beta: Inverse temperature, > 0; 0.1 in the paper.
        desirable_weight: Factor of the loss of a good answer, > 0.
        undesirable_weight: Factor of the loss of a bad one, > 0.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> ratios, good = torch.tensor([2.0, 2.0]).double(), torch.tensor([True, False])
        >>> APOZeroUnpairedLoss(beta=1.0)(ratios, good, torch.tensor(2.0))
        tensor([0.1192, 0.8808], dtype=torch.float64)
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    needs_reference_point = False

    def __post_init__(self) -> None:
        require_positive(self, "beta", "desirable_weight", "undesirable_weight")

    def __call__(self, log_ratios: Tensor, desirable: Tensor, point: Tensor) -> Tensor:  # noqa: D102
        at_zero = KTOLoss(self.beta, self.desirable_weight, self.undesirable_weight)
        return at_zero(log_ratios, desirable, torch.zeros_like(point))


def reference_point(log_ratio_sum: Tensor, count: Tensor) -> Tensor:
    r"""KTO's reference point, an estimate of how far the policy is from the reference at large.

    .. math:: z_0 = \max\left(0, \frac1m \sum_{i=1}^m \log\frac{\pi(y'_i|x_i)}{\pi_{ref}(y'_i|x_i)}\right)

    with :math:`y'_i` an answer to another prompt than :math:`x_i`. Ethayarajh et al. 2024, section 4 (arXiv
    2402.01306): a biased estimate of :math:`KL(\pi \| \pi_{ref})` that needs no sampling, for an answer that is no
    answer shows what the policy does to any text.

    Args:
        log_ratio_sum: Log-ratios of the mismatched answers of a window, added up over forests and ranks, nats.
        count: Their number; 0 gives 0.

    Returns:
        Nats by answer, >= 0, a scalar without gradient.

    Example:
        >>> sums = torch.tensor([6.0, -6.0])
        >>> [float(reference_point(one, torch.tensor(4.0))) for one in sums]
        [1.5, 0.0]
    """
    return (log_ratio_sum.detach() / count.clamp(min=1)).clamp(min=0)

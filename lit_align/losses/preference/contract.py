r"""What a preference loss is given, and what it gives back.

A pair is a prompt :math:`x` with a chosen answer :math:`y_w` and a rejected one :math:`y_l`. A loss sees log-probs
alone, and returns one number a pair; whoever calls it divides by the number of pairs of the whole window.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lit_align.ops.token_statistics import Statistic


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """The tokens of one side (all chosen, or all rejected answers) of some pairs.

    Attributes:
        token_logps: Policy's log-prob of each answer token, nats, ``(N,)``, differentiable.
        reference_token_logps: The reference's, ``(N,)``, without gradient; None where no reference was run.
        pairs: For each token the number of its pair, ``(N,)``, int64, in ``[0, count)``.
        positions: For each token its place in its answer, from 0, ``(N,)``, int64.
        count: Number of pairs.
        statistics: Further numbers of the policy's distribution at each token, ``(N,)``, without gradient, by name.

    Example:
        >>> scores = AnswerScores.of_sums(torch.tensor([-3.0, -1.0]), torch.tensor([-2.0, -1.5]), torch.tensor([3, 1]))
        >>> scores.log_ratios.tolist(), scores.mean_logps.tolist()
        ([-1.0, 0.5], [-1.0, -1.0])
    """

    token_logps: Tensor
    reference_token_logps: Tensor | None
    pairs: Tensor
    positions: Tensor
    count: int
    statistics: Mapping[Statistic, Tensor] = field(default_factory=dict)
    _lengths: Tensor | None = None

    @classmethod
    def of_sums(cls, logps: Tensor, reference_logps: Tensor | None, lengths: Tensor) -> AnswerScores:
        """Scores of which only the sums are known: each answer stands as one token with its whole log-prob.

        Args:
            logps: Policy's log-prob of each answer, ``(P,)``.
            reference_logps: The reference's, ``(P,)``, or None.
            lengths: Tokens of each answer, ``(P,)``.
        """
        number = torch.arange(len(logps), device=logps.device)
        return cls(logps, reference_logps, number, torch.zeros_like(number), len(logps), {}, lengths.double())

    @property
    def has_tokens(self) -> bool:
        """Whether single tokens are known; after :meth:`of_sums` they are not."""
        return self._lengths is None

    def sums(self, values: Tensor) -> Tensor:
        """Add up one value a token by answer, in float64: ``(N,)`` to ``(P,)``."""
        return values.new_zeros(self.count, dtype=torch.float64).index_add(0, self.pairs, values.double())

    @property
    def lengths(self) -> Tensor:
        """Tokens of each answer, float64, ``(P,)``."""
        if self._lengths is not None:
            return self._lengths
        return self.sums(torch.ones_like(self.token_logps).detach())

    @property
    def logps(self) -> Tensor:
        """Policy's log-prob of each answer, nats, float64, ``(P,)``."""
        return self.sums(self.token_logps)

    @property
    def mean_logps(self) -> Tensor:
        """Policy's log-prob of each answer by token, nats, float64, ``(P,)``."""
        return self.logps / self.lengths

    @property
    def reference_logps(self) -> Tensor:
        """The reference's log-prob of each answer, nats, float64, ``(P,)``.

        Raises:
            ValueError: No reference was run.
        """
        return self.sums(self._reference())

    @property
    def log_ratios(self) -> Tensor:
        """Log-prob of each answer, policy less reference, nats, float64, ``(P,)``.

        Token by token first: the sums of a long answer are large and their difference may be small.

        Raises:
            ValueError: No reference was run.
        """
        return self.sums(self.token_log_ratios)

    @property
    def token_log_ratios(self) -> Tensor:
        """Log-prob of each token, policy less reference, nats, float64, ``(N,)``.

        Raises:
            ValueError: No reference was run.
        """
        return self.token_logps.double() - self._reference().double()

    def _reference(self) -> Tensor:
        if self.reference_token_logps is None:
            raise ValueError("this loss compares with a reference, and none was run")
        return self.reference_token_logps


@dataclass(frozen=True, eq=False)
class PairScores:
    """Scores of both sides of the same pairs.

    Attributes:
        chosen: Scores of the chosen answers.
        rejected: Scores of the rejected answers.
    """

    chosen: AnswerScores
    rejected: AnswerScores

    @property
    def log_ratio_difference(self) -> Tensor:
        """Log-ratio of the chosen answer less that of the rejected one, nats, float64, ``(P,)``."""
        return self.chosen.log_ratios - self.rejected.log_ratios


@dataclass(frozen=True)
class PreferenceLoss(ABC):
    """A loss on pairs: a frozen dataclass whose fields are its hyper-parameters; it has no state.

    What a loss needs is read from an instance. A subclass overrides a property with a plain class attribute
    (``needs_reference = False``; with an annotation it would be a field), or with a property where it depends on
    fields.

    Example:
        >>> @dataclass(frozen=True)
        ... class UnlikelihoodLoss(PreferenceLoss):
        ...     needs_reference = False
        ...     def __call__(self, scores):
        ...         return scores.rejected.mean_logps
        >>> UnlikelihoodLoss().needs_reference, UnlikelihoodLoss().couples_pairs
        (False, False)
    """

    @property
    def needs_reference(self) -> bool:
        """Whether log-probs of a reference are read; the reference is not run otherwise."""
        return True

    @property
    def couples_pairs(self) -> bool:
        """Whether the loss of one pair depends on others.

        All pairs of the window, over all forests and ranks, are then handed over at once, as sums
        (:meth:`AnswerScores.of_sums`).
        """
        return False

    @property
    def needs_tokens(self) -> bool:
        """Whether single tokens are read, beyond the sum and the length of each answer."""
        return bool(self.statistics)

    @property
    def statistics(self) -> Sequence[Statistic]:
        """What is read of :attr:`AnswerScores.statistics`."""
        return ()

    @property
    def reward_scale(self) -> float:
        r"""Factor of a log-ratio in the rewards that are logged: :math:`\beta`, or 1 for a loss without one."""
        return float(getattr(self, "beta", 1.0))

    @abstractmethod
    def __call__(self, scores: PairScores) -> Tensor:
        """The loss of each pair, float64, ``(P,)``, differentiable with respect to the policy's log-probs.

        Args:
            scores: Log-probs of the pairs.
        """


@dataclass(frozen=True)
class DifferenceLoss(PreferenceLoss):
    """A loss of one number a pair: the log-ratio of the chosen answer less that of the rejected one.

    What depends on the prompt alone, such as the normaliser of a DPO reward, cancels in that number.
    """

    @property
    def length_normalized(self) -> bool:
        """Whether each answer's log-ratio is first divided by its tokens; the normaliser then no longer cancels."""
        return False

    @abstractmethod
    def of_difference(self, difference: Tensor) -> Tensor:
        """The loss of each pair from its difference, nats, float64, ``(P,)``."""

    def __call__(self, scores: PairScores) -> Tensor:  # noqa: D102
        if not self.length_normalized:
            return self.of_difference(scores.log_ratio_difference)
        chosen, rejected = scores.chosen, scores.rejected
        return self.of_difference(chosen.log_ratios / chosen.lengths - rejected.log_ratios / rejected.lengths)


def require_difference_of_sums(loss: PreferenceLoss) -> None:
    """Refuse a loss in which a term that both answers share would not cancel.

    Raises:
        ValueError: It takes each answer on its own, or divides each by its length.
    """
    if not isinstance(loss, DifferenceLoss) or loss.length_normalized:
        raise ValueError(f"loss must be one of a difference of sums, such as SigmoidLoss, got {loss!r}")

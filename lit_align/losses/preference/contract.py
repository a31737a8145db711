r"""What a preference loss is given, and what it gives back.

A pair is a prompt :math:`x` with a chosen answer :math:`y_w` and a rejected one :math:`y_l`. A loss sees log-probs
alone, and returns one number a pair; whoever calls it divides by the number of pairs of the whole window.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

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
        return self.sums(self.token_logps.double() - self._reference().double())

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

    Attributes:
        needs_reference: Whether log-probs of a reference are read; the reference is not run otherwise.
        couples_pairs: Whether the loss of one pair depends on others. All pairs of the window, over all forests and
            ranks, are then handed over at once, as sums (:meth:`AnswerScores.of_sums`).
        statistics: What is read of :attr:`AnswerScores.statistics`.
    """

    needs_reference: ClassVar[bool] = True
    couples_pairs: ClassVar[bool] = False
    statistics: ClassVar[Sequence[Statistic]] = ()

    @abstractmethod
    def __call__(self, scores: PairScores) -> Tensor:
        """The loss of each pair, float64, ``(P,)``, differentiable with respect to the policy's log-probs.

        Args:
            scores: Log-probs of the pairs.
        """

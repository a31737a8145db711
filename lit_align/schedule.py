"""Learning-rate schedules: a factor of the optimizer's rate as a pure function of the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Schedule(ABC):
    """Linear warm-up, then the shape of the subclass.

    After the warm-up the factors are those of transformers' schedules of the same names. In it they are one step
    ahead: there the first step has a rate of 0 and changes nothing.

    Attributes:
        warmup_steps: Optimizer steps of the warm-up, >= 0; the first step has ``1 / warmup_steps`` of the rate.
        warmup_ratio: The warm-up as a share of all steps, in [0, 1); given instead of ``warmup_steps``.

    Raises:
        ValueError: A value is out of its range, or both forms of the warm-up are given.
    """

    warmup_steps: int = 0
    warmup_ratio: float = 0.0

    needs_total: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"`schedule.warmup_steps` must be >= 0, got {self.warmup_steps}")
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(f"`schedule.warmup_ratio` must be in [0, 1), got {self.warmup_ratio}")
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError(
                f"give `schedule.warmup_steps` ({self.warmup_steps}) or `schedule.warmup_ratio` "
                f"({self.warmup_ratio}), not both"
            )

    def uses_total(self) -> bool:
        """Whether the factor depends on the number of steps of the run."""
        return self.needs_total or self.warmup_ratio > 0

    def factor(self, step: int, total: int) -> float:
        """Factor of the learning rate.

        Args:
            step: Optimizer steps done, from 0.
            total: Optimizer steps of the whole run.

        Returns:
            A number in [0, 1].
        """
        warmup = self.warmup_steps or math.ceil(self.warmup_ratio * total)
        if step < warmup:
            return (step + 1) / warmup
        return self.shape(min(1.0, (step - warmup) / max(1, total - warmup)))

    @abstractmethod
    def shape(self, progress: float) -> float:
        """Factor after the warm-up, ``progress`` going from 0 to 1."""


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """Half a cosine from 1 down to ``floor`` (Loshchilov and Hutter 2017, arXiv:1608.03983, Eq. 5, no restarts).

    Attributes:
        floor: Factor at the end, in [0, 1].

    Example:
        >>> schedule = CosineSchedule(warmup_steps=2)
        >>> [round(schedule.factor(step, 6), 3) for step in range(7)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.floor <= 1:
            raise ValueError(f"`schedule.floor` must be in [0, 1], got {self.floor}")

    def shape(self, progress: float) -> float:
        """See :class:`Schedule`."""
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """A straight line from 1 down to 0.

    Example:
        >>> [LinearSchedule().factor(step, 4) for step in range(5)]
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def shape(self, progress: float) -> float:
        """See :class:`Schedule`."""
        return 1 - progress


@dataclass(frozen=True)
class ConstantSchedule(Schedule):
    """The optimizer's own rate after the warm-up; the one schedule that does not depend on the length of the run.

    Example:
        >>> [ConstantSchedule(warmup_steps=4).factor(step, 0) for step in (0, 1, 3, 99)]
        [0.25, 0.5, 1.0, 1.0]
    """

    needs_total: ClassVar[bool] = False

    def shape(self, progress: float) -> float:
        """See :class:`Schedule`."""
        del progress
        return 1.0

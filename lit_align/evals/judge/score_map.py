"""From a reward to a score of 1 to 10: by a calibration, or as the original did."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from lit_align.evals.judge.calibration import Calibration, read_calibration

LOWEST, HIGHEST = 1.0, 10.0


class ScoreMap(ABC):
    """Makes scores of 1 to 10 of rewards; a frozen dataclass whose fields are the options of the YAML.

    Attributes:
        measure: What the score is called beside the reward.
    """

    measure: ClassVar[str]

    @abstractmethod
    def check(self, fingerprint: str) -> None:
        """Refuse what cannot be used for a reward model.

        Args:
            fingerprint: Of the reward model: of its weights and its chat template.

        Raises:
            ValueError: A file is broken, or made for another reward model.
        """

    @abstractmethod
    def identity(self) -> str:
        """What must be the same for two scores to be compared."""

    @abstractmethod
    def score(self, reward: float) -> float:
        """The score of a reward, from 1 to 10."""


@dataclass(frozen=True)
class CalibratedMap(ScoreMap):
    """The score ``1 + 9 · sigmoid((reward − mu) / s)`` with mu and s of a calibration.

    Strictly increasing, so that no order of two rewards is turned round; 5.5 at mu, where good and bad are balanced.

    Args:
        path: The file that ``lit-align calibrate`` wrote for this reward model.
    """

    measure: ClassVar[str] = "score"

    path: str

    def check(self, fingerprint: str) -> None:
        """See :meth:`ScoreMap.check`."""
        made_for = self._calibration.fingerprint
        if made_for != fingerprint:
            raise ValueError(
                f"{self.path}: calibrates the reward model {self._calibration.reward_model} with fingerprint "
                f"{made_for}, and this one has {fingerprint}: run `lit-align calibrate` for it"
            )

    def identity(self) -> str:
        """Both numbers."""
        return f"mu={self._calibration.mu!r} s={self._calibration.s!r}"

    def score(self, reward: float) -> float:
        """See :meth:`ScoreMap.score`."""
        return self._calibration.score(reward)

    @cached_property
    def _calibration(self) -> Calibration:
        return read_calibration(self.path)


@dataclass(frozen=True)
class LegacyMap(ScoreMap):
    """The map of the original recipes, to reproduce their figures; not fit to compare anything with.

    It falls by 4.5 at a reward of 0 and by 7.2 just above 1, so better answers can score lower: see :func:`legacy_map`.
    """

    measure: ClassVar[str] = "legacy_score"

    def check(self, fingerprint: str) -> None:
        """Nothing: it takes any reward."""
        del fingerprint

    def identity(self) -> str:
        """Its name."""
        return "legacy"

    def score(self, reward: float) -> float:
        """See :func:`legacy_map`."""
        return legacy_map(reward)


def legacy_map(reward: float) -> float:
    """Score of the original recipes: ``clip(1 + 9 n, 1, 10)`` with n piecewise in the reward r.

    n = (r + 5) / 10 below 0, r from 0 to 1, and min(1, r / 5) above 1: neither continuous nor monotone.

    Args:
        reward: Any number.

    Example:
        >>> [round(legacy_map(reward), 2) for reward in (-5, -0.01, 0, 1, 1.01, 5)]
        [1.0, 5.49, 1.0, 10.0, 2.82, 10.0]
    """
    share = (reward + 5) / 10 if reward < 0 else reward if reward <= 1 else min(1.0, reward / 5)
    return min(max(LOWEST + (HIGHEST - LOWEST) * share, LOWEST), HIGHEST)

"""What a reference is: the policy's own weights with other adapters active."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lit_align.models.policy import Policy


class Reference(ABC):
    """What the policy is compared with: which adapters are active while it computes."""

    def check(self, base: str) -> None:  # noqa: B027  most references need nothing
        """Refuse what can be seen to be wrong before weights or data are read; nothing by default.

        Args:
            base: As ``model.base``.
        """

    def attach(self, policy: Policy) -> None:  # noqa: B027  most references need nothing
        """Load what the reference needs into the policy, once, before anything is computed; nothing by default."""

    def identity(self) -> str:
        """What a resumed run must share: the settings, and what the files hold that they name."""
        return repr(self)

    @abstractmethod
    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """Make ``policy`` compute as the reference inside the block, without gradient.

        Everything is as it was afterwards, also after an exception: active adapters, ``requires_grad``, train or
        eval mode, random number generators.
        """

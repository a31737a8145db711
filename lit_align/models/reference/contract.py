"""What a reference is: the policy's own weights with other adapters active."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lit_align.forest import TokenForest, Window
from lit_align.ops.frozen_head import token_logps

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from lit_align.models.loading import LoRA
    from lit_align.models.policy import Policy


class Reference(ABC):
    """What the policy is compared with: which adapters are active while it computes.

    Attributes:
        frozen: Whether it stays as it is while the policy is trained.
    """

    # Without an annotation: jsonargparse evaluates inherited ones among the names of the subclass's file, and where one
    # is not there it takes any value for every option of that class.
    frozen = True

    def check(self, base: str, lora: LoRA) -> None:  # noqa: B027  most references need nothing
        """Refuse what can be seen to be wrong before weights or data are read; nothing by default.

        Args:
            base: As ``model.base``.
            lora: As ``model.lora``.
        """

    def attach(self, policy: Policy) -> None:  # noqa: B027  most references need nothing
        """Load what the reference needs into the policy, once, before anything is computed; nothing by default."""

    def after_window(self, policy: Policy, windows: int) -> dict[str, float]:
        """Move with the policy, once its optimizer has stepped; nothing by default.

        Args:
            policy: The policy.
            windows: Windows completed, this one included.

        Returns:
            What is to be logged now, by key without ``train/reference/``.
        """
        del policy, windows
        return {}

    def state(self, policy: Policy) -> dict[str, Any]:
        """What a checkpoint must hold beside the live adapter, in tensors and plain types; nothing by default."""
        del policy
        return {}

    def load_state(self, policy: Policy, state: Mapping[str, Any], windows: int, path: str) -> None:  # noqa: B027
        """Take up a state of :meth:`state`; nothing by default.

        Args:
            policy: The policy, to which the reference is attached.
            state: Empty from a run whose reference had none.
            windows: Windows completed when it was saved.
            path: What to call the checkpoint in a message.

        Raises:
            ValueError: It is not the state of such a reference after so many windows.
        """

    def identity(self) -> str:
        """What a resumed run must share: the settings, and what the files hold that they name."""
        return repr(self)

    @abstractmethod
    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """Make ``policy`` compute as the reference inside the block, without gradient.

        Everything is as it was afterwards, also after an exception: active adapters, ``requires_grad``, train or
        eval mode, random number generators.
        """

    def target_logps(self, policy: Policy, forest: TokenForest) -> Tensor:
        """The reference's log-prob of each target of a forest.

        Args:
            policy: The policy that holds it, in whatever mode.
            forest: On the policy's device.

        Returns:
            Nats, shape ``(M,)``, without gradient.
        """
        with self.active(policy):
            hidden = policy.hidden(forest, forest.pair_rows)
        return token_logps(hidden, policy.head, forest.pair_tokens)[forest.target_pairs]

    @property
    def live(self) -> Reference:
        """The reference that computes and keeps nothing: itself, unless it is a cache."""
        return self

    def prepare(  # noqa: B027  most references need nothing
        self, policy: Policy, probe: TokenForest, windows: Iterable[Window]
    ) -> None:
        """Get ready for a run's log-probs, before its first window; nothing by default.

        Args:
            policy: The policy, on its device, under the run's number formats.
            probe: A small forest of the run's examples.
            windows: This rank's windows of one epoch of training.
        """

    def finish(self) -> None:  # noqa: B027  most references need nothing
        """Say at the end of a run what there is to say; nothing by default."""

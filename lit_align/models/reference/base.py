"""The bare base as the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from lit_align.models.reference.adapters import only_adapters
from lit_align.models.reference.contract import Reference

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lit_align.models.policy import Policy


@dataclass(frozen=True)
class BaseReference(Reference):
    """The bare base: all adapters off.

    Raises:
        ValueError: On use, when anything but an adapter is trainable: switched-off adapters would then not give the
            base back.
    """

    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """See :class:`Reference`."""
        refuse_trainable_base(policy)
        return only_adapters(policy, ())


def refuse_trainable_base(policy: nn.Module) -> None:
    """Refuse a policy in which anything but a LoRA adapter is trainable.

    Raises:
        ValueError: Names the first such parameter.
    """
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad and ".lora_" not in name:
            raise ValueError(
                f"parameter `{name}` is trainable but belongs to no LoRA adapter: with adapters off the policy would "
                "not be the base; freeze it"
            )

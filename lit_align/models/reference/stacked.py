"""Some of the adapters that a policy holds as the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lit_align.models.reference.adapters import only_adapters
from lit_align.models.reference.base import refuse_trainable_base
from lit_align.models.reference.contract import Reference

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lit_align.models.policy import Policy


@dataclass(frozen=True)
class StackedReference(Reference):
    """An earlier policy of the run: the base with some of the adapters that the policy holds, frozen.

    It is set by ``StageTransition``, whose stages leave such adapters behind; a run that starts from folders names them
    in ``FrozenAdapterReference``.

    Attributes:
        adapters: Names of the adapters, the lowest first; empty for the bare base.

    Raises:
        ValueError: On use, the policy holds no adapter of such a name.
    """

    adapters: tuple[str, ...]

    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """See :class:`Reference`."""
        refuse_trainable_base(policy)
        # PEFT passes over an adapter that is not there.
        if missing := [name for name in self.adapters if name not in policy.peft.peft_config]:
            raise ValueError(
                f"StackedReference: the policy holds no adapter {missing[0]!r} (it holds "
                f"{', '.join(policy.peft.peft_config)}); stages leave them behind, see StageTransition"
            )
        return only_adapters(policy, self.adapters)

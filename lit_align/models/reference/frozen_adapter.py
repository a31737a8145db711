"""An earlier adapter as the reference, frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lit_align.models.adapter_folder import AdapterFolder
from lit_align.models.reference.adapters import FROZEN, LIVE, copy_factors, only_adapters, train_live_adapter
from lit_align.models.reference.contract import Reference

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lit_align.models.loading import LoRA
    from lit_align.models.policy import Policy


@dataclass(frozen=True)
class FrozenAdapterReference(Reference):
    """The base with a trained adapter that stays as it is; the policy starts as that.

    So a stage of training starts where the last one ended and is compared with it (sDPO, Kim et al. 2024, arXiv
    2403.19270), not with the bare base. The frozen adapter never drops out.

    Attributes:
        path: Folder of a LoRA adapter in PEFT's format, such as ``adapter/`` of another run, or
            ``package:NAME/PATH``, a folder of an installed package.
        init: ``stack`` trains a new adapter, of any shape, on top of the frozen one; the run's own ``adapter/`` holds
            the new one alone, and belongs on top of the earlier one. ``continue`` trains a copy of it, which must have
            its shape (rank, alpha, target modules); the run's own ``adapter/`` is complete.

    Raises:
        FileNotFoundError: On use, when the folder or one of its two files is not there.
        ValueError: On use, when it is no plain LoRA adapter, its weights are cut short or not finite, it does not
            fit the base, or it is to be continued and `model.lora` has another shape.

    Example:
        >>> FrozenAdapterReference("package:lit_align/assets/tiny_qwen3_undecided", init="continue").below
        ()
    """

    path: str
    init: Literal["stack", "continue"] = "stack"

    @property
    def below(self) -> tuple[str, ...]:
        """Names of the adapters under the live one."""
        return (FROZEN,) if self.init == "stack" else ()

    def check(self, base: str, lora: LoRA) -> None:
        """Refuse a folder that holds no plain LoRA adapter of this base, broken weights, or another shape."""
        AdapterFolder(self.path).check(base, lora, continued=self.init == "continue")

    def attach(self, policy: Policy) -> None:
        """Load the adapter, and put the live one on top of it or in its place."""
        folder = AdapterFolder(self.path)
        folder.add_to(policy.peft, FROZEN)
        policy.frozen_adapter = self.path
        if self.init == "continue":
            folder.refuse_other_shape(policy.peft, FROZEN, LIVE)
            copy_factors(policy, FROZEN, LIVE)
        train_live_adapter(policy, self.below)

    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """See :class:`Reference`."""
        # PEFT passes over an adapter that is not there: the bare base would answer in its place.
        if policy.frozen_adapter != self.path:
            raise ValueError(
                f"reference adapter {self.path} is not the one under the policy ({policy.frozen_adapter or 'none'}): "
                "name the same reference here and in `model.reference`"
            )
        return only_adapters(policy, (FROZEN,))

    def identity(self) -> str:
        """What the adapter computes, and where the policy starts; where its files lie does not matter."""
        return f"FrozenAdapterReference({AdapterFolder(self.path).digest()}, init={self.init})"

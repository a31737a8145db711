"""An earlier adapter as the reference, frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from lit_align.models.adapter_folder import AdapterFolder
from lit_align.models.reference.adapters import adapted_layers, only_adapters
from lit_align.models.reference.contract import Reference

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lit_align.models.policy import Policy

_LIVE, _FROZEN = "default", "frozen"  # names of adapters


@dataclass(frozen=True)
class FrozenAdapterReference(Reference):
    """The base with a trained adapter that stays as it is; the policy is that, and the live adapter on top.

    So a stage of training starts where the last one ended and is compared with it (sDPO, Kim et al. 2024, arXiv
    2403.19270), not with the bare base. The frozen adapter never drops out. A run's own ``adapter/`` then holds the
    live adapter alone: it belongs on top of the frozen one.

    Attributes:
        path: Folder of a LoRA adapter in PEFT's format, such as ``adapter/`` of another run, or
            ``package:NAME/PATH``, a folder of an installed package.

    Raises:
        FileNotFoundError: On use, when the folder or one of its two files is not there.
        ValueError: On use, when it is no plain LoRA adapter, its weights are cut short or not finite, or it does not
            fit the base.
    """

    path: str

    def check(self, base: str) -> None:
        """Refuse a folder that holds no plain LoRA adapter of this base, or one of broken weights."""
        AdapterFolder(self.path).check(base)

    def attach(self, policy: Policy) -> None:
        """Load the adapter under the live one."""
        AdapterFolder(self.path).add_to(policy.peft, _FROZEN)
        policy.frozen_adapter = self.path
        for layer in adapted_layers(policy):
            if _FROZEN in layer.lora_dropout:
                layer.lora_dropout[_FROZEN] = nn.Identity()
            layer._active_adapter = [_FROZEN, _LIVE]
        for name, parameter in policy.named_parameters():
            parameter.requires_grad_(f".{_LIVE}." in name and ".lora_" in name)

    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """See :class:`Reference`."""
        # PEFT passes over an adapter that is not there: the bare base would answer in its place.
        if policy.frozen_adapter != self.path:
            raise ValueError(
                f"reference adapter {self.path} is not the one under the policy ({policy.frozen_adapter or 'none'}): "
                "name the same reference here and in `model.reference`"
            )
        return only_adapters(policy, (_FROZEN,))

    def identity(self) -> str:
        """The adapter's weights; where they lie does not matter."""
        return f"FrozenAdapterReference({AdapterFolder(self.path).digest()})"

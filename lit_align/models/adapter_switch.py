"""Which adapters of a policy answer, for a comparison of finished ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lit_align.models.adapter_folder import AdapterFolder
from lit_align.models.reference.adapters import LIVE, adapted_layers, below_live, only_adapters, train_live_adapter

if TYPE_CHECKING:
    from lit_align.models.loading import LoRA
    from lit_align.models.policy import Policy

BASE = "base"
_AGAINST = "against"


@dataclass(frozen=True)
class AdapterSwitch:
    """A finished adapter, or the bare base.

    Attributes:
        path: Folder of a LoRA adapter in PEFT's format, a checkpoint of ours (``NAME.ckpt``, whose folder ``NAME`` lies
            beside it), or ``base``.

    Example:
        >>> AdapterSwitch("base").folder is None
        True
    """

    path: str

    @property
    def folder(self) -> AdapterFolder | None:
        """Where the adapter lies; None for the bare base.

        Raises:
            FileNotFoundError: A checkpoint without the folder that is written with it.
        """
        if self.path == BASE:
            return None
        path = Path(self.path)
        if path.suffix != ".ckpt":
            return AdapterFolder(self.path)
        if not path.with_suffix("").is_dir():
            raise FileNotFoundError(
                f"checkpoint {path}: no folder {path.with_suffix('')} beside it, which holds its adapter in PEFT's "
                "format; give the folder of an adapter"
            )
        return AdapterFolder(str(path.with_suffix("")))

    def check(self, base: str, lora: LoRA) -> None:
        """Refuse an adapter that is broken or does not fit a base, of which the configuration alone is read.

        Args:
            base: As ``model.base``.
            lora: As ``model.lora``.

        Raises:
            FileNotFoundError: There is no adapter.
            ValueError: It is broken or does not fit.
        """
        if (folder := self.folder) is not None:
            folder.check(base, lora)

    @contextmanager
    def active(self, policy: Policy) -> Iterator[None]:
        """Have the policy answer as this adapter inside of the block, in place of the live one.

        What lies under the live adapter stays active, unless it is the bare base that is to answer. The adapter is
        read for the block alone.

        Args:
            policy: The policy.
        """
        folder = self.folder
        if folder is None:
            with only_adapters(policy, ()):
                yield
            return
        below = below_live(policy)
        folder.add_to(policy.peft, _AGAINST)
        try:
            train_live_adapter(policy, below)  # PEFT's adding makes the new one trainable
            with only_adapters(policy, (*below, _AGAINST)):
                yield
        finally:
            policy.peft.delete_adapter(_AGAINST)


def put_in_place_of_live(policy: Policy, folder: AdapterFolder) -> None:
    """Make a finished adapter, of any shape, the live one.

    Args:
        policy: The policy, its reference attached.
        folder: The adapter; what lies under the live one stays under it.

    Raises:
        FileNotFoundError: There is no adapter.
        ValueError: It is broken or does not fit the base.
    """
    below = below_live(policy)
    for layer in adapted_layers(policy):
        layer._active_adapter = below  # or PEFT would warn of another adapter that it makes active
    policy.peft.delete_adapter(LIVE)
    folder.add_to(policy.peft, LIVE)
    train_live_adapter(policy, below)

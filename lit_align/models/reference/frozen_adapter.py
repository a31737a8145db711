"""An earlier adapter, or several on top of one another, as the reference, frozen."""

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
            ``package:NAME/PATH``, a folder of an installed package. A list where each was trained on top of those
            before it, the lowest first: they are one reference together.
        init: ``stack`` trains a new adapter, of any shape, on top of the frozen ones; the run's own ``adapter/`` holds
            the new one alone, and belongs on top of the earlier ones. ``continue`` trains a copy of the uppermost,
            which must have its shape (rank, alpha, target modules); with one path the run's own ``adapter/`` is
            complete.

    Raises:
        FileNotFoundError: On use, when the folder or one of its two files is not there.
        ValueError: The list is empty; on use, when it is no plain LoRA adapter, its weights are cut short or not
            finite, it does not fit the base, or it is to be continued and `model.lora` has another shape.

    Example:
        >>> FrozenAdapterReference("package:lit_align/assets/tiny_qwen3_undecided", init="continue").below
        ()
    """

    path: str | list[str]
    init: Literal["stack", "continue"] = "stack"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("reference.path is empty: name the folder of an adapter")

    @property
    def paths(self) -> tuple[str, ...]:
        """The folders, the lowest adapter first."""
        return (self.path,) if isinstance(self.path, str) else tuple(self.path)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the frozen adapters in the policy, the lowest first."""
        return tuple(FROZEN if place == 0 else f"{FROZEN}-{place + 1}" for place in range(len(self.paths)))

    @property
    def below(self) -> tuple[str, ...]:
        """Names of the adapters under the live one."""
        return self.adapters if self.init == "stack" else self.adapters[:-1]

    def check(self, base: str, lora: LoRA) -> None:
        """Refuse a folder that holds no plain LoRA adapter of this base, broken weights, or another shape."""
        for path in self.paths:
            AdapterFolder(path).check(base, lora, continued=self.init == "continue" and path == self.paths[-1])

    def attach(self, policy: Policy) -> None:
        """Load the adapters, and put the live one on top of them or in the place of the uppermost."""
        for path, name in zip(self.paths, self.adapters, strict=True):
            AdapterFolder(path).add_to(policy.peft, name)
        policy.frozen_adapter = self._named
        if self.init == "continue":
            top = self.adapters[-1]
            AdapterFolder(self.paths[-1]).refuse_other_shape(policy.peft, top, LIVE)
            copy_factors(policy, top, LIVE)
        train_live_adapter(policy, self.below)

    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """See :class:`Reference`."""
        # PEFT passes over an adapter that is not there: the bare base would answer in its place.
        if policy.frozen_adapter != self._named:
            raise ValueError(
                f"reference adapter {self._named} is not the one under the policy ({policy.frozen_adapter or 'none'}): "
                "name the same reference here and in `model.reference`"
            )
        return only_adapters(policy, self.adapters)

    def identity(self) -> str:
        """What the adapter computes, and where the policy starts; where its files lie does not matter."""
        digests = " + ".join(AdapterFolder(path).digest() for path in self.paths)
        return f"FrozenAdapterReference({digests}, init={self.init})"

    @property
    def _named(self) -> str:
        return " + ".join(self.paths)

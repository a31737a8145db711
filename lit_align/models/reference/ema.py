"""A moving average of the policy as the reference."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_align.models.loading import quiet_peft
from lit_align.models.reference.adapters import (
    AVERAGE,
    LIVE,
    copy_factors,
    factors,
    only_adapters,
    train_live_adapter,
)
from lit_align.models.reference.base import BaseReference
from lit_align.models.reference.contract import Reference
from lit_align.models.reference.frozen_adapter import FrozenAdapterReference

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lit_align.models.loading import LoRA
    from lit_align.models.policy import Policy


@dataclass(frozen=True)
class EMAReference(Reference):
    r"""A reference that follows the policy: every so many windows it moves towards it (TR-DPO).

    Gorbatovski et al. 2024, "Learn Your Reference Model for Real Good Alignment" (arXiv 2404.09656), whose update of
    the reference's weights is

    .. math:: \theta_{ref} \leftarrow \alpha \theta + (1 - \alpha) \theta_{ref}:

    soft for :math:`\alpha < 1`, hard, a copy, for :math:`\alpha = 1`. Here the factors A and B of the live adapter are
    averaged, each by itself. That is exact only for :math:`\alpha = 1`: otherwise an average of factors is not the
    average of products. The two differ by :math:`\alpha (1 - \alpha) (B - B_{ref})(A - A_{ref})`, in the Frobenius
    norm over all layers and relative to the average of products logged at each update as ``train/reference/ema_gap``,
    beside the number of updates so far, ``train/reference/updates``.

    At step 0 the average equals the policy. It is never trained and never drops out. Checkpoints hold it; a run's
    ``adapter/`` does not.

    Attributes:
        alpha: Weight of the policy in an update, in (0, 1]. 0.6 in the paper.
        every_n_windows: Windows between updates, at least 1; the n-th update follows on exactly n times as many. 512 in
            the paper (its :math:`\tau`; with :math:`\alpha = 1` also 1,024).
        start: Where policy and average start: ``BaseReference``, or ``FrozenAdapterReference``, whose adapter lies
            under both (``init: stack``) or is what both start as (``init: continue``; the copy that stays as it was
            is kept, so that a benchmark can compare with it). None is the bare base.

    Raises:
        ValueError: A value is out of its range, or `start` is a reference of another kind; on use, as of `start`, or
            the policy is not the one that this average belongs to.

    Example:
        >>> EMAReference(alpha=1.0, every_n_windows=100).identity()
        'EMAReference(alpha=1.0, every_n_windows=100, start=BaseReference())'
    """

    frozen = False

    alpha: float = 0.6
    every_n_windows: int = 512
    start: Reference | None = None

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:  # nan too
            raise ValueError(f"reference.alpha must be in (0, 1], got {self.alpha}")
        if self.every_n_windows < 1:
            raise ValueError(f"reference.every_n_windows must be at least 1, got {self.every_n_windows}")
        if not isinstance(self._start, BaseReference | FrozenAdapterReference):
            raise ValueError(f"reference.start must be a BaseReference or a FrozenAdapterReference, got {self.start}")

    @property
    def _start(self) -> Reference:
        return self.start or BaseReference()

    @property
    def _below(self) -> tuple[str, ...]:
        return self.start.below if isinstance(self.start, FrozenAdapterReference) else ()

    def check(self, base: str, lora: LoRA) -> None:
        """As of `start`."""
        self._start.check(base, lora)

    def attach(self, policy: Policy) -> None:
        """Let the policy start where it shall, and copy its live adapter."""
        self._start.attach(policy)
        with quiet_peft():
            policy.peft.add_adapter(AVERAGE, copy.copy(policy.peft.peft_config[LIVE]))
        copy_factors(policy, LIVE, AVERAGE)
        train_live_adapter(policy, self._below)
        policy.average = repr(self)

    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """See :class:`Reference`."""
        if policy.average != repr(self):
            raise ValueError(
                f"reference {self} is not the average that the policy holds ({policy.average or 'none'}): "
                "name the same reference here and in `model.reference`"
            )
        return only_adapters(policy, (*self._below, AVERAGE))

    @torch.no_grad()
    def after_window(self, policy: Policy, windows: int) -> dict[str, float]:
        """Average, if it is time."""
        if windows % self.every_n_windows:
            return {}
        live, average = factors(policy, LIVE), factors(policy, AVERAGE)
        gap = ema_gap(live, average, self.alpha)
        for name, value in average.items():
            value.mul_(1 - self.alpha).add_(live[name], alpha=self.alpha)
        policy.average_updates += 1
        return {"ema_gap": gap, "updates": float(policy.average_updates)}

    def state(self, policy: Policy) -> dict[str, Any]:
        """The average, and how often it was updated."""
        weights = {name: value.detach() for name, value in factors(policy, AVERAGE).items()}
        return {"updates": policy.average_updates, "weights": weights}

    @torch.no_grad()
    def load_state(self, policy: Policy, state: Mapping[str, Any], windows: int, path: str) -> None:
        """Take up the average."""
        average, saved = factors(policy, AVERAGE), state.get("weights", {})
        due = windows // self.every_n_windows
        problems = [] if state else ["it holds no average: its run had another reference"]
        problems += [f"`{name}` of the average is on one side alone" for name in sorted({*average} ^ {*saved})]
        problems += [
            f"`{name}` of the average has shape {tuple(saved[name].shape)} there, {tuple(average[name].shape)} here"
            for name in sorted({*average} & {*saved})
            if saved[name].shape != average[name].shape
        ]
        if state.get("updates") != due:
            problems.append(
                f"its average was updated {state.get('updates')} times in {windows} windows, and `every_n_windows` = "
                f"{self.every_n_windows} makes {due}"
            )
        if problems:
            raise ValueError(f"{path} does not fit {self}: {problems[0]}; set `model.reference` to that of its run")
        for name, value in average.items():
            value.copy_(saved[name])
        policy.average_updates = due

    def identity(self) -> str:
        """The settings, and what `start` names."""
        every, start = self.every_n_windows, self._start.identity()
        return f"EMAReference(alpha={self.alpha}, every_n_windows={every}, start={start})"


def ema_gap(live: Mapping[str, Tensor], average: Mapping[str, Tensor], alpha: float) -> float:
    r"""How far the average of the factors is from that of the products, relative to the latter.

    With the new :math:`\bar A = \alpha A + (1 - \alpha) A_{ref}`, and :math:`\bar B` alike,

    .. math:: \bar B \bar A - (\alpha B A + (1 - \alpha) B_{ref} A_{ref})
              = -\alpha (1 - \alpha) (B - B_{ref})(A - A_{ref}),

    so nothing cancels; norms of products come from Gram matrices of the rank's size, in float64.

    Args:
        live: Factors of the live adapter, ``…lora_A.weight`` ``(r, in)`` and ``…lora_B.weight`` ``(out, r)``.
        average: Those of the average before the update.
        alpha: Weight of the live ones, in (0, 1].

    Returns:
        The ratio of two Frobenius norms over all layers, >= 0; 0 where both are 0.

    Example:
        >>> live = {"lora_A.weight": torch.tensor([[2.0]]), "lora_B.weight": torch.tensor([[2.0]])}
        >>> old = {"lora_A.weight": torch.tensor([[1.0]]), "lora_B.weight": torch.tensor([[0.0]])}
        >>> ema_gap(live, old, 0.5)  # 1 · 1.5 against (4 + 0) / 2
        0.25
    """
    gap = whole = 0.0
    for name in live:
        if name.endswith("lora_A.weight"):
            other = name.removesuffix("lora_A.weight") + "lora_B.weight"
            a, old_a, b, old_b = (one[key].double() for key in (name, other) for one in (live, average))
            gap += _squared_norm(b - old_b, a - old_a)
            whole += _squared_norm(torch.cat([alpha * b, (1 - alpha) * old_b], dim=1), torch.cat([a, old_a]))
    gap *= (alpha * (1 - alpha)) ** 2
    return math.sqrt(gap / whole) if whole else math.inf if gap else 0.0


def _squared_norm(b: Tensor, a: Tensor) -> float:
    """Of the product: tr(AᵀBᵀBA) = ⟨BᵀB, AAᵀ⟩; rounding alone could make it negative."""
    return max(0.0, float(((b.T @ b) * (a @ a.T)).sum()))

"""Which optimizer trains the adapter, by name, and which of its parameters decay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lit_align.models.bitsandbytes_adamw import bitsandbytes_adamw

ParameterGroup = dict[str, Any]


@dataclass(frozen=True)
class LowMemoryAdamW(ABC):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) of bitsandbytes; bitsandbytes is imported on use.

    Attributes:
        lr: Learning rate, >= 0.
        betas: Decay rates of the averages of the gradient and of its square, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Decoupled decay, >= 0: a matrix shrinks by ``1 - lr * weight_decay`` a step.

    Raises:
        ValueError: A value is out of its range.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "weight_decay"):
            value = getattr(self, name)
            if not value >= 0:  # nan too
                raise ValueError(f"`optimizer.{name}` must be >= 0, got {value}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"`optimizer.betas` must be in [0, 1), got {self.betas}")

    @abstractmethod
    def __call__(self, groups: Iterable[ParameterGroup]) -> Optimizer:
        """The optimizer over these parameter groups."""

    def settings(self) -> dict[str, Any]:
        """The values by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class AdamW8bit(LowMemoryAdamW):
    """Both averages in 8 bits, scaled block by block of 256 (Dettmers et al. 2022, arXiv:2110.02861).

    A parameter of fewer than 4,096 numbers keeps 32 bits.

    Attributes:
        lr: Learning rate, >= 0.
        betas: Decay rates of the averages of the gradient and of its square, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Decoupled decay, >= 0: a matrix shrinks by ``1 - lr * weight_decay`` a step.

    Example:
        >>> AdamW8bit(lr=-1.0)
        Traceback (most recent call last):
        ...
        ValueError: `optimizer.lr` must be >= 0, got -1.0
    """

    def __call__(self, groups: Iterable[ParameterGroup]) -> Optimizer:
        """See :class:`LowMemoryAdamW`."""
        return bitsandbytes_adamw("AdamW8bit", groups, **self.settings())


@dataclass(frozen=True)
class PagedAdamW8bit(LowMemoryAdamW):
    """:class:`AdamW8bit` whose state moves to the host when the GPU is full (Dettmers et al. 2023, arXiv:2305.14314).

    A parameter of fewer than 100,000 numbers is not paged, nor is anything on a CPU, nor the state of a resumed run;
    the numbers are the same.

    Attributes:
        lr: Learning rate, >= 0.
        betas: Decay rates of the averages of the gradient and of its square, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Decoupled decay, >= 0: a matrix shrinks by ``1 - lr * weight_decay`` a step.
    """

    def __call__(self, groups: Iterable[ParameterGroup]) -> Optimizer:
        """See :class:`LowMemoryAdamW`."""
        return bitsandbytes_adamw("PagedAdamW8bit", groups, **self.settings())


@dataclass(frozen=True)
class PagedAdamW32bit(LowMemoryAdamW):
    """AdamW in 32 bits, paged like :class:`PagedAdamW8bit`.

    Attributes:
        lr: Learning rate, >= 0.
        betas: Decay rates of the averages of the gradient and of its square, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Decoupled decay, >= 0: a matrix shrinks by ``1 - lr * weight_decay`` a step.
    """

    def __call__(self, groups: Iterable[ParameterGroup]) -> Optimizer:
        """See :class:`LowMemoryAdamW`."""
        return bitsandbytes_adamw("PagedAdamW32bit", groups, **self.settings())


# Ours first: once bitsandbytes is loaded, its own classes of the same names are optimizers too.
OptimizerFactory = LowMemoryAdamW | Callable[[Iterable[ParameterGroup]], Optimizer]


def decay_groups(named_parameters: Mapping[str, nn.Parameter]) -> list[ParameterGroup]:
    """Parameter groups in which norms and biases, of fewer than two dimensions, do not decay.

    Decay pulls towards zero, which means no effect for a matrix, but not for a norm's scale. Plain LoRA has matrices
    only, and so one group; the frozen base takes no part and never decays.

    Args:
        named_parameters: The trained parameters by name.

    Returns:
        One group for the matrices, and one without decay where there is something for it, in the given order.

    Example:
        >>> groups = decay_groups({"w": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))})
        >>> [(len(group["params"]), group.get("weight_decay")) for group in groups]
        [(1, None), (1, 0.0)]
    """
    decayed = [parameter for parameter in named_parameters.values() if parameter.ndim >= 2]
    kept = [parameter for parameter in named_parameters.values() if parameter.ndim < 2]
    groups: list[ParameterGroup] = []
    if decayed:
        groups.append({"params": decayed})
    if kept:
        groups.append({"params": kept, "weight_decay": 0.0})
    return groups


def at_rate(optimizer: OptimizerFactory, lr: float) -> OptimizerFactory:
    """The same optimizer with another learning rate.

    Example:
        >>> at_rate(PagedAdamW8bit(lr=1e-5), 2e-5)
        PagedAdamW8bit(lr=2e-05, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)
        >>> optimizer_identity(at_rate(torch.optim.SGD, 0.5))["optimizer.lr"]
        '0.5'
    """
    if isinstance(optimizer, LowMemoryAdamW):
        return replace(optimizer, lr=lr)

    def make(groups: Iterable[ParameterGroup]) -> Optimizer:
        made = optimizer(groups)
        for options in (made.defaults, *made.param_groups):
            options["lr"] = lr
        return made

    return make


def optimizer_identity(optimizer: OptimizerFactory) -> dict[str, str]:
    """Name and settings of an optimizer, as a resumed run must share them.

    Example:
        >>> optimizer_identity(PagedAdamW8bit(lr=1e-5))["optimizer"]
        'PagedAdamW8bit'
    """
    if isinstance(optimizer, LowMemoryAdamW):
        name, settings = type(optimizer).__name__, optimizer.settings()
    else:
        made = optimizer([{"params": [nn.Parameter(torch.zeros(1, 1))]}])  # a matrix: Muon takes nothing else
        name, settings = type(made).__name__, made.defaults
    return {"optimizer": name, **{f"optimizer.{key}": repr(value) for key, value in settings.items()}}

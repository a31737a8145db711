"""AdamW of bitsandbytes: state in 8 bits, or in memory that the driver moves between GPU and host."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Literal, cast

from torch.optim import Optimizer

logger = logging.getLogger(__name__)

AdamWName = Literal["AdamW8bit", "PagedAdamW8bit", "PagedAdamW32bit"]


def bitsandbytes_adamw(
    name: AdamWName,
    groups: Iterable[dict[str, Any]],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> Optimizer:
    """Make one of bitsandbytes' AdamW optimizers.

    Paged state lies in CUDA unified memory. On a CPU there is none: the unpaged optimizer, which computes the same
    numbers, takes its place, and one line on the log says so.

    Args:
        name: The optimizer, by the name that bitsandbytes gives it.
        groups: Parameter groups of torch, on their device.
        lr: Learning rate.
        betas: Decay rates of the averages of the gradient and of its square.
        eps: Added to the denominator.
        weight_decay: Decoupled decay; a parameter shrinks by ``1 - lr * weight_decay`` a step.

    Returns:
        The optimizer.

    Raises:
        ImportError: bitsandbytes is not installed.
    """
    import bitsandbytes

    groups = list(groups)
    kind: str = name
    on_cpu = all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])
    if on_cpu and name.startswith("Paged"):
        kind = name.removeprefix("Paged")
        logger.info("%s: a CPU has no paged memory; %s takes its place, with the same numbers", name, kind)
    make = getattr(bitsandbytes.optim, kind)
    return cast(Optimizer, make(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

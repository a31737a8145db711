"""Muon for small matrices on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # https://kellerjordan.github.io/posts/muon/


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of a stack of matrices near one, by Newton-Schulz iterations.

    Args:
        matrices: Shape ``(n, rows, columns)``.
        steps: Iterations.

    Returns:
        A stack of the same shape.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon in float32, all matrices of one shape at once.

    ``torch.optim.Muon`` computes in bfloat16, one matrix after another: four times slower than this on a CPU
    without bfloat16 instructions, and half of a training step of the tiny model.

    Args:
        parameters: Matrices only.
        lr: Learning rate; a tall matrix moves further, by the root of its rows over its columns.
        momentum: Of the average of the gradients; Nesterov's form.
        weight_decay: Decoupled from the gradient.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step; every parameter must have a gradient.

        Args:
            closure: Not supported.

        Raises:
            ValueError: A closure is given.
        """
        if closure is not None:
            raise ValueError("Muon: closures are not supported")
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                directions = orthogonalize(torch.stack([self._averaged(p, group["momentum"]) for p in parameters]))
                length = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-length)

    def _averaged(self, parameter: Tensor, momentum: float) -> Tensor:
        gradient = parameter.grad
        if gradient is None:
            raise ValueError(f"Muon: a parameter of shape {tuple(parameter.shape)} has no gradient")
        average: Tensor = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
        average.lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)

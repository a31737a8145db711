"""A LoRA layer in fewer passes over memory than PEFT's own, and with the same result."""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the field's name for it
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def use_lean_forward(model: nn.Module) -> None:
    r"""Give PEFT's LoRA layers a forward pass that makes and keeps less; all else of them stays PEFT's.

    A layer computes

    .. math:: y = W x + b + \sum_i s_i B_i A_i d_i(x)

    over its active adapters i (Hu et al. 2021, arXiv:2106.09685, equation 3; d is the dropout). PEFT makes three
    tensors of the output's size for each adapter, and in reduced precision keeps casts of x for the backward pass. Here
    the low-rank products are added in place, and x and :math:`s_i A_i d_i(x)` alone are kept. Number formats and the
    draws of the dropout are PEFT's, so the results are its own but for rounding; where B is 0, those of the base to the
    bit.

    What is not known here goes PEFT's way: layers that are not plain linear ones (4-bit weights among them) or whose
    base is trained, merged or switched-off adapters, variants such as DoRA, adapters with a bias.

    Args:
        model: Holds PEFT layers. One that is added later has PEFT's forward pass.
    """
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if type(layer) is Linear and type(layer.get_base_layer()) is nn.Linear:
            layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    names = [] if layer.disable_adapters else [name for name in layer.active_adapters if name in layer.lora_A]
    base = layer.base_layer
    if args or kwargs or layer.merged or not layer.cast_input_dtype_enabled or base.weight.requires_grad or not names:
        return type(layer).forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
    factors: list[Tensor | None] = []
    scales: list[float] = []
    lora_format = layer.lora_A[names[0]].weight.dtype
    for name in names:
        dropout, a, b = layer.lora_dropout[name], layer.lora_A[name].weight, layer.lora_B[name]
        if name in layer.lora_variant or b.bias is not None or a.dtype != lora_format:
            return type(layer).forward(layer, x)  # type: ignore[no-any-return]
        drops = dropout.training and not isinstance(dropout, nn.Identity)
        factors += [dropout(x.to(lora_format)) if drops else None, a, b.weight]
        scales.append(layer.scaling[name])
    formats = (x.dtype, lora_format)
    if torch.is_autocast_enabled(x.device.type):
        formats = (torch.get_autocast_dtype(x.device.type),) * 2
    if not torch.is_grad_enabled():
        return _products(x.to(formats[0]), base.weight, base.bias, formats, scales, factors)[0]
    result: Tensor = _AdaptedLinear.apply(x, base.weight, base.bias, formats, scales, *factors)  # type: ignore[no-untyped-call]
    return result


def _products(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    formats: tuple[torch.dtype, torch.dtype],
    scales: Sequence[float],
    factors: Sequence[Any],
) -> tuple[Tensor, list[Tensor]]:
    """The layer's output, and for each adapter the output of A, scaled."""
    base_format, lora_format = formats
    y = F.linear(x, weight.to(base_format), None if bias is None else bias.to(base_format))
    flat = y.view(-1, y.shape[-1])
    lows = []
    for scale, dropped, a, b in zip(scales, factors[::3], factors[1::3], factors[2::3], strict=True):
        given = x if dropped is None else dropped
        lows.append((_rows(given).to(lora_format) @ a.to(lora_format).t()).mul_(scale))
        _add_product(flat, lows[-1], b.to(lora_format).t())
    return y, lows


class _AdaptedLinear(torch.autograd.Function):
    """Base and adapters of one layer; of each adapter its dropped-out input (None is x itself), A and B."""

    @staticmethod
    def forward(
        ctx: Any,  # torch's own context object has no public type
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        formats: tuple[torch.dtype, torch.dtype],
        scales: Sequence[float],
        *factors: Tensor | None,
    ) -> Tensor:
        x = x.to(formats[0])
        y, lows = _products(x, weight, bias, formats, scales, factors)
        ctx.formats, ctx.scales = formats, scales
        ctx.save_for_backward(x, weight, *lows, *factors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        base_format, lora_format = ctx.formats
        adapters = len(ctx.scales)
        x, weight, *kept = ctx.saved_tensors
        lows, factors = kept[:adapters], kept[adapters:]
        grad = _rows(grad)
        lora_grad = grad.to(lora_format)
        x_grad = grad @ weight.to(base_format) if ctx.needs_input_grad[0] else None
        grads: list[Tensor | None] = []
        for index, (scale, low) in enumerate(zip(ctx.scales, lows, strict=True)):
            dropped, a, b = factors[3 * index : 3 * index + 3]
            for_dropped, for_a, for_b = ctx.needs_input_grad[5 + 3 * index : 8 + 3 * index]
            low_grad = (lora_grad @ b.to(lora_format)).mul_(scale)
            if dropped is None and x_grad is not None:
                _add_product(x_grad, low_grad, a.to(lora_format))
            given = _rows(x if dropped is None else dropped).to(lora_format)
            grads.append((low_grad @ a.to(lora_format)).view(dropped.shape) if for_dropped else None)
            grads.append(low_grad.t() @ given if for_a else None)
            grads.append(lora_grad.t() @ low if for_b else None)
        # torch casts each to the number format of what it belongs to.
        return (None if x_grad is None else x_grad.view(x.shape), None, None, None, None, *grads)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        torch.addmm(total, left, right, out=total)  # in place; `addmm_` is one that torch's FLOP counter passes over
    else:
        total.add_(left @ right)  # in the format of the product, rounded once

"""FLOPs of a step as the kernels are called, attention on a CPU among them, and the rate of a large matrix product."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.setting import Setting

Shape = Sequence[int]


def flop_counter() -> FlopCounterMode:
    """Torch's counter of matrix products, two FLOPs a multiply-add, with the CPU's attention, which torch counts as 0.

    A call with a mask counts as dense, for its kernel computes what it masks; a plainly causal one as half of that, for
    its kernel leaves out what lies above the diagonal. What is not a product (norms, softmax, activations) is not
    counted.

    Example:
        >>> one = torch.ones(1, 1, 4, 8)
        >>> with flop_counter() as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 5)
        >>> counter.get_total_flops()
        60
    """
    aten: Any = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        },
    )


def _attention(
    query: Shape, key: Shape, value: Shape, _dropout: float = 0.0, is_causal: bool = False, **_kwargs: Any
) -> int:
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops // 2 if is_causal else flops


def _attention_backward(
    grad: Shape,
    query: Shape,
    key: Shape,
    value: Shape,
    _out: Shape,
    _logsumexp: Shape,
    _dropout: float = 0.0,
    is_causal: bool = False,
    **_kwargs: Any,
) -> int:
    flops: int = sdpa_backward_flop_count(grad, query, key, value)  # type: ignore[no-untyped-call]
    return flops // 2 if is_causal else flops


def matrix_product_rate(dtype: torch.dtype, size: int = 2048, repeats: int = 5, device: str = "cpu") -> float:
    """FLOPs a second (on a CPU, of its time) of a product of two square matrices, the median of some.

    Args:
        dtype: Number format of both.
        size: Rows and columns.
        repeats: Counted products, after one that is not.
        device: Where they lie.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    clock = Setting(device=device).seconds
    seconds = []
    for _ in range(repeats + 1):
        start = clock()
        torch.mm(left, right)
        seconds.append(clock() - start)
    return 2 * size**3 / statistics.median(seconds[1:])

"""Measuring without a trace: random states and modes are afterwards what they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import nn


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the random states of Python, numpy and torch (CPU and every CUDA device) on exit.

    Lightning's ``isolate_rng`` does the same, but not after an exception.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> with preserved_rng():
        ...     inside = torch.rand(1)
        >>> bool(torch.rand(1) == inside)
        True
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    cpu_state = torch.get_rng_state()
    # Where CUDA is not in use there is no state to keep, and asking for it would create a context.
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(cpu_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)


class _Modules(Protocol):
    def modules(self) -> Iterator[nn.Module]: ...


@contextmanager
def evaluating(model: _Modules) -> Iterator[None]:
    """Evaluation mode for every submodule, restored on exit, also after an exception.

    Args:
        model: A model, whatever mode each of its parts is in.
    """
    # Module by module, since a frozen part may be in eval mode while the rest trains.
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode

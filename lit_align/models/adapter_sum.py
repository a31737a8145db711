"""The sum of LoRA adapters that lie on one another: as one adapter, or in the weights of the base."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SECONDS_BEFORE_PROGRESS = 2.0


@dataclass(frozen=True, eq=False)
class Factors:
    """What a LoRA adapter adds to one linear layer: scaling · B A (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        a: Shape ``(rank, inputs)``.
        b: Shape ``(outputs, rank)``.
        scaling: alpha / rank, or alpha / sqrt(rank) where the adapter is rank-stabilised (arXiv:2312.03732).
    """

    a: Tensor
    b: Tensor
    scaling: float = 1.0

    def delta(self) -> Tensor:
        """What is added to the layer's weight, ``(outputs, inputs)``."""
        return self.scaling * (self.b @ self.a)


def summed(adapters: Sequence[Mapping[str, Factors]]) -> dict[str, Factors]:
    r"""One adapter that adds what several add together, exactly.

    Factors are set side by side, each B times its own scaling, so that ranks add up and every scaling is 1:

    .. math:: \sum_i s_i B_i A_i = [s_1 B_1 \; s_2 B_2 \dots] \, [A_1; A_2; \dots]

    A layer has the ranks of those adapters only that adapt it. A scaling that is a power of two rounds nothing.

    Args:
        adapters: The factors of each adapter, by the layer's name.

    Returns:
        Factors by the layer's name, in the number format of the adapters.

    Example:
        >>> one = Factors(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), scaling=2.0)
        >>> other = Factors(torch.tensor([[5.0, 0.0]]), torch.tensor([[1.0]]))
        >>> both = summed([{"q": one}, {"q": other, "k": other}])
        >>> both["q"].b, both["q"].delta()
        (tensor([[6., 1.]]), tensor([[11., 12.]]))
        >>> both["k"].a.shape[0]
        1
    """
    found: dict[str, list[Factors]] = {}
    for adapter in adapters:
        for name, one in adapter.items():
            found.setdefault(name, []).append(one)
    return {
        name: Factors(torch.cat([one.a for one in parts]), torch.cat([one.scaling * one.b for one in parts], dim=1))
        for name, parts in found.items()
    }


def peft_files(factors: Mapping[str, Factors], modules: Collection[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An adapter of scaling 1 as PEFT stores it.

    alpha is the rank everywhere, so that programs which read one rank and one alpha for all layers, and no patterns,
    scale it rightly too.

    Args:
        factors: Factors of scaling 1, by the layer's name.
        modules: The names of all modules of the base, so that the target names mean these layers and no others.

    Returns:
        Tensors by name, and the configuration in plain types.
    """
    from peft import LoraConfig

    ranks = {name: one.a.shape[0] for name, one in factors.items()}
    most = max(ranks.values())
    others = _by_last_name({name: rank for name, rank in ranks.items() if rank != most}, ranks)
    targets = {_last(name) for name in factors}
    exact = {name for name in modules if _last(name) in targets} == {*factors}
    config: Any = LoraConfig(
        r=most,
        lora_alpha=most,
        rank_pattern=others,
        alpha_pattern=dict(others),
        target_modules=sorted(targets if exact else factors),
        bias="none",
        task_type="CAUSAL_LM",
    )
    tensors = {
        f"base_model.model.{name}.lora_{letter}.weight": part
        for name, one in factors.items()
        for letter, part in (("A", one.a), ("B", one.b))
    }
    return tensors, {**config.to_dict(), "target_modules": sorted(config.target_modules or ())}


def _by_last_name(some: Mapping[str, int], ranks: Mapping[str, int]) -> dict[str, int]:
    """Ranks by the last part of the layers' names where all layers of such a name have one rank, else by the whole."""
    found: dict[str, int] = {}
    for last, names in groupby(sorted(some, key=lambda name: (_last(name), name)), key=_last):
        shared = {rank for name, rank in ranks.items() if _last(name) == last}
        found |= {last: shared.pop()} if len(shared) == 1 else {name: some[name] for name in names}
    return found


def _last(name: str) -> str:
    return name.rpartition(".")[2]


@torch.no_grad()
def put_into(model: PreTrainedModel, factors: Mapping[str, Factors], dtype: torch.dtype) -> None:
    """Add an adapter to the weights of its base, and give all weights another number format.

    Each sum is computed in fp32 and rounded once.

    Args:
        model: The base, not quantised; changed in place.
        factors: Factors by the layer's name, on the CPU.
        dtype: Number format of all weights afterwards.

    Raises:
        ValueError: A weight is beyond the largest number of the format.
    """
    for name, one in tqdm(factors.items(), "merging", delay=_SECONDS_BEFORE_PROGRESS, leave=False, unit="layer"):
        layer: Any = model.get_submodule(name)
        weight = layer.weight.float() + Factors(one.a.float(), one.b.float(), one.scaling).delta()
        layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    model.to(dtype)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ValueError(
                f"`{name}` holds numbers that {dtype} cannot (beyond {torch.finfo(dtype).max:.3g}): set "
                "`form.dtype` to bfloat16"
            )

"""How much memory a forest takes, from the shape of a model alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from lit_align.forest import TokenForest
from lit_align.models.loading import LoRA, Weights, empty_base
from lit_align.models.tree_attention import plan_attention
from lit_align.ops.frozen_head import CHUNK_BYTES, CPU_CHUNK_BYTES

_TEMPORARIES = 3  # copies of a layer's widest activation that a backward pass holds at once
_NF4_BYTES = 0.516  # half a byte, and the doubly quantised scales of 64 weights each
_AFTER_NORM = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")  # read what their norm keeps in any case


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training takes at the peak of a forest, without what Python and its libraries take.

    Attributes:
        weights: The frozen base.
        adapter: The adapter with its gradients and AdamW's two moments, all fp32.
        activations: What the layers keep for the backward pass.
        head: One chunk of logits and what is made of it.
    """

    weights: int
    adapter: int
    activations: int
    head: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.adapter + self.activations + self.head


def estimate_memory(
    base: str, weights: Weights, lora: LoRA, forest: TokenForest, *, checkpointing: bool, cuda: bool
) -> MemoryEstimate:
    r"""Estimate the memory of one forest of :math:`T` rows; the base's ``config.json`` is read, no weights.

    With :math:`h` the hidden size, :math:`q` and :math:`k` the widths of queries and of keys, :math:`m` that of the
    MLP, :math:`L` the layers, and :math:`s` the bytes of the base's number format, the layers keep

    .. math:: L \left( T \left[ 8 h + s (2 h + 2 q + 2 k + 3 m) + 4 n + \sum_a i_a \right] + 2 s K k' \right)

    bytes: the two norms' inputs in fp32 and their outputs, queries, keys and values with the attended values, the MLP's
    gate, activated gate and other branch; :math:`n = q + k` where the layer normalises queries and keys; :math:`i_a`
    what an adapter keeps beside these (the numbers between its two factors; the input of the attention's output and of
    the MLP's last layer; where the base is bf16 an fp32 copy of each input; with dropout what is left of it); and
    :math:`K` keys that side branches of the forest are given once more (:math:`k'` is k, on CUDA q, where keys are
    widened to all heads). With activation checkpointing :math:`L T h s` and one layer. On top come three times the
    widest activation of a layer, the final hidden states, and three times a chunk of the head's logits (at most 64 MiB
    on CUDA, 16 on a CPU). In fp32 on a CPU the largest forest of a run took 2 % more than estimated with SmolLM2-135M
    (2,560 rows, 3.4 GiB) and 4 % less with the bundled model (2,048 rows, 0.14 GiB).

    Weights are :math:`s` bytes a parameter (NF4: 0.516 for those of linear layers, the head aside), the adapter 16:
    itself, its gradient and two moments.

    Args:
        base: See :func:`lit_align.tokenizer.resolve_base`.
        weights: Number format and quantisation of the base.
        lora: The adapter.
        forest: The largest forest of the run.
        checkpointing: Whether activations are computed again in the backward pass.
        cuda: Whether it runs on CUDA.

    Raises:
        FileNotFoundError: The base is not where ``base`` points.
        OSError: The hub cannot be reached.
        ValueError: The configuration lacks a size.
    """
    model: Any = empty_base(base)
    head = model.get_output_embeddings()
    sizes = _Sizes.of(model)
    linears = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head}
    adapted = {name: part for name, part in linears.items() if _is_target(name, lora)}
    each = 4 if weights.dtype == "float32" else 2
    parameters = sum(one.numel() for one in model.parameters())
    quantised = sum(one.weight.numel() for one in linears.values()) if weights.quantization == "nf4" else 0
    of_first = [(name, one) for name, one in adapted.items() if ".0." in f".{name}."]
    layer = _layer_bytes(sizes, of_first, lora, forest, each, cuda)
    rows = len(forest)
    kept = sizes.layers * rows * sizes.hidden * each + layer if checkpointing else sizes.layers * layer
    passing = _TEMPORARIES * max(sizes.mlp, sizes.queries, sizes.hidden) + 2 * sizes.hidden
    return MemoryEstimate(
        weights=int((parameters - quantised) * each + quantised * _NF4_BYTES),
        adapter=16 * lora.rank * sum(one.in_features + one.out_features for one in adapted.values()),
        activations=kept + 4 * rows * passing,
        head=3 * min(CHUNK_BYTES if cuda else CPU_CHUNK_BYTES, 4 * rows * head.weight.shape[0]),
    )


@dataclass(frozen=True)
class _Sizes:
    hidden: int
    queries: int
    keys: int
    mlp: int
    layers: int
    query_norm: bool

    @classmethod
    def of(cls, model: Any) -> _Sizes:
        config = model.config.get_text_config()
        names = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers")
        hidden, heads, mlp, layers = (getattr(config, name, None) for name in names)
        if not (hidden and heads and mlp and layers):
            raise ValueError(f"{config.model_type}: its configuration lacks one of {', '.join(names)}: no estimate")
        width = getattr(config, "head_dim", None) or hidden // heads
        keys = (getattr(config, "num_key_value_heads", None) or heads) * width
        norm = any(name.endswith("q_norm") for name, _ in model.named_modules())
        return cls(hidden, heads * width, keys, mlp, layers, norm)


def _layer_bytes(
    sizes: _Sizes, adapted: list[tuple[str, nn.Linear]], lora: LoRA, forest: TokenForest, each: int, cuda: bool
) -> int:
    """What one layer keeps for the backward pass; ``adapted`` are its own adapted linear layers."""
    row = 2 * 4 * sizes.hidden + each * (2 * sizes.hidden + 2 * sizes.queries + 2 * sizes.keys + 3 * sizes.mlp)
    row += 4 * (sizes.queries + sizes.keys) if sizes.query_norm else 0
    for name, linear in adapted:
        row += 0 if name.endswith(_AFTER_NORM) else each * linear.in_features
        row += 4 * linear.in_features if each < 4 else 0
        # With dropout: what is left of the input, and which of it was dropped.
        row += 4 * lora.rank + (5 * linear.in_features if lora.dropout else 0)
    runs = [run for call in plan_attention(forest) if len(call.keys) > 1 for run in call.keys]
    again = sum(end - start for start, end in runs)
    return len(forest) * row + 2 * each * again * (sizes.queries if cuda else sizes.keys)


def _is_target(name: str, lora: LoRA) -> bool:
    if lora.target_modules == "all-linear":
        return True
    return any(name == target or name.endswith(f".{target}") for target in lora.target_modules)

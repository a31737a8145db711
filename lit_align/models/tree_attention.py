"""Attention over a token forest: which rows attend to which, and the paths that compute it.

Three paths, one result. ``tree_sdpa`` cuts the forest into calls of torch's scaled-dot-product attention, most of them
plainly causal; it runs everywhere. ``flex`` hands the same rule to FlexAttention as a block mask; CUDA only.
``padded`` (in :mod:`lit_align.models.policy`) runs every example as a row of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  the field's name for it
from torch import Tensor, nn

from lit_align.forest import TokenForest

AttentionPath = Literal["tree_sdpa", "flex", "padded"]

ATTENTION_NAME = "lit_align_forest"
"""Name under which transformers knows our attention function."""

_BUNDLE_ROWS = 512
"""Side branches of one parent share a call up to this many rows; its mask then stays small beside the keys."""


@dataclass(frozen=True)
class AttentionCall:
    """One call of scaled-dot-product attention.

    Attributes:
        queries: First row and row after the last of the queries.
        keys: Runs of rows that are the keys, ancestors first, the queries' own rows last.
        mask: Bool, shape ``(queries, keys)``, True where the query attends; None for a plain causal call, whose
            keys are its queries.
    """

    queries: tuple[int, int]
    keys: tuple[tuple[int, int], ...]
    mask: Tensor | None


TreePlan = tuple[AttentionCall, ...]


def sees(query_rows: Tensor, key_rows: Tensor, subtree_end: Tensor) -> Tensor:
    """Whether each query row attends to each key row: the one rule of the forest.

    Args:
        query_rows: Rows, shape ``(Q,)``.
        key_rows: Rows, shape ``(K,)``.
        subtree_end: See :class:`~lit_align.forest.TokenForest`.

    Returns:
        Bool, shape ``(Q, K)``.
    """
    return (key_rows <= query_rows[:, None]) & (query_rows[:, None] < subtree_end[key_rows])


def plan_attention(forest: TokenForest) -> TreePlan:
    """Cut a forest into attention calls that cover each row once.

    From each root the largest subtree is followed down to a leaf: these rows stand together and make one causal call
    without a mask (a conversation alone is just that). What branches off is bundled, children of one parent together,
    with their ancestors as further keys and a mask of the size of the bundle; a branch too large for a bundle is
    treated like a root with ancestors. No mask of the size of the forest is made.

    Args:
        forest: The forest; its tensors' device is the device of the masks.

    Returns:
        Calls in the order of their query rows.
    """
    calls: list[AttentionCall] = []
    device = forest.tokens.device
    subtree_end = forest.subtree_end

    def masked(start: int, end: int, ancestors: tuple[tuple[int, int], ...]) -> AttentionCall:
        keys = (*ancestors, (start, end))
        key_rows = torch.cat([torch.arange(a, b, device=device) for a, b in keys])
        return AttentionCall((start, end), keys, sees(torch.arange(start, end, device=device), key_rows, subtree_end))

    ends = [0] * len(forest.segments)  # row after the last descendant of each segment
    for index in reversed(range(len(ends))):
        segment = forest.segments[index]
        ends[index] = max([segment.end, *(ends[child] for child in segment.children)])
    chains: list[tuple[int, tuple[tuple[int, int], ...]]] = [
        (index, ()) for index, segment in enumerate(forest.segments) if segment.parent < 0
    ]
    while chains:
        head, ancestors = chains.pop()
        trunk = [head]
        while children := forest.segments[trunk[-1]].children:
            trunk.append(children[0])
        start, end = forest.segments[head].start, forest.segments[trunk[-1]].end
        calls.append(masked(start, end, ancestors) if ancestors else AttentionCall((start, end), ((start, end),), None))
        for parent in trunk:
            above = (*ancestors, (start, forest.segments[parent].end))
            bundle: tuple[int, int] | None = None
            for child in forest.segments[parent].children[1:]:
                first, last = forest.segments[child].start, ends[child]
                if last - first > _BUNDLE_ROWS:
                    chains.append((child, above))
                elif bundle is not None and last - bundle[0] <= _BUNDLE_ROWS:
                    bundle = (bundle[0], last)
                else:
                    if bundle is not None:
                        calls.append(masked(*bundle, above))
                    bundle = (first, last)
            if bundle is not None:
                calls.append(masked(*bundle, above))
    return tuple(sorted(calls, key=lambda call: call.queries))


def block_mask(forest: TokenForest) -> Any:
    """The forest's rule as a FlexAttention block mask.

    Raises:
        ValueError: The forest is not on a CUDA device; FlexAttention has no backward pass on CPU.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    device = forest.tokens.device
    if device.type != "cuda":
        raise ValueError(f"`attention: flex` needs CUDA, got device {device}; use `attention: tree_sdpa`")
    size = len(forest)
    return create_block_mask(flex_rule(forest.subtree_end), None, None, size, size, device=str(device))


def flex_rule(subtree_end: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The rule of :func:`sees` in the form that FlexAttention takes: batch, head, query row, key row."""

    def rule(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < subtree_end[key])

    return rule


def forest_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    forest_plan: Any = None,
    **kwargs: Any,  # transformers' interface: it hands every attention function more than it uses
) -> tuple[Tensor, None]:
    """The attention function given to transformers; without a plan it is transformers' own SDPA path.

    Args:
        module: The attention layer.
        query: Shape ``(1, heads, T, head_dim)``.
        key: Shape ``(1, key_value_heads, T, head_dim)``.
        value: As ``key``.
        attention_mask: Used without a plan only.
        dropout: Dropout of attention weights.
        scaling: Factor of the scores.
        forest_plan: The calls of :func:`plan_attention`, or a FlexAttention block mask, or None.
        **kwargs: Handed on to transformers' SDPA path.

    Returns:
        The attended values, shape ``(1, T, heads, head_dim)``, and None.
    """
    if forest_plan is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if not isinstance(forest_plan, tuple):
        attended = _compiled_flex_attention()(query, key, value, block_mask=forest_plan, scale=scaling, enable_gqa=True)
        return attended.transpose(1, 2).contiguous(), None
    # Each key head is a row of a batch, with the query heads that share it: key and value are then widened as views.
    groups = query.shape[1] // key.shape[1]
    query = query.reshape(key.shape[1], groups, *query.shape[2:])
    key, value = key.transpose(0, 1), value.transpose(0, 1)
    # Cut once at all bounds: the backward of a cut is one concatenation, that of each slice a tensor of all rows.
    bounds = sorted({0, key.shape[2], *(row for call in forest_plan for run in call.keys for row in run)})
    sizes = [end - start for start, end in itertools.pairwise(bounds)]
    place = {bound: index for index, bound in enumerate(bounds)}
    keys, values = torch.split(key, sizes, dim=2), torch.split(value, sizes, dim=2)
    queries = torch.split(query, [call.queries[1] - call.queries[0] for call in forest_plan], dim=2)
    parts = [
        F.scaled_dot_product_attention(
            rows,
            _widened(_joined(keys, call.keys, place), groups),
            _widened(_joined(values, call.keys, place), groups),
            attn_mask=call.mask,
            dropout_p=dropout,
            is_causal=call.mask is None,
            scale=scaling,
        )
        for rows, call in zip(queries, forest_plan, strict=True)
    ]
    return torch.cat([part.permute(2, 0, 1, 3) for part in parts]).flatten(1, 2)[None], None


def _joined(pieces: Sequence[Tensor], runs: tuple[tuple[int, int], ...], place: Mapping[int, int]) -> Tensor:
    parts = [piece for start, end in runs for piece in pieces[place[start] : place[end]]]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _widened(rows: Tensor, groups: int) -> Tensor:
    """One key head for all query heads that share it: a view for the CPU's kernel, for others they are repeated."""
    widened = rows.expand(-1, groups, -1, -1)
    return widened if rows.device.type == "cpu" else widened.contiguous()


@cache
def _compiled_flex_attention() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True)
    return compiled


def register_forest_attention() -> None:
    """Make the attention function known to transformers under :data:`ATTENTION_NAME`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION_NAME, forest_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


def unshareable_parts(config: Any) -> list[str]:
    """What of a model's layers forbids examples to share tokens; empty where nothing does.

    Args:
        config: The text configuration of a transformers model.
    """
    found: list[str] = []
    layer_types = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    found += [f"`layer_types` with {name}" for name in sorted(layer_types)]
    if getattr(config, "layer_types", None) is None and getattr(config, "use_sliding_window", True):
        found += [
            f"`{name}` = {value}"
            for name in ("sliding_window", "attention_chunk_size")
            if (value := getattr(config, name, None)) is not None
        ]
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    rope_types = {rope.get("rope_type", rope.get("type", "default"))} | {
        nested.get("rope_type", "default") for nested in rope.values() if isinstance(nested, dict)
    }
    found += [f"RoPE of type {name}" for name in sorted(rope_types & {"dynamic", "longrope"})]
    if getattr(config, "alibi", False) or getattr(config, "position_embedding_type", "") == "alibi":
        found.append("ALiBi")
    if getattr(config, "model_type", "") in {"gpt_oss"}:
        found.append("attention sinks")
    return found


def refuse_unshareable(config: Any) -> None:
    """Refuse a model whose hidden states would change when examples share their beginnings.

    Args:
        config: The text configuration of a transformers model.

    Raises:
        ValueError: It has sliding, chunked or linear attention, a RoPE that depends on the length of the row, ALiBi,
            or attention sinks; the message names what was found.
    """
    if found := unshareable_parts(config):
        raise ValueError(
            f"{getattr(config, 'model_type', 'this model')}: examples cannot share tokens here, because the model has "
            f"{', '.join(found)}; use `attention: padded`"
        )

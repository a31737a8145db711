"""The last layer at the rows that are read, not at all rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

KNOWN_LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""Layers that add attention to their input, and the MLP of that to it, each behind a norm of its own."""


def slice_last_layer(decoder: Any) -> bool:
    """Let a decoder take ``needed_rows``, shape ``(N,)``: its output then has these rows alone, in their order.

    What comes after the last layer's attention (MLP, final norm) is computed at them alone; keys and values need all
    rows. Exact, but for the rounding of products of another height. Without ``needed_rows`` all is as before.

    Args:
        decoder: A transformers decoder that hands its keyword arguments on to its layers.

    Returns:
        Whether it does so: not where the layout of the last layer is not among :data:`KNOWN_LAYERS`.
    """
    last: Any = decoder.layers[-1] if hasattr(decoder, "layers") else None
    if type(last).__name__ not in KNOWN_LAYERS:
        return False
    # transformers' layers are entered with their input as the one positional argument.
    last.register_forward_pre_hook(_keep_needed, with_kwargs=True)
    last.self_attn.register_forward_pre_hook(_attend_to_all, with_kwargs=True)
    last.self_attn.register_forward_hook(_attended_at_needed, with_kwargs=True)
    return True


def _keep_needed(layer: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
    """The layer's input, which the residual stream takes up, at the needed rows; attention is handed the others too."""
    rows = kwargs.get("needed_rows")
    if rows is None:
        return None
    return (args[0].index_select(1, rows),), {**kwargs, "normed": layer.input_layernorm(args[0])}


def _attend_to_all(_attention: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
    normed = kwargs.pop("normed", None)
    return None if normed is None else (args, {**kwargs, "hidden_states": normed})


def _attended_at_needed(_attention: Any, _args: Any, kwargs: dict[str, Any], output: tuple[Tensor, Any]) -> Any:
    rows = kwargs.get("needed_rows")
    return None if rows is None else (output[0].index_select(1, rows), output[1])

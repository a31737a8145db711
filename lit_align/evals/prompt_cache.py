"""Keys and values of a batch of prompts, computed once for each token that prompts share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lit_align.forest import TokenForest, TokenPath
from lit_align.models.tree_attention import ATTENTION_NAME, plan_attention, unshareable_parts
from lit_align.trie import shared_size

if TYPE_CHECKING:
    from transformers import DynamicCache

_WORTH_IT = 2 / 3  # of the padded tokens; many small attention calls cost more than the rest saves


def families(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Put prompts together that share the larger part of their tokens, such as the questions about one table.

    Args:
        prompts: Token ids of each prompt.

    Returns:
        Numbers of the prompts, each family in order, those with the longest prompt first.

    Example:
        >>> families([[1, 2, 3, 4], [9], [1, 2, 3, 5], [9, 8, 7, 6, 5]])
        [[3], [0, 2], [1]]
    """
    alike = sorted(range(len(prompts)), key=lambda index: (tuple(prompts[index]), index))
    found: list[list[int]] = []
    for index in alike:
        if found and _alike(prompts[found[-1][-1]], prompts[index]):
            found[-1].append(index)
        else:
            found.append([index])
    return sorted(map(sorted, found), key=lambda family: (-max(len(prompts[index]) for index in family), family[0]))


def _alike(one: Sequence[int], other: Sequence[int]) -> bool:
    shared = len(one) + len(other) - shared_size([np.array(one, np.int32), np.array(other, np.int32)])
    return 2 * shared > max(len(one), len(other))


def prompt_cache(model: Any, prompts: Sequence[Sequence[int]]) -> DynamicCache | None:
    """The cache of all but the last token of each prompt, padded on the left, from one pass over their forest.

    Args:
        model: A causal language model of transformers, in evaluation mode.
        prompts: Token ids of each prompt, none empty.

    Returns:
        What ``generate`` takes as ``past_key_values``; None where it would save little, or where the model's layers
        do not let prompts share tokens.
    """
    config = model.config.get_text_config()
    if config._attn_implementation != ATTENTION_NAME or unshareable_parts(config):
        return None
    width = max(map(len, prompts)) - 1
    if min(map(len, prompts)) < 2:
        return None
    paths = [
        TokenPath(np.array(prompt[:-1], np.int32), np.zeros(len(prompt) - 1, np.uint8), "prompt") for prompt in prompts
    ]
    if shared_size([path.tokens for path in paths]) > _WORTH_IT * width * len(prompts):
        return None
    from transformers import DynamicCache

    forest = TokenForest.build([paths]).to(model.device)
    shared: Any = DynamicCache()
    decoder = model.get_decoder()
    decoder(
        input_ids=forest.tokens[None],
        position_ids=forest.positions[None],
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=model.device),
        forest_plan=plan_attention(forest),
        use_cache=True,
        **{cache_argument(decoder.forward): shared},
    )
    rows = torch.zeros(len(prompts), width, dtype=torch.long)
    for number, last in enumerate(forest.last_rows):
        path = [row for part in forest.path_rows(last) for row in part]
        rows[number, width - len(path) :] = torch.tensor(path)
    rows = rows.to(model.device)
    cache = DynamicCache()
    for number, layer in enumerate(shared.layers):
        # Where a shorter prompt is padded stands some row's key, which the attention mask hides.
        keys, values = (part[0][:, rows].transpose(0, 1).contiguous() for part in (layer.keys, layer.values))
        cache.update(keys, values, number)
        layer.keys = layer.values = None  # of this layer both would be held twice
    return cache


def cache_argument(method: Callable[..., Any]) -> str:
    """What a method of transformers calls its cache: ``cache``, before 5.24 ``past_key_values``."""
    return "cache" if "cache" in inspect.signature(method).parameters else "past_key_values"

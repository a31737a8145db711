"""Sums over the trained tokens of each source, and the metrics that they make."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_align.forest import TokenForest

COLUMNS = ("tokens", "nll", "hits")


def source_sums(nlls: Tensor, hits: Tensor, forest: TokenForest, sources: Sequence[str]) -> Tensor:
    """Add up what is logged of a forest's trained tokens by source.

    Args:
        nlls: NLL of each target that is not replayed, nats, ``(N,)``, in the order of the forest.
        hits: Whether it is the most probable token, ``(N,)``.
        forest: The forest.
        sources: Names of all sources of the run.

    Returns:
        Float64, ``(len(sources) * columns,)``, without gradient.
    """
    places = {name: place for place, name in enumerate(sources)}
    # What is replayed has no place, and no target here.
    of_example = torch.tensor([places.get(name, -1) for name in forest.sources], device=nlls.device)
    index = of_example[forest.target_examples[~forest.replayed]]
    with torch.no_grad():
        table = torch.stack([torch.ones_like(nlls), nlls, hits.to(nlls.dtype)], dim=1).double()
        return table.new_zeros(len(sources), len(COLUMNS)).index_add(0, index, table).flatten()


def source_metrics(sums: Tensor, sources: Sequence[str]) -> dict[str, Tensor | float]:
    """Metrics from the sums over a window or a validation set.

    Args:
        sums: As :func:`source_sums` returns them, added up over forests and ranks.
        sources: Names of all sources of the run.

    Returns:
        With several sources, under ``by_source/NAME/``, share of the trained tokens, and NLL and accuracy of each one
        that has a token; else nothing. Lightning repeats in a window what it does not have: a share of 0 tells it.

    Example:
        >>> sums = torch.tensor([30.0, 45.0, 15.0, 10.0, 5.0, 9.0], dtype=torch.float64)
        >>> found = source_metrics(sums, ["reddit", "finance"])
        >>> {key: float(value) for key, value in found.items() if "finance" in key}  # doctest: +NORMALIZE_WHITESPACE
        {'by_source/finance/share': 0.25, 'by_source/finance/nll': 0.5,
         'by_source/finance/mean_token_accuracy': 0.9}
    """
    if len(sources) < 2:
        return {}
    table = sums.reshape(len(sources), len(COLUMNS))
    metrics: dict[str, Tensor | float] = {}
    total = table[:, 0].sum().clamp(min=1)
    for name, (tokens, nll, hits) in zip(sources, table, strict=True):
        metrics[f"by_source/{name}/share"] = tokens / total
        if float(tokens):
            metrics |= {
                f"by_source/{name}/nll": nll / tokens,
                f"by_source/{name}/mean_token_accuracy": hits / tokens,
            }
    return metrics

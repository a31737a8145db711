"""Sums over preference pairs by source, and the metrics that they make."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_align.modules.pair_scoring import ScoredPairs

BASIC = ("pairs", "loss", "accuracies", "chosen", "rejected", "logps/chosen", "logps/rejected",
         "tokens", "entropy", "hits")  # fmt: skip
COMPARED = ("logratio/chosen", "logratio/rejected", "logratio/chosen_per_token", "logratio/rejected_per_token",
            "displacement/chosen", "displacement/both")  # fmt: skip
"""Columns of the sums; those of the second kind where a reference was run."""


def pair_sums(scored: ScoredPairs, losses: Tensor, reward_scale: float, sources: Sequence[str]) -> Tensor:
    """Add up what is logged of a forest's pairs.

    A tie of rewards counts one half, so that a policy that equals its reference has an accuracy of one half.

    Args:
        scored: The pairs.
        losses: Loss of each pair, ``(P,)``.
        reward_scale: Factor of a log-ratio (without a reference: of a log-prob) in a reward.
        sources: Names of all sources of the run.

    Returns:
        Float64, ``(len(sources) * columns,)``, without gradient.
    """
    chosen, rejected = scored.scores.chosen, scored.scores.rejected
    compared = chosen.reference_token_logps is not None
    with torch.no_grad():
        ratios = [one.log_ratios if compared else one.logps for one in (chosen, rejected)]
        rewards = [reward_scale * one for one in ratios]
        right = (rewards[0] > rewards[1]).double() + (rewards[0] == rewards[1]).double() / 2
        columns = [
            torch.ones_like(losses), losses.detach(), right, *rewards, chosen.logps, rejected.logps, chosen.lengths,
            chosen.sums(chosen.statistics["entropy"]), chosen.sums(chosen.statistics["rank"] == 0),
        ]  # fmt: skip
        if compared:
            fell = [(one < 0).double() for one in ratios]
            per_token = [ratio / one.lengths for ratio, one in zip(ratios, (chosen, rejected), strict=True)]
            columns += [*ratios, *per_token, fell[0], fell[0] * fell[1]]
        table = torch.stack(columns, dim=1)
        index = [sources.index(name) for name in scored.sources]
        sums = table.new_zeros(len(sources), table.shape[1])
        return sums.index_add(0, torch.tensor(index, dtype=torch.long, device=table.device), table).flatten()


def pair_metrics(sums: Tensor, sources: Sequence[str], compared: bool) -> dict[str, Tensor | float]:
    """Metrics from the sums over a window or a validation set.

    Args:
        sums: As :func:`pair_sums` returns them, added up over forests and ranks.
        sources: Names of all sources of the run.
        compared: Whether a reference was run.

    Returns:
        By key without prefix. With several sources, under ``by_source/NAME/``, share of the pairs, and loss, accuracy
        and margin of each one that has a pair. Lightning repeats in a window what it does not have: a share of 0 tells
        it.
    """
    names = BASIC + (COMPARED if compared else ())
    table = sums.reshape(len(sources), len(names))
    total = dict(zip(names, table.sum(0), strict=True))
    pairs, tokens = total["pairs"].clamp(min=1), total["tokens"].clamp(min=1)
    metrics: dict[str, Tensor | float] = {
        "rewards/chosen": total["chosen"] / pairs,
        "rewards/rejected": total["rejected"] / pairs,
        "rewards/accuracies": total["accuracies"] / pairs,
        "rewards/margins": (total["chosen"] - total["rejected"]) / pairs,
        "entropy": total["entropy"] / tokens,
        "mean_token_accuracy": total["hits"] / tokens,
        **{name: total[name] / pairs for name in names if "/" in name},
    }
    if len(sources) > 1:
        for name, row in zip(sources, table, strict=True):
            one = dict(zip(names, row, strict=True))
            metrics[f"by_source/{name}/share"] = one["pairs"] / pairs
            if float(one["pairs"]):
                metrics |= {
                    f"by_source/{name}/loss": one["loss"] / one["pairs"],
                    f"by_source/{name}/accuracies": one["accuracies"] / one["pairs"],
                    f"by_source/{name}/margins": (one["chosen"] - one["rejected"]) / one["pairs"],
                }
    return metrics

"""Rated answers as a table, its sums by source and rating, and the metrics that they make."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_align.forest import TokenForest
from lit_align.losses.preference.contract import AnswerScores
from lit_align.losses.unpaired import UnpairedLoss

ROWS = ("source", "desirable", "logps", "reference_logps", "tokens", "entropy", "hits")
"""What is known of each answer; the first two are numbers of a source, and 1 or 0."""
COLUMNS = ("count", "loss", "right", "logps", "logratio", "logratio_per_token", "fell", "tokens", "entropy", "hits")
"""Columns of the sums, for the good and then the bad answers of each source."""


def rated_table(scores: AnswerScores, forest: TokenForest, at: Sequence[int], sources: Sequence[str]) -> Tensor:
    """What is known of some answers of a forest.

    Args:
        scores: Of all its answers, with entropy and rank of each target.
        forest: The forest.
        at: Numbers of the rated ones.
        sources: Names of all sources of the run.

    Returns:
        Float64, ``(len(ROWS), R)``, without gradient.
    """
    with torch.no_grad():
        known = [
            scores.logps, scores.reference_logps, scores.lengths, scores.sums(scores.statistics["entropy"]),
            scores.sums(scores.statistics["rank"] == 0),
        ]  # fmt: skip
        named = [[sources.index(forest.sources[one]) for one in at], [float(bool(forest.desirable[one])) for one in at]]
        head = torch.tensor(named, dtype=torch.float64, device=known[0].device)
        return torch.cat([head, torch.stack(known)[:, list(at)]])


def table_losses(table: Tensor, loss: UnpairedLoss, point: Tensor) -> Tensor:
    """The loss of each answer of a table, ``(R,)``."""
    _, desirable, logps, reference_logps, *_ = table
    return loss(logps - reference_logps, desirable.bool(), point)


def rated_sums(table: Tensor, losses: Tensor, point: Tensor, sources: int) -> Tensor:
    """Add up what is logged of some answers.

    An answer is on the right side where its log-ratio is over the reference point and it is good, or under it and it is
    bad; at the point it counts one half, so that a policy that equals its reference has an accuracy of one half.

    Args:
        table: From :func:`rated_table`.
        losses: Loss of each answer, ``(R,)``.
        point: The reference point, nats.
        sources: Number of sources of the run.

    Returns:
        Float64, ``(sources * 2 * columns,)``, without gradient.
    """
    source, desirable, logps, reference_logps, tokens, entropy, hits = table
    ratios = logps - reference_logps
    side = (ratios - point) * (2 * desirable - 1)
    right = (side > 0).double() + (side == 0).double() / 2
    columns = [
        torch.ones_like(ratios), losses.detach(), right, logps, ratios, ratios / tokens, (ratios < 0).double(),
        tokens, entropy, hits,
    ]  # fmt: skip
    index = (2 * source + 1 - desirable).long()
    sums = table.new_zeros(2 * sources, len(COLUMNS))
    return sums.index_add(0, index, torch.stack(columns, dim=1)).flatten()


def rated_metrics(sums: Tensor, sources: Sequence[str], reward_scale: float) -> dict[str, Tensor | float]:
    """Metrics from the sums over a window or a validation set.

    Args:
        sums: As :func:`rated_sums` returns them, added up over forests and ranks.
        sources: Names of all sources of the run.
        reward_scale: Factor of a log-ratio in a reward.

    Returns:
        By key without prefix; ``chosen`` are the good answers, ``rejected`` the bad ones, as where they come in pairs.
        Means of a kind that is not there are left out, and its count is 0 (Lightning repeats in a window what it does
        not have). With several sources, under ``by_source/NAME/``, share of the answers, and loss and margin.
    """
    table = sums.reshape(len(sources), 2, len(COLUMNS))
    good, bad = (dict(zip(COLUMNS, side, strict=True)) for side in table.sum(0))
    both = good["count"] + bad["count"]
    metrics: dict[str, Tensor | float] = {
        "rewards/accuracies": (good["right"] + bad["right"]) / both.clamp(min=1),
        "count/chosen": good["count"],
        "count/rejected": bad["count"],
    }
    for name, one in (("chosen", good), ("rejected", bad)):
        if float(one["count"]):
            metrics |= {
                f"rewards/{name}": reward_scale * one["logratio"] / one["count"],
                f"logps/{name}": one["logps"] / one["count"],
                f"logratio/{name}": one["logratio"] / one["count"],
                f"logratio/{name}_per_token": one["logratio_per_token"] / one["count"],
                f"displacement/{name}": one["fell"] / one["count"],
            }
    if float(good["count"]):
        metrics |= {
            "entropy": good["entropy"] / good["tokens"],
            "mean_token_accuracy": good["hits"] / good["tokens"],
        }
    metrics |= _margin(good, bad, reward_scale, "rewards/margins")
    if len(sources) > 1:
        for name, part in zip(sources, table, strict=True):
            good, bad = (dict(zip(COLUMNS, side, strict=True)) for side in part)
            count = good["count"] + bad["count"]
            metrics[f"by_source/{name}/share"] = count / both.clamp(min=1)
            if float(count):
                metrics[f"by_source/{name}/loss"] = (good["loss"] + bad["loss"]) / count
            metrics |= _margin(good, bad, reward_scale, f"by_source/{name}/margins")
    return metrics


def _margin(
    good: dict[str, Tensor], bad: dict[str, Tensor], reward_scale: float, key: str
) -> dict[str, Tensor | float]:
    """Mean reward of the good answers less that of the bad ones, where there are both."""
    if not (float(good["count"]) and float(bad["count"])):
        return {}
    return {key: reward_scale * (good["logratio"] / good["count"] - bad["logratio"] / bad["count"])}

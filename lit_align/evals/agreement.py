"""How far a model, as it was exported, still answers as the one that was trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align.evals.report import align
from lit_align.losses.anchor import ReverseKL
from lit_align.metrics.statistics import Interval, mean_interval

_CAPTION = (
    "On the trained model's own greedy answers, each given to both models (teacher forcing). KL(trained ‖ exported) "
    "over the whole vocabulary, nats a token; log-prob off by: distance of the log-probs of the trained model's "
    "likeliest token, mean and largest; same token: the likeliest token of both models is one; same answer: what both "
    "write is one to the last token. 95% intervals over prompts."
)


@dataclass(frozen=True)
class Agreement:
    """What two models say of the same positions, and whether they write the same.

    Attributes:
        kl: KL(trained ‖ other) over the whole vocabulary, mean over positions, nats.
        largest_kl: The largest one of a position.
        gap: |difference of log-probs| of the trained model's likeliest token, mean over positions, nats.
        largest_gap: The largest one.
        same_token: Share of the positions at which both models' likeliest token is the same.
        same_answer: Share of the prompts to which both write the same greedily; None where it was not tried.
        positions: How many positions there were.
    """

    kl: Interval
    largest_kl: float
    gap: Interval
    largest_gap: float
    same_token: Interval
    same_answer: Interval | None
    positions: int

    @property
    def kl_at_most(self) -> float:
        """Upper end of the KL's interval; 0 where no position differs at all, which bounds nothing."""
        return self.kl.high if self.largest_kl else 0.0


def token_agreement(trained: Tensor, other: Tensor) -> Tensor:
    """What two models say of each position of a text.

    Args:
        trained: Logits of the trained model, ``(n, V)``, fp32 or float64.
        other: Logits of the other one at the same positions, likewise.

    Returns:
        ``(n, 3)``, float64: KL(trained ‖ other), nats; the distance between both log-probs of the trained model's
        likeliest token, nats; whether that is the other model's likeliest one too, 0 or 1.

    Example:
        >>> even, other = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
        >>> token_agreement(even, other)  # 0.5 log 2 + 0.5 log(2/3), log 2, and 0 is not 1
        tensor([[0.1438, 0.6931, 0.0000]], dtype=torch.float64)
    """
    log_p, log_q = trained.log_softmax(-1), other.log_softmax(-1)
    likeliest = log_p.argmax(-1)
    kl = ReverseKL()(log_p, log_q, likeliest)
    gap = (log_p - log_q).gather(-1, likeliest[:, None])[:, 0].abs()
    same = log_q.argmax(-1) == likeliest
    return torch.stack([kl.double(), gap.double(), same.double()], dim=1)


def agreement(answers: Sequence[Tensor], same_answer: Sequence[bool] | None) -> Agreement:
    """Sum up what two models say of some answers.

    Args:
        answers: Of each answer what :func:`token_agreement` found; its positions are one cluster.
        same_answer: Of each answer, whether both models write it; None where it was not tried.

    Example:
        >>> half = torch.tensor([[0.5, 0.1, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
        >>> found = agreement([half] * 12, [True] * 12)
        >>> found.kl.mean, found.largest_gap, found.same_token.mean, found.positions
        (0.25, 0.1, 0.5, 24)
    """
    kl, gap, same = torch.cat(list(answers)).cpu().numpy().T
    clusters = [str(number) for number, one in enumerate(answers) for _ in one]
    return Agreement(
        kl=mean_interval(kl, clusters, bounds=(0.0, math.inf)),
        largest_kl=float(kl.max()),
        gap=mean_interval(gap, clusters, bounds=(0.0, math.inf)),
        largest_gap=float(gap.max()),
        same_token=mean_interval(same, clusters),
        same_answer=None
        if same_answer is None
        else mean_interval([float(one) for one in same_answer], [str(number) for number in range(len(same_answer))]),
        positions=len(kl),
    )


def agreement_table(rows: Mapping[str, Agreement]) -> str:
    """A line a model, and a caption.

    Args:
        rows: By what the line is called.

    Example:
        >>> one = torch.tensor([[1e-9, 2e-5, 1.0]], dtype=torch.float64)
        >>> table = agreement_table({"exported": agreement([one, 3 * one.clamp(max=0.3)] * 6, None)})
        >>> [cell.strip() for cell in table.splitlines()[2].split("|")][1:4]
        ['exported', '12', '2.0e-09 [1.4e-09, 2.9e-09]']
    """
    cells = [
        [
            name,
            str(one.positions),
            _small(one.kl),
            f"{one.gap.mean:.1e}, {one.largest_gap:.1e}",
            _share(one.same_token),
            "–" if one.same_answer is None else _share(one.same_answer),
        ]
        for name, one in rows.items()
    ]
    few = any(one.kl.too_few for one in rows.values())
    header = ["model", "tokens", "KL [95% CI]", "log-prob off by", "same token", "same answer"]
    remark = " Too few: fewer than 10 prompts, with which the intervals' coverage is not known." if few else ""
    return f"{align(header, cells)}\n\n{_CAPTION}{remark}"


def _small(interval: Interval) -> str:
    return f"{interval.mean:.1e} [{interval.low:.1e}, {interval.high:.1e}]"


def _share(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

r"""The anchor: an exact divergence to a reference model, added to the NLL so that fine-tuning forgets less.

Every divergence here is the *full-vocabulary* one, in nats per position. An estimate from the one token that the text
happens to hold is not offered. On gold text the estimators of Schulman 2020 ("Approximating KL Divergence") are
invalid, since the text was not sampled from the policy, and :math:`k_1 = \log \pi(y) - \log \pi_{ref}(y)` as a loss has
exactly minus the gradient of the NLL: the reference drops out, and the "anchor" merely rescales the learning rate.

Numerics. Early in training the KL is 1e-6 to 1e-3 nats. :math:`\sum_v p_v d_v` with :math:`d = \log p - \log q` then
drowns in rounding, so each term has its first order taken out, :math:`p\,(d + e^{-d} - 1) \ge 0`, which adds
:math:`\sum_v (q_v - p_v) = 0`. Values and gradients are exactly 0 at equality.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Divergence(ABC):
    """A divergence between the policy's and the reference's next-token distribution.

    A subclass writes :meth:`__call__` alone; the gradient then comes from autograd, chunk by chunk. The subclasses of
    this file override :meth:`value_and_grad` as well, which saves time and memory.

    Example:
        >>> class SquaredLogRatio(Divergence):
        ...     def __call__(self, log_p, log_q, targets):
        ...         return (log_p.exp() * (log_p - log_q) ** 2).sum(-1) / 2
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> value, gradient = SquaredLogRatio().value_and_grad(p.log(), q.log(), torch.tensor([0]))
        >>> bool(gradient.sum().abs() < 1e-6)  # the gradient in the logits of a softmax sums to 0
        True
    """

    @abstractmethod
    def __call__(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> Tensor:
        """Value at each position, differentiable with respect to ``log_p``.

        Args:
            log_p: The policy's log-probabilities, nats, ``(n, V)``, fp32 or float64; read only.
            log_q: The reference's, likewise.
            targets: The tokens of the text, ``(n,)``, int64.

        Returns:
            Nats, ``(n,)``; 0 where the distributions are equal.
        """

    def value_and_grad(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Value ``(n,)`` in nats and its gradient in the policy's *logits* ``(n, V)``; arguments as in the call."""
        with torch.enable_grad():
            leaf = log_p.detach().requires_grad_()
            value = self(leaf, log_q, targets)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        # The chain rule of log_softmax by hand: running log_softmax on log_p again would move it by a rounding error,
        # and a divergence of equal distributions would no longer be exactly 0.
        return value.detach(), slope - log_p.exp() * slope.sum(-1, keepdim=True)


@dataclass(frozen=True)
class ReverseKL(Divergence):
    r"""KL(policy ‖ reference), "mode-seeking": punishes mass where the reference has little.

    .. math:: \sum_v \pi_v (\log \pi_v - \log \pi^{ref}_v)

    The usual anchor of alignment since Ziegler et al. 2019 (arXiv 1909.08593), here without sampling.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> ReverseKL()(p.log(), q.log(), torch.tensor([0]))  # 0.5 log 2 + 0.5 log(2/3)
        tensor([0.1438])
    """

    def __call__(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002, D102
        return _kl(log_p, log_q)

    def value_and_grad(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002, D102
        value = _kl(log_p, log_q)
        return value, _centred(log_p.exp(), log_p - log_q)


@dataclass(frozen=True)
class ForwardKL(Divergence):
    r"""KL(reference ‖ policy), "mass-covering": punishes losing what the reference holds likely.

    .. math:: \sum_v \pi^{ref}_v (\log \pi^{ref}_v - \log \pi_v)

    The anchor of ASFT (Zhu et al. 2025, arXiv 2509.23753) and of distillation (Hinton et al. 2015, arXiv 1503.02531).

    Example:
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> ForwardKL()(p.log(), q.log(), torch.tensor([0]))  # 0.25 log(1/2) + 0.75 log(3/2)
        tensor([0.1308])
    """

    def __call__(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002, D102
        return _kl(log_q, log_p)

    def value_and_grad(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002, D102
        value = _kl(log_q, log_p)
        # p - q = sign(d) max(p, q) (1 - exp(-|d|)) cancels nowhere and overflows nowhere.
        d = log_p - log_q
        slope = torch.maximum(log_p, log_q).exp_().mul_(d.sign()).mul_(d.abs_().neg_().expm1_().neg_())
        # log p and log q each carry the rounding of their normaliser; what it adds has a sum, the gradient has none.
        return value, slope.addcmul_(log_p.exp(), slope.sum(-1, keepdim=True), value=-1.0)


@dataclass(frozen=True)
class JensenShannon(Divergence):
    r"""Jensen-Shannon divergence with equal weights (Lin 1991), symmetric and bounded by log 2.

    .. math:: \tfrac12 KL(\pi ‖ m) + \tfrac12 KL(\pi^{ref} ‖ m), \qquad m = (\pi + \pi^{ref}) / 2

    Used for distilling language models by Agarwal et al. 2023 (GKD, arXiv 2306.13649).

    Example:
        >>> p, q = torch.tensor([[1.0, 1e-30]]), torch.tensor([[1e-30, 1.0]])
        >>> JensenShannon()(p.log(), q.log(), torch.tensor([0]))  # disjoint: log 2
        tensor([0.6931])
    """

    def __call__(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002, D102
        d = log_p - log_q
        return (log_p.exp() * _log_ratio_to_mean(d) + log_q.exp() * _log_ratio_to_mean(-d)).sum(-1) / 2

    def value_and_grad(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002, D102
        p, d = log_p.exp(), log_p - log_q
        above = _log_ratio_to_mean(d)
        value = (p * above).addcmul_(log_q.exp(), _log_ratio_to_mean(d.neg_())).sum(-1) / 2
        return value, _centred(p, above).mul_(0.5)


@dataclass(frozen=True)
class TargetMaskedKL(Divergence):
    r"""A KL over the vocabulary without the gold token, both sides renormalised: it does not fight the NLL.

    .. math:: KL(\tilde\pi^{ref} ‖ \tilde\pi), \qquad
        \tilde\pi_v = \frac{\pi_v}{\sum_{w \ne y} \pi_w} \; (v \ne y), \quad \tilde\pi_y = 0

    Xu, Garg, Saratchandran and Lucey 2026, "Mask the Target: A Plug-and-Play Regularizer Against LoRA Forgetting",
    arXiv 2605.29498: remove the ground-truth token from the base's and the adapted model's distribution, renormalise
    the rest, "preserve the base model's relative preferences among alternative tokens". *Direction:* only the abstract
    could be consulted, and it does not say which way the KL runs. The default is KL(base ‖ policy), which weighs the
    alternatives as the base does; ``divergence=ReverseKL()`` gives the other one. Check it against the paper's method
    section before calling a run a reproduction.

    The value of a position depends on its target, unlike that of the other divergences. The gradient is exactly 0 in
    the target's logit.

    Attributes:
        divergence: What compares the two renormalised distributions.

    Example:
        >>> p, q = torch.tensor([[0.90, 0.05, 0.05]]), torch.tensor([[0.2, 0.2, 0.6]])
        >>> TargetMaskedKL()(p.log(), q.log(), torch.tensor([0]))  # (1/4, 3/4) against (1/2, 1/2)
        tensor([0.1308])
    """

    divergence: Divergence = ForwardKL()

    def __call__(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> Tensor:  # noqa: D102
        return self.divergence(_without_target(log_p, targets), _without_target(log_q, targets), targets)

    def value_and_grad(self, log_p: Tensor, log_q: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        # The renormalised distribution is the softmax of the other logits, so its gradient is the one asked for.
        value, slope = self.divergence.value_and_grad(
            _without_target(log_p, targets), _without_target(log_q, targets), targets
        )
        return value, slope.scatter_(1, targets.unsqueeze(1), 0.0)


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a ‖ b) as a sum of terms that are each at least 0; finite for any finite log-probabilities."""
    d = log_a - log_b
    a = log_a.exp()
    # The clamp keeps expm1 finite, and its gradient too, in the entries that `where` takes from the other form.
    near = (d.clamp(min=-1.0).neg().expm1() + d) * a
    far = log_b.exp() - a + a * d
    return torch.where(d < -1.0, far, near).sum(-1)


def _centred(p: Tensor, slope: Tensor) -> Tensor:
    """``p * (slope - E_p[slope])``, the gradient in the logits of a sum with derivative ``slope`` in ``p``; overwrites.

    The mean is taken of ``slope`` itself, not put in from the value: the roundings of the two normalisers shift all of
    ``slope`` by some 1e-7 nats, as much as a small gradient, and cancel only so.
    """
    mean = torch.linalg.vecdot(p, slope).unsqueeze(-1)
    return slope.sub_(mean).mul_(p)


def _log_ratio_to_mean(d: Tensor) -> Tensor:
    """``log(p / m)`` with ``m = (p + q) / 2`` from ``d = log p - log q``: ``-log((1 + exp(-d)) / 2)``.

    Held at its value for -60 below that, where expm1 would come to overflow: it is only ever multiplied by ``p``, which
    is below ``exp(-60)`` there.
    """
    return torch.log1p(d.clamp(min=-60.0).neg().expm1() / 2).neg()


def _without_target(log_p: Tensor, targets: Tensor) -> Tensor:
    """Renormalised log-probabilities of the other tokens; the target's entry is one finite number on both sides.

    The normaliser is a sum over the others: log1p(-p_target) is lost to rounding where the target is nearly certain.
    """
    if log_p.shape[-1] < 2:
        raise ValueError(f"a vocabulary of {log_p.shape[-1]} tokens has none left beside the target")
    return log_p.scatter(1, targets.unsqueeze(1), -1e30).log_softmax(-1)


@dataclass(frozen=True)
class KLAnchor:
    """Which divergence anchors the policy, how strongly, from which step on, and at which tokens.

    The term is ``weight(step)`` times the mean divergence over the anchored targets, added to the NLL. While
    ``weight(step)`` is exactly 0 there is nothing to add, and the module does not run the reference at all.

    Attributes:
        divergence: What is measured; the reverse KL unless asked otherwise.
        coef: Final weight, >= 0. 0.03 is a mild anchor; 0 turns it off.
        start_step: Optimizer step, counted from 0, at which the anchor begins, >= 0.
        warmup_steps: Optimizer steps over which the weight rises linearly from 0 at ``start_step`` to ``coef``, >= 0.
        tail_tokens: Anchor the last N answer tokens of each example; 0 anchors all of them.
        text: Which text carries it: ``trained`` text (with an NLL), ``replayed`` text (without one), or ``both``.

    Raises:
        ValueError: A field breaks its rule; the message names field, rule and value.

    Example:
        >>> anchor = KLAnchor(coef=0.1, start_step=10, warmup_steps=4)
        >>> [anchor.weight(step) for step in (9, 10, 12, 14, 1000)]
        [0.0, 0.0, 0.05, 0.1, 0.1]
    """

    divergence: Divergence = ReverseKL()
    coef: float = 0.03
    start_step: int = 0
    warmup_steps: int = 0
    tail_tokens: int = 0
    text: Literal["trained", "replayed", "both"] = "trained"

    def __post_init__(self) -> None:
        if not isinstance(self.divergence, Divergence):
            raise ValueError(f"divergence must be a Divergence, got {self.divergence!r}")
        if not (math.isfinite(self.coef) and self.coef >= 0):
            raise ValueError(f"coef must be finite and >= 0, got {self.coef!r}")
        for name in ("start_step", "warmup_steps", "tail_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)!r}")
        if self.text not in ("trained", "replayed", "both"):
            raise ValueError(f"text must be one of trained, replayed, both, got {self.text!r}")

    def weight(self, step: int) -> float:
        """Weight of the anchor at an optimizer step.

        Args:
            step: Optimizer steps completed so far, >= 0.

        Returns:
            In ``[0, coef]``: 0 before ``start_step``, then linear up to ``coef`` at ``start_step + warmup_steps``.
        """
        since = step - self.start_step
        if since < 0:
            return 0.0
        return self.coef if since >= self.warmup_steps else self.coef * (since / self.warmup_steps)

    def anchored(self, from_end: Tensor, replayed: Tensor) -> Tensor:
        """Which targets carry the anchor.

        Args:
            from_end: Distance of each target from the last answer token of its example, ``(M,)``, integer; 0 is last.
            replayed: Whether the target belongs to a replayed example, ``(M,)``, bool.

        Returns:
            Shape ``(M,)``, bool.

        Raises:
            ValueError: The shapes differ, ``replayed`` is not bool, or a distance is negative.

        Example:
            >>> replayed = torch.tensor([False, False, True, True])
            >>> KLAnchor(tail_tokens=1).anchored(torch.tensor([1, 0, 1, 0]), replayed)
            tensor([False,  True, False, False])
        """
        if from_end.shape != replayed.shape or replayed.dtype != torch.bool or from_end.is_floating_point():
            raise ValueError(
                f"from_end must be integer and replayed bool, of one shape (M,), got {tuple(from_end.shape)} "
                f"{from_end.dtype} and {tuple(replayed.shape)} {replayed.dtype}"
            )
        if bool((from_end < 0).any()):
            raise ValueError(f"from_end must be >= 0, got {int(from_end.min())}: that target is no answer token")
        chosen = {"trained": ~replayed, "replayed": replayed.clone(), "both": torch.ones_like(replayed)}[self.text]
        return chosen & (from_end < self.tail_tokens) if self.tail_tokens else chosen

r"""Per-token scalars read through a frozen output head, with the gradient made in the forward.

A causal LM's loss reads the hidden state :math:`h` of a position through the head :math:`z = W h + b`. When the head
is frozen, every scalar :math:`s(z)` of one position has a gradient that is a single vector of the hidden size,

.. math:: \frac{\partial s}{\partial h} = W^\top \frac{\partial s}{\partial z},

and it is known as soon as the logits are. So the forward goes through the rows in chunks, computes value and vector
in fp32, and throws the logits away; backward multiplies the vector by the incoming gradient. No ``(tokens,
vocabulary)`` tensor outlives its chunk and nothing is computed twice. The gradient in the forward was introduced for
trainable heads by Hsu et al. 2024 (Liger Kernel, arXiv 2410.10989) and avoided by recomputation in Wijmans et al. 2024
(Cut Your Losses, arXiv 2411.09009); a frozen head makes it exact for *any* later use of the scalars, because no
gradient with respect to ``W`` has to be known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_align.ops.head_products import accumulation_dtype, head_gradient, head_logits
from lit_align.ops.score_block import LogitDivergence, score_block
from lit_align.ops.token_statistics import STATISTICS, Statistic

CHUNK_BYTES, CPU_CHUNK_BYTES = 64 * 2**20, 16 * 2**20
"""Upper bound of one chunk of logits, bytes; a row that is larger makes a chunk of its own. The products of a large
chunk are faster (on a CPU with 152,000 tokens 64 MiB by a third, measured), but it lies on top of all activations."""

BLOCK_BYTES, CPU_BLOCK_BYTES = 16 * 2**20, 2**20
"""A chunk is scored block by block, so that the temporaries of softmax and divergences are of the size of a block; on a
CPU so many bytes for each thread, which are also faster (large ones are mapped and zeroed by the kernel each time)."""


@dataclass(frozen=True, eq=False)
class FrozenHead:
    """The output head of a causal LM, as tensors that no optimizer changes.

    Attributes:
        weight: Shape ``(V, H)``, floating point.
        bias: Shape ``(V,)``, or None.

    Raises:
        ValueError: A shape or dtype is wrong, or a tensor is trainable: only the gradient with respect to the hidden
            state is computed here, so the head's own would be dropped without a word.

    Example:
        >>> FrozenHead(torch.nn.Parameter(torch.zeros(5, 3)))
        Traceback (most recent call last):
        ...
        ValueError: head weight is trainable: its gradient would be dropped silently; freeze it (requires_grad=False)
    """

    weight: Tensor
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or not self.weight.is_floating_point():
            raise ValueError(f"head weight must be a floating (V, H) matrix, got {_describe(self.weight)}")
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise ValueError(f"head bias must have shape ({self.weight.shape[0]},), got {_describe(self.bias)}")
        self.require_frozen()

    def require_frozen(self) -> None:
        """Raise ValueError if the head is, or has become, trainable (PEFT flips flags when adapters are switched)."""
        for name, tensor in (("weight", self.weight), ("bias", self.bias)):
            if tensor is not None and tensor.requires_grad:
                raise ValueError(
                    f"head {name} is trainable: its gradient would be dropped silently; freeze it (requires_grad=False)"
                )


@dataclass(frozen=True, eq=False)
class TokenScores:
    """What the head says of each (hidden row, target token).

    Attributes:
        logps: Log-probability of the target, nats, ``(N,)``, in ``(-inf, 0]``; differentiable.
        divergences: One ``(N,)`` tensor for each divergence asked for, nats; differentiable.
        statistics: ``(N,)`` tensors without gradient, by name.
    """

    logps: Tensor
    divergences: tuple[Tensor, ...]
    statistics: Mapping[Statistic, Tensor]


def token_logps(hidden: Tensor, head: FrozenHead, targets: Tensor, *, chunk_rows: int | None = None) -> Tensor:
    r"""Log-probability of each target token, :math:`\log \mathrm{softmax}(W h_i + b)_{y_i}`.

    Args:
        hidden: Final hidden states (after the last norm), ``(N, H)``. A row may occur several times.
        head: The frozen head.
        targets: Token ids, ``(N,)``, int64, in ``[0, V)``.
        chunk_rows: Rows whose logits exist at once; by default as many as fit :data:`CHUNK_BYTES`.

    Returns:
        Nats, ``(N,)``, fp32 (float64 for float64 ``hidden``), differentiable once with respect to ``hidden``.

    Raises:
        ValueError: A shape, dtype, device or target does not fit; the message names what came.

    Example:
        >>> head = FrozenHead(torch.tensor([[1.0], [0.0], [0.0]]))  # logits log 2, 0, 0: probabilities 1/2, 1/4, 1/4
        >>> token_logps(torch.tensor([[0.6931472]]), head, torch.tensor([0])).exp()
        tensor([0.5000])
    """
    return score_tokens(hidden, head, targets, chunk_rows=chunk_rows).logps


def score_tokens(
    hidden: Tensor,
    head: FrozenHead,
    targets: Tensor,
    *,
    reference_hidden: Tensor | None = None,
    divergences: Sequence[LogitDivergence] = (),
    statistics: Sequence[Statistic] = (),
    chunk_rows: int | None = None,
) -> TokenScores:
    r"""Log-probabilities, exact full-vocabulary divergences and statistics of each position in one pass over the head.

    Kept for backward: one ``(N, H)`` tensor in ``hidden``'s dtype for the log-probs and one for each divergence;
    nothing under ``torch.no_grad()`` or when ``hidden`` needs no gradient.

    Args:
        hidden: The policy's final hidden states, ``(N, H)``.
        head: The frozen head, shared by policy and reference.
        targets: Token ids, ``(N,)``, int64, in ``[0, V)``.
        reference_hidden: The reference's hidden states of the same positions, ``(N, H)``, without gradient; given
            exactly when ``divergences`` are.
        divergences: Divergences between policy and reference; each one is differentiable.
        statistics: Any of ``"entropy"`` (of the policy, nats), ``"rank"`` (tokens that the policy holds more likely
            than the target, int64; 0 means that the target is the arg max) and ``"log_sum_squares"``
            (:math:`\log \sum_v \pi_v^2`, nats, in ``[-log V, 0]``).
        chunk_rows: Rows whose logits exist at once; by default as many as fit :data:`CHUNK_BYTES`.

    Returns:
        The scores, fp32 (float64 for float64 ``hidden``).

    Raises:
        ValueError: A shape, dtype, device, target or name does not fit, or the head or the reference carries gradient.

    Example:
        >>> head = FrozenHead(torch.zeros(8, 3))
        >>> scores = score_tokens(torch.ones(2, 3), head, torch.tensor([0, 7]), statistics=["entropy", "rank"])
        >>> scores.statistics["entropy"], scores.statistics["rank"]  # uniform over 8 tokens: log 8 nats, all tied
        (tensor([2.0794, 2.0794]), tensor([0, 0]))
    """
    _check(hidden, head, targets, reference_hidden, divergences, statistics, chunk_rows)
    need_grad = torch.is_grad_enabled() and hidden.requires_grad
    if chunk_rows is None:
        chunk_rows = _rows(head, hidden, CHUNK_BYTES, CPU_CHUNK_BYTES)
    with torch.autocast(hidden.device.type, enabled=False):
        outputs = cast(
            tuple[Tensor, ...],
            _ScoreTokens.apply(  # type: ignore[no-untyped-call]
                hidden, head, targets, reference_hidden, tuple(divergences), tuple(statistics), chunk_rows, need_grad
            ),
        )
    end = 1 + len(divergences)
    return TokenScores(outputs[0], outputs[1:end], dict(zip(statistics, outputs[end:], strict=True)))


class _ScoreTokens(torch.autograd.Function):
    """The forward makes values and their gradients with respect to ``hidden``; backward scales the gradients."""

    @staticmethod
    def forward(
        ctx: Any,  # torch's own context object has no public type
        hidden: Tensor,
        head: FrozenHead,
        targets: Tensor,
        reference_hidden: Tensor | None,
        divergences: tuple[LogitDivergence, ...],
        statistics: tuple[Statistic, ...],
        chunk_rows: int,
        need_grad: bool,
    ) -> tuple[Tensor, ...]:
        rows, dtype = hidden.shape[0], accumulation_dtype(hidden.dtype)
        values = [hidden.new_empty(rows, dtype=dtype) for _ in range(1 + len(divergences))]
        stats = [hidden.new_empty(rows, dtype=torch.long if name == "rank" else dtype) for name in statistics]
        # Rounded to hidden's dtype only here, after every cancellation has been carried out in fp32.
        gradients = [torch.empty_like(hidden) for _ in values] if need_grad else []
        for start in range(0, rows, chunk_rows):
            chunk = slice(start, start + chunk_rows)
            _score_chunk(
                hidden[chunk],
                None if reference_hidden is None else reference_hidden[chunk],
                head,
                targets[chunk],
                divergences,
                statistics,
                _rows(head, hidden, BLOCK_BYTES, CPU_BLOCK_BYTES * torch.get_num_threads()),
                [out[chunk] for out in (*values, *stats)],
                [gradient[chunk] for gradient in gradients],
            )
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*stats)
        ctx.save_for_backward(*gradients)
        return (*values, *stats)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        gradients: tuple[Tensor, ...] = ctx.saved_tensors
        total: Tensor | None = None
        for grad, gradient in zip(grads, gradients, strict=False):  # the statistics at the end of `grads` have none
            if grad is not None:
                term = gradient * grad.unsqueeze(1)  # promotes to grad's fp32
                total = term if total is None else total.add_(term)
        return (None if total is None else total.to(gradients[0].dtype), *(None,) * 7)


def _score_chunk(
    hidden: Tensor,
    reference_hidden: Tensor | None,
    head: FrozenHead,
    targets: Tensor,
    divergences: Sequence[LogitDivergence],
    statistics: Sequence[Statistic],
    block_rows: int,
    outputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> None:
    """Fill in the outputs of a chunk, and the gradients if there are any; its logits are gone when this returns."""
    logits = head_logits(hidden, head.weight, head.bias)
    reference = None if reference_hidden is None else head_logits(reference_hidden, head.weight, head.bias)
    # Slopes take the places of the logits that they were made of; further divergences need places of their own.
    places = [logits] if reference is None else [logits, reference]
    places += [torch.empty_like(logits) for _ in gradients[len(places) :]]
    for start in range(0, len(logits), block_rows):
        block = slice(start, start + block_rows)
        scores = score_block(
            logits[block],
            None if reference is None else reference[block],
            targets[block],
            divergences,
            statistics,
            need_grad=bool(gradients),
        )
        for output, part in zip(outputs, [*scores.values, *scores.statistics], strict=True):
            output[block] = part
        for place, slope in zip(places, scores.slopes, strict=False):  # without gradient there are no slopes
            place[block] = slope
        del scores
    for gradient, place in zip(gradients, places, strict=False):
        gradient.copy_(head_gradient(place, head.weight, hidden.dtype))


def _rows(head: FrozenHead, hidden: Tensor, most: int, most_on_cpu: int) -> int:
    """Rows of logits in so many bytes."""
    most = most_on_cpu if hidden.device.type == "cpu" else most
    return max(1, most // (head.weight.shape[0] * accumulation_dtype(hidden.dtype).itemsize))


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"


def _check(
    hidden: Tensor,
    head: FrozenHead,
    targets: Tensor,
    reference_hidden: Tensor | None,
    divergences: Sequence[LogitDivergence],
    statistics: Sequence[Statistic],
    chunk_rows: int | None,
) -> None:
    head.require_frozen()
    vocabulary, width = head.weight.shape
    if hidden.ndim != 2 or hidden.shape[1] != width or not hidden.is_floating_point():
        raise ValueError(f"hidden must be floating, shape (N, {width}) for this head, got {_describe(hidden)}")
    if targets.shape != hidden.shape[:1] or targets.dtype != torch.long:
        raise ValueError(f"targets must be int64, shape ({hidden.shape[0]},) like hidden, got {_describe(targets)}")
    for name, tensor in (("hidden", hidden), ("targets", targets)):
        if tensor.device != head.weight.device:
            raise ValueError(f"{name} is on {tensor.device}, the head on {head.weight.device}")
    outside = (targets < 0) | (targets >= vocabulary)
    if bool(outside.any()):
        at = int(outside.nonzero()[0])
        raise ValueError(f"targets must lie in [0, {vocabulary}), got {int(targets[at])} at row {at}")
    if (reference_hidden is None) != (not divergences):
        given = "none" if reference_hidden is None else _describe(reference_hidden)
        raise ValueError(f"divergences and reference_hidden go together, got {len(divergences)} and {given}")
    if reference_hidden is not None:
        if reference_hidden.shape != hidden.shape or reference_hidden.dtype != hidden.dtype:
            came = _describe(reference_hidden)
            raise ValueError(f"reference_hidden must be like hidden, {_describe(hidden)}, got {came}")
        if reference_hidden.requires_grad:
            raise ValueError("reference_hidden carries gradient, which would be dropped silently; run it under no_grad")
    if unknown := [name for name in statistics if name not in STATISTICS]:
        raise ValueError(f"statistics must be among {', '.join(STATISTICS)}, got {unknown[0]!r}")
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1, got {chunk_rows}")

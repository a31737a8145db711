"""Random answers whose random numbers belong to the completion, not to the batch that it is computed in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the model's distribution.

    Attributes:
        temperature: Logits are divided by it, >= 0; 0 is greedy, whatever the other two are.
        top_p: Draw from the likeliest tokens that have this share of the probability together (Holtzman et al. 2020,
            arXiv:1904.09751), in (0, 1]; 1 sets no limit.
        top_k: Draw from this many likeliest tokens, >= 0; 0 sets no limit. Applied before ``top_p``, as elsewhere.

    Raises:
        ValueError: A value is out of its range.

    Example:
        >>> Sampling(temperature=0.8, top_p=0.0)
        Traceback (most recent call last):
        ValueError: sampling.top_p must be in (0, 1], got 0.0
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"sampling.temperature must be finite and >= 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling.top_p must be in (0, 1], got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"sampling.top_k must be >= 0, got {self.top_k}")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature == 0


GREEDY = Sampling(temperature=0.0)

TIE = 1e-4
"""Two logits of fp32 that are nearer than this may change places between batches of other shapes."""


@dataclass(frozen=True)
class Draw:
    """Names the random numbers of one completion.

    Attributes:
        seed: Seed of the run, >= 0.
        prompt: Id of the prompt.
        number: Which of the prompt's completions, from 0.
    """

    seed: int
    prompt: str
    number: int

    def uniforms(self, count: int) -> Tensor:
        """Numbers in [0, 1), one for each token, float64, ``(count,)``; a longer sequence begins with a shorter one.

        Example:
            >>> Draw(0, "a", 1).uniforms(3).equal(Draw(0, "a", 1).uniforms(5)[:3])
            True
        """
        words = np.frombuffer(hashlib.sha256(self.prompt.encode()).digest()[:16], np.uint32).tolist()
        generator = np.random.Generator(np.random.PCG64([self.seed, self.number, *words]))
        return torch.from_numpy(generator.random(count))


def draw_tokens(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """Draw a token a row by inverting the cumulative distribution at a uniform number.

    Args:
        logits: Shape ``(B, V)``.
        uniforms: In [0, 1), float64, ``(B,)``, on the same device.
        sampling: Not greedy.

    Returns:
        Token ids, int64, ``(B,)``.

    Example:
        >>> logits = torch.tensor([[0.25, 0.5, 0.25]]).log().expand(3, 3)
        >>> draw_tokens(logits, torch.tensor([0.2, 0.3, 0.9], dtype=torch.float64), Sampling()).tolist()
        [0, 1, 2]
        >>> draw_tokens(logits, torch.tensor([0.2, 0.3, 0.9], dtype=torch.float64), Sampling(top_p=0.5)).tolist()
        [1, 1, 1]
    """
    probabilities = (logits.float() / sampling.temperature).softmax(-1).double()
    tokens = None
    if sampling.top_k or sampling.top_p < 1:  # the order matters only where something is cut off
        most = min(sampling.top_k or probabilities.shape[-1], probabilities.shape[-1])
        probabilities, tokens = probabilities.topk(most, dim=-1)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        if sampling.top_p < 1:
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    upto = probabilities.cumsum(-1)
    # A uniform of nearly 1 may round up to the whole: the last token with a probability is then meant.
    last = (upto < upto[:, -1:]).sum(-1)
    place = torch.searchsorted(upto, uniforms[:, None] * upto[:, -1:], right=True)[:, 0].minimum(last)
    return place if tokens is None else tokens.gather(1, place[:, None])[:, 0]


class DrawnTokens:
    """Turns the logits of each step into certainty of the token drawn; a logits processor of transformers.

    Args:
        draws: One a row of the batch.
        sampling: Not greedy.
        width: Tokens of a row before the first new one.
        max_new_tokens: So many tokens are drawn at most.
        device: Where the logits lie.
    """

    def __init__(
        self, draws: Sequence[Draw], sampling: Sampling, width: int, max_new_tokens: int, device: torch.device
    ) -> None:
        self._uniforms = torch.stack([draw.uniforms(max_new_tokens) for draw in draws]).to(device)
        self._sampling, self._width = sampling, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave the drawn token alone possible.

        Args:
            input_ids: Tokens so far, ``(B, L)``.
            scores: Logits of the next one, ``(B, V)``.
        """
        drawn = draw_tokens(scores, self._uniforms[:, input_ids.shape[1] - self._width], self._sampling)
        return torch.full_like(scores, float("-inf")).scatter_(1, drawn[:, None], 0.0)


class Ties:
    """Notes where two tokens tie for the likeliest, and leaves the logits alone; a logits processor of transformers."""

    def __init__(self) -> None:
        self._found: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Compare the two largest logits of each row.

        Args:
            input_ids: Tokens so far, ``(B, L)``.
            scores: Logits of the next one, ``(B, V)``.
        """
        del input_ids
        first, second = scores.float().topk(2, dim=-1).values.unbind(-1)
        self._found.append(first - second <= TIE)
        return scores

    def by_row(self) -> list[list[bool]]:
        """Whether each new token of each row was chosen so; empty before the first token."""
        found: list[list[bool]] = torch.stack(self._found, dim=1).tolist() if self._found else []
        return found

"""The pairs of a step: made up in the shapes of TAT-QA and of chats, and what every contender computes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.contender import END, UNKNOWN, ModelShape
from benchmarks.setting import Setting
from lit_align.forest import TokenClass, TokenForest, TokenPath, Window

Pair = tuple[TokenPath, TokenPath]
"""The paths of the chosen and of the rejected answer."""


class PairRows(ABC):
    """Pairs whose answers all end in :data:`~benchmarks.contender.END`; a frozen dataclass that travels."""

    @abstractmethod
    def pairs(self) -> list[Pair]:
        """All pairs, in the order in which the peer is given them."""

    @abstractmethod
    def window(self) -> Window:
        """The same pairs in forests, as our data path builds them."""


@dataclass(frozen=True)
class MadePairs(PairRows):
    """Pairs of random tokens: a context that all share, a question that both answers of a pair share, the answers.

    Attributes:
        count: Number of pairs.
        context: Tokens of the common context; 0 is none, and no two pairs share a token.
        question: Least and most tokens of the rest of a prompt.
        answer: Least and most tokens of an answer, its end included.
        vocabulary: Of the model; no token but the last of an answer is a special one.
        tables: So many contexts, each with its own pairs; where there is one, each has ``count`` of them.

    Example:
        >>> rows = MadePairs(count=2, context=50, question=(5, 5), answer=(3, 3), vocabulary=100)
        >>> [len(path.tokens) for pair in rows.pairs() for path in pair], len(rows.window().forests[0])
        ([58, 58, 58, 58], 72)
    """

    count: int
    context: int
    question: tuple[int, int]
    answer: tuple[int, int]
    vocabulary: int
    tables: int = 1

    def pairs(self) -> list[Pair]:
        """See :class:`PairRows`; the same at every call."""
        generator = np.random.default_rng(0)

        def text(length: int) -> NDArray[np.int32]:
            return generator.integers(UNKNOWN + 1, self.vocabulary, length).astype(np.int32)

        def between(bounds: tuple[int, int]) -> int:
            return int(generator.integers(bounds[0], bounds[1] + 1))

        pairs: list[Pair] = []
        for _ in range(self.tables):
            context = text(self.context)
            for _ in range(self.count):
                prompt = np.concatenate([context, text(between(self.question))])
                chosen, rejected = (
                    _path(prompt, np.append(text(between(self.answer) - 1), END), f"{len(pairs)} {side}")
                    for side in ("chosen", "rejected")
                )
                pairs.append((chosen, rejected))
        return pairs

    def window(self) -> Window:
        """See :class:`PairRows`: one forest; pairs share their context, or there is a tree a pair."""
        pairs = self.pairs()
        together = self.count if self.context else 1
        starts = range(0, len(pairs), together)
        groups = [[path for pair in pairs[start : start + together] for path in pair] for start in starts]
        return Window((TokenForest.build(groups),), 0, ())


def _path(prompt: NDArray[np.int32], answer: NDArray[np.int32], name: str) -> TokenPath:
    classes = np.repeat([TokenClass.PROMPT, TokenClass.ANSWER], [len(prompt), len(answer)]).astype(np.uint8)
    return TokenPath(np.concatenate([prompt, answer]).astype(np.int32), classes, name)


@dataclass(frozen=True)
class PairWorkload:
    """What every contender computes: one step's loss and its LoRA gradients, without an optimizer step.

    The loss is DPO's, the reference is the base, run in the step.

    Attributes:
        model: The base.
        rows: The pairs.
        batch: Pairs of a batch of the peer.
        beta: Of the loss.
        rank: Rank of the adapter on all linear layers but the head; alpha is twice it, dropout 0.
        setting: Number format and device.
    """

    model: ModelShape
    rows: PairRows
    batch: int
    beta: float = 0.1
    rank: int = 16
    setting: Setting = Setting()

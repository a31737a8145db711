"""The token forest: examples as paths that share their common beginnings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_align.trie import Segment, Trie


class TokenClass(IntEnum):
    """What a token of a rendered conversation is.

    ``PROMPT``: everything that the model is given. ``ANSWER``: the text of the trained turn, a real ``<think>``
    trace, and the end-of-turn token that closes it. ``SCAFFOLD``: other tokens that the chat template writes
    into the assistant's turn, such as Qwen3's empty think block and the line break after the end of the turn.
    """

    PROMPT = 0
    ANSWER = 1
    SCAFFOLD = 2


@dataclass(frozen=True, eq=False)
class TokenPath:
    """One example: a root-to-leaf path of token ids.

    Attributes:
        tokens: Token ids, shape ``(L,)``, int32.
        classes: A :class:`TokenClass` per token, shape ``(L,)``, uint8.
        example: The id of the example, for messages.
        weight: Weight of its targets in the NLL; 0 for a replayed conversation, which carries the anchor alone.
        source: Name of its source, for metrics by source.
        desirable: Whether it is a good answer or a bad one; None where nothing is said of it.
    """

    tokens: NDArray[np.int32]
    classes: NDArray[np.uint8]
    example: str
    weight: float = 1.0
    source: str = ""
    desirable: bool | None = None


@dataclass(frozen=True, eq=False)
class TokenForest:
    r"""A row of tokens made of segments, each the continuation of its parent.

    Row ``j`` is visible from row ``i`` exactly if it lies on the way from the root to ``i``. The rows stand in
    depth-first order, so this is ``j <= i < subtree_end[j]``. A row carries a token and a position, nothing else:
    targets belong to examples, and one row may predict several tokens.

    Attributes:
        tokens: Token ids, shape ``(T,)``.
        positions: Depth of each row, shape ``(T,)``; what the rotary embedding is given.
        subtree_end: Row after the last descendant of the row's segment, shape ``(T,)``.
        segments: The tree, in the order of the rows.
        examples: Ids of the examples, in the order in which they were given.
        sources: Name of each example's source.
        weights: Weight of each example's targets in the NLL; 0 for a replayed one.
        desirable: Whether each example is a good answer or a bad one; None where nothing is said of it.
        last_rows: Row of each example's last token.
        pair_rows: Hidden rows of the distinct (row, target token) pairs, shape ``(P,)``; the head runs once for each.
        pair_tokens: Target tokens of the pairs, shape ``(P,)``.
        target_pairs: For each target of each example its pair, shape ``(M,)``.
        target_examples: For each target its example, shape ``(M,)``.
        target_classes: For each target its :class:`TokenClass`, shape ``(M,)``.
        target_weights: For each target its weight in the NLL, shape ``(M,)``, float32.
        target_from_end: For each answer target its distance from the example's last answer token, shape ``(M,)``;
            larger than any length for a target of another class.
    """

    tokens: Tensor
    positions: Tensor
    subtree_end: Tensor
    segments: tuple[Segment, ...]
    examples: tuple[str, ...]
    sources: tuple[str, ...]
    weights: tuple[float, ...]
    desirable: tuple[bool | None, ...]
    last_rows: tuple[int, ...]
    pair_rows: Tensor
    pair_tokens: Tensor
    target_pairs: Tensor
    target_examples: Tensor
    target_classes: Tensor
    target_weights: Tensor
    target_from_end: Tensor

    @classmethod
    def build(
        cls, groups: Sequence[Sequence[TokenPath]], target_classes: Sequence[TokenClass] = (TokenClass.ANSWER,)
    ) -> TokenForest:
        """Share the common beginnings of the paths of each group.

        Args:
            groups: Groups of paths; paths of different groups share nothing.
            target_classes: Classes of the tokens that are targets. The first token of a path never is.

        Returns:
            The forest. Its examples stand in the order of the groups and of the paths in them.

        Raises:
            ValueError: A path has no token.

        Example:
            >>> import numpy as np
            >>> answers = [TokenPath(np.array([7, 8, a], np.int32), np.array([0, 0, 1], np.uint8), "x") for a in (1, 2)]
            >>> forest = TokenForest.build([answers])
            >>> forest.tokens.tolist(), forest.positions.tolist(), forest.subtree_end.tolist()
            ([7, 8, 1, 2], [0, 1, 2, 2], [4, 4, 3, 4])
            >>> forest.pair_rows.tolist(), forest.pair_tokens.tolist()
            ([1, 1], [1, 2])
        """
        trie = Trie()
        paths = [path for group in groups for path in group]
        for path in paths:
            if not len(path.tokens):
                raise ValueError(f"example {path.example}: a path needs at least one token, got none")
        rows_of = [rows for group in groups for rows in trie.add([path.tokens for path in group])]
        wanted = np.array(sorted(target_classes), np.uint8)
        rows, tokens, owners, classes, weights, from_end = [], [], [], [], [], []
        for index, (path, path_rows) in enumerate(zip(paths, rows_of, strict=True)):
            at = np.flatnonzero(np.isin(path.classes[1:], wanted)) + 1
            is_answer = path.classes == TokenClass.ANSWER
            distance = np.where(is_answer, is_answer[::-1].cumsum()[::-1] - 1, np.iinfo(np.int64).max)
            rows.append(path_rows[at - 1])
            tokens.append(path.tokens[at].astype(np.int64))
            owners.append(np.full(len(at), index, np.int64))
            classes.append(path.classes[at])
            weights.append(np.full(len(at), path.weight, np.float32))
            from_end.append(distance[at])
        row, token = _join(rows, np.int64), _join(tokens, np.int64)
        pairs, target_pairs = np.unique(np.stack([row, token]), axis=1, return_inverse=True)
        return cls(
            tokens=torch.from_numpy(_join(trie.tokens, np.int64)),
            positions=torch.from_numpy(_join(trie.positions, np.int64)),
            subtree_end=torch.from_numpy(trie.subtree_end()),
            segments=tuple(trie.segments()),
            examples=tuple(path.example for path in paths),
            sources=tuple(path.source for path in paths),
            weights=tuple(path.weight for path in paths),
            desirable=tuple(path.desirable for path in paths),
            last_rows=tuple(int(path_rows[-1]) for path_rows in rows_of),
            pair_rows=torch.from_numpy(pairs[0].copy()),
            pair_tokens=torch.from_numpy(pairs[1].copy()),
            target_pairs=torch.from_numpy(target_pairs.reshape(-1)),
            target_examples=torch.from_numpy(_join(owners, np.int64)),
            target_classes=torch.from_numpy(_join(classes, np.uint8)),
            target_weights=torch.from_numpy(_join(weights, np.float32)),
            target_from_end=torch.from_numpy(_join(from_end, np.int64)),
        )

    def __getstate__(self) -> dict[str, Any]:
        # By value: a tensor from a worker process costs a file descriptor, and a window has hundreds of tensors.
        return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            restored = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            object.__setattr__(self, name, restored)

    def __len__(self) -> int:
        """Number of rows, that is of tokens that the model computes."""
        return self.tokens.numel()

    @property
    def replayed(self) -> Tensor:
        """For each target, whether its example carries the anchor alone, shape ``(M,)``, bool."""
        return self.target_weights == 0

    def path_rows(self, last_row: int) -> list[range]:
        """Rows from the root to ``last_row``, as one range a segment."""
        starts = [segment.start for segment in self.segments]
        index = bisect_right(starts, last_row) - 1
        ranges = [range(starts[index], last_row + 1)]
        while (index := self.segments[index].parent) >= 0:
            ranges.append(range(self.segments[index].start, self.segments[index].end))
        return ranges[::-1]

    def paths(self) -> list[Tensor]:
        """Token ids of each example, in the order of ``examples``."""
        rows = [torch.tensor([row for part in self.path_rows(last) for row in part]) for last in self.last_rows]
        return [self.tokens[row.to(self.tokens.device)] for row in rows]

    def only(self, examples: Sequence[int]) -> TokenForest:
        """The forest of some of its examples, on the same device; what they share they share still.

        Args:
            examples: Their numbers, rising, at least one.

        Raises:
            ValueError: There is none.

        Example:
            >>> classes = np.array([0, 0, 1, 1], np.uint8)
            >>> paths = [TokenPath(np.array([7, 8, a, a], np.int32), classes, "x") for a in (1, 2)]
            >>> forest = TokenForest.build([paths]).only([1])
            >>> forest.tokens.tolist(), forest.positions.tolist(), forest.pair_rows.tolist()
            ([7, 8, 2, 2], [0, 1, 2, 3], [1, 2])
        """
        if not examples:
            raise ValueError(f"forest of {self.examples}: at least one of its examples must be kept, got none")
        kept = np.zeros(len(self), bool)
        for example in examples:
            for run in self.path_rows(self.last_rows[example]):
                kept[run.start : run.stop] = True
        before = np.append(0, kept.cumsum())  # kept rows before each row, and before the end
        device = self.tokens.device
        rows, place = torch.from_numpy(kept.nonzero()[0]).to(device), torch.from_numpy(before).to(device)
        renumbered = torch.full((len(self.examples),), -1, device=device)
        renumbered[list(examples)] = torch.arange(len(examples), device=device)
        targets = (renumbered[self.target_examples] >= 0).nonzero().flatten()
        pairs, target_pairs = torch.unique(self.target_pairs[targets], return_inverse=True)
        return TokenForest(
            tokens=self.tokens[rows],
            positions=self.positions[rows],
            subtree_end=place[self.subtree_end[rows]],
            segments=_kept_segments(self.segments, before),
            examples=tuple(self.examples[one] for one in examples),
            sources=tuple(self.sources[one] for one in examples),
            weights=tuple(self.weights[one] for one in examples),
            desirable=tuple(self.desirable[one] for one in examples),
            last_rows=tuple(int(before[self.last_rows[one]]) for one in examples),
            pair_rows=place[self.pair_rows[pairs]],
            pair_tokens=self.pair_tokens[pairs],
            target_pairs=target_pairs,
            target_examples=renumbered[self.target_examples[targets]],
            target_classes=self.target_classes[targets],
            target_weights=self.target_weights[targets],
            target_from_end=self.target_from_end[targets],
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TokenForest:
        """The same forest with its tensors on ``device``; Lightning moves batches by this method."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Window:
    """What one optimizer step sees on one rank: Lightning's batch.

    Attributes:
        forests: The forests of this rank; may be empty where other ranks hold the whole window.
        index: Number of the window in the whole run, from 0.
        examples: Ids of all conversations or pairs of the window, over all ranks.
    """

    forests: tuple[TokenForest, ...]
    index: int
    examples: tuple[str, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Window:
        """The same window with its forests on ``device``."""
        return replace(self, forests=tuple(forest.to(device, non_blocking) for forest in self.forests))


def targetless_forest(device: torch.device) -> TokenForest:
    """A forest of one token without a target, for a rank that has nothing to compute."""
    path = TokenPath(np.zeros(1, np.int32), np.zeros(1, np.uint8), "no example")
    return TokenForest.build([[path]]).to(device)


def _kept_segments(segments: Sequence[Segment], before: NDArray[np.int64]) -> tuple[Segment, ...]:
    """The segments of which rows are kept; `before` counts these before each row."""
    starts, ends = before[[one.start for one in segments]], before[[one.end for one in segments]]
    kept: list[int] = np.flatnonzero(starts < ends).tolist()
    number = {old: new for new, old in enumerate(kept)}
    return tuple(
        Segment(
            int(starts[old]),
            int(ends[old]),
            number.get(segments[old].parent, -1),
            tuple(number[child] for child in segments[old].children if child in number),
        )
        for old in kept
    )


def _join(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)

"""Examples as training sees them: runs of tokens of one class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lit_align.data.audit.examples import Example
from lit_align.data.audit.personal import masked
from lit_align.forest import TokenClass

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens of one class.

    Attributes:
        kind: ``prompt``, ``answer`` or ``scaffold``.
        text: What they say, special tokens too; addresses and secrets are masked.
        tokens: How many they are.
    """

    kind: str
    text: str
    tokens: int


@dataclass(frozen=True)
class Coloured:
    """One path of an example.

    Attributes:
        place: Part and source.
        id: The example's id; of a pair with the answer that it is.
        runs: Its tokens.
    """

    place: str
    id: str
    runs: tuple[Run, ...]


def coloured(some: Iterable[Example], tokenizer: PreTrainedTokenizerBase) -> tuple[Coloured, ...]:
    """Decode examples run by run; a pair is two.

    Args:
        some: The examples.
        tokenizer: Of the base.
    """
    found = []
    for one in some:
        for path in one.paths:
            bounds = np.flatnonzero(np.diff(path.classes)) + 1
            runs = tuple(
                Run(
                    TokenClass(int(kinds[0])).name.lower(),
                    masked(str(tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False))),
                    len(ids),
                )
                for ids, kinds in zip(np.split(path.tokens, bounds), np.split(path.classes, bounds), strict=True)
            )
            found.append(Coloured(masked(one.place), masked(path.example), runs))
    return tuple(found)

"""Examples as training sees them: runs of tokens of one class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lit_align.data.audit.examples import Example
from lit_align.data.audit.personal import masked
from lit_align.forest import TokenClass, TokenPath

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
    """An example.

    Attributes:
        part: ``training``, ``validation`` or ``replay``.
        source: Its source.
        id: Its id.
        paths: The runs of its path; of a pair of the chosen one, and of the rejected one without the prompt.
    """

    part: str
    source: str
    id: str
    paths: tuple[tuple[Run, ...], ...]


def coloured(some: Iterable[Example], tokenizer: PreTrainedTokenizerBase) -> tuple[Coloured, ...]:
    """Decode examples run by run, those of a source beside one another.

    Args:
        some: The examples.
        tokenizer: Of the base.
    """

    def runs(path: TokenPath) -> Iterator[Run]:
        bounds = np.flatnonzero(np.diff(path.classes)) + 1
        for ids, kinds in zip(np.split(path.tokens, bounds), np.split(path.classes, bounds), strict=True):
            text = str(tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False))
            yield Run(TokenClass(int(kinds[0])).name.lower(), masked(text), len(ids))

    found = []
    for one in some:
        first, *others = (tuple(runs(path)) for path in one.paths)
        paths = (first, *(tuple(run for run in other if run.kind != "prompt") for other in others))
        found.append(Coloured(one.part, masked(one.source), masked(one.id), paths))
    places = list(dict.fromkeys((one.part, one.source) for one in found))
    return tuple(sorted(found, key=lambda one: places.index((one.part, one.source))))

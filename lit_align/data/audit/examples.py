"""The examples that training sees, read back from its token paths."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from lit_align.data.window_module import PlannedDataModule
from lit_align.data.windows import Tree
from lit_align.forest import TokenClass, TokenPath

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROLE = re.compile(r"\s*(?:system|user|assistant)\s*(?:\n|$)")


@dataclass(frozen=True, eq=False)
class Example:
    """One trained turn with its prompt, a rated answer, or a preference pair.

    Attributes:
        part: ``training``, ``validation`` or ``replay``.
        source: Name of its source.
        id: As in the source.
        group: Examples of one group share a context, and a window.
        paths: One path; of a pair that of the chosen and that of the rejected answer.
    """

    part: str
    source: str
    id: str
    group: str
    paths: tuple[TokenPath, ...]

    @property
    def place(self) -> str:
        """Part and source, for messages."""
        return f"{self.part}: {self.source}"


@dataclass(frozen=True)
class Text:
    """What is said in an example, without the template's tokens.

    Attributes:
        example: What it was read from.
        turns: The turns of the prompt.
        answers: One answer; of a pair the chosen and the rejected one.
    """

    example: Example
    turns: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def whole(self) -> str:
        """All turns and the (chosen) answer."""
        return "\n".join((*self.turns, self.answers[0]))


def examples(data: PlannedDataModule) -> Iterator[Example]:
    """All examples of a data module, each once, also where a mix repeats it.

    Args:
        data: A data module that is set up.
    """
    for part, trees in data.parts.items():
        together = 2 if data.holds == "pairs" and part != "replay" else 1
        seen: set[tuple[str, str]] = set()
        for tree in trees:
            own = example_paths(tree, data.holds)
            for start in range(0, len(own), together):
                paths = own[start : start + together]
                first = paths[0]
                if (first.source, first.example) not in seen:
                    seen.add((first.source, first.example))
                    name = first.example.removesuffix(" chosen") if together == 2 else first.example
                    yield Example(part, first.source, name, tree.group or tree.name, paths)


def example_paths(tree: Tree, holds: str) -> tuple[TokenPath, ...]:
    """The paths of examples in a tree: beside each rated answer stands a mismatched one, which is none.

    Args:
        tree: Any tree.
        holds: What the data module holds.
    """
    if holds != "rated answers":
        return tree.paths
    return tuple(path for path in tree.paths if path.desirable is not None)


def drawn(every: Iterable[Example], most: int) -> list[Example]:
    """Some examples of each part and source, at random by their ids, in their order.

    Args:
        every: All examples.
        most: Of each part and source.
    """
    heaps: dict[str, list[tuple[int, int, Example]]] = {}
    for number, one in enumerate(every):
        digest = hashlib.sha256(f"{one.place} {one.id}".encode()).digest()
        heap = heaps.setdefault(one.place, [])
        item = (-int.from_bytes(digest[:8], "big"), -number, one)  # the largest digest is the first to leave
        if len(heap) < most:
            heapq.heappush(heap, item)
        elif item > heap[0]:
            heapq.heapreplace(heap, item)
    return [one for _, _, one in sorted((item for heap in heaps.values() for item in heap), key=lambda item: -item[1])]


def read_texts(some: Iterable[Example], tokenizer: PreTrainedTokenizerBase) -> list[Text]:
    """Decode examples.

    Args:
        some: The examples.
        tokenizer: Of the base.
    """
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}

    def pieces(ids: Iterable[int]) -> Iterator[str]:
        run: list[int] = []
        for token in (*ids, None):
            if token is None or token in special:
                text = str(tokenizer.decode(run, clean_up_tokenization_spaces=False)) if run else ""
                yield _ROLE.sub("", text, count=1) if _ROLE.match(text) else text
                run = []
            else:
                run.append(token)

    def said(path: TokenPath, kind: TokenClass) -> tuple[str, ...]:
        ids = path.tokens[path.classes == kind].tolist()
        return tuple(text.strip() for text in pieces(ids) if text.strip())

    return [
        Text(
            one,
            said(one.paths[0], TokenClass.PROMPT),
            tuple("\n".join(said(path, TokenClass.ANSWER)) for path in one.paths),
        )
        for one in tqdm(some, desc="reading examples", delay=2, leave=False, unit=" examples")
    ]

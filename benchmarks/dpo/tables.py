"""Real tables of TAT-QA, packed by the data module: a choice of few that are like the whole file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.contender import END, UNKNOWN
from benchmarks.dpo.pairs import Pair, PairRows
from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.pair_tokenising import PairTokenising
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sources.tat_qa.prompt import DefaultPrompt
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.data.trees import GivenTrees, Trees
from lit_align.data.windows import Tree, WindowDataset
from lit_align.forest import Window
from lit_align.tokenizer import load_tokenizer
from lit_align.types import PreferencePair

PROMPT = DefaultPrompt(max_passage_chars=1600)
LENGTHS = Lengths(max_length=2560, max_prompt_length=768, max_dropped=0.2)
WINDOW, TOKEN_BUDGET = 32, 4096
"""As in ``configs/dpo/qwen3-1.7b-tatqa.yaml``."""

LIKE = 0.03
"""How far mean tokens and sharing factor of the chosen tables may be from the whole file's, relatively."""

_DRAWS = 10_000


@dataclass(frozen=True)
class Profile:
    """What the cost of a step depends on.

    Attributes:
        pairs: Number of pairs.
        paths: Tokens of all examples, prompt and answer, each alone.
        rows: Tokens that forests hold.
    """

    pairs: int
    paths: int
    rows: int

    @classmethod
    def of(cls, trees: Iterable[Tree]) -> Profile:
        """Add up trees."""
        parts = [(len(tree.paths) // 2, sum(len(path.tokens) for path in tree.paths), tree.size) for tree in trees]
        return cls(*(sum(column) for column in zip(*parts, strict=True)))

    @property
    def mean_tokens(self) -> float:
        """Tokens of an example."""
        return self.paths / (2 * self.pairs)

    @property
    def sharing(self) -> float:
        """How many times fewer tokens forests hold."""
        return self.paths / self.rows

    def distance(self, other: Profile) -> float:
        """The larger relative difference of the two means."""
        return max(abs(self.mean_tokens / other.mean_tokens - 1), abs(self.sharing / other.sharing - 1))

    def __str__(self) -> str:
        return f"{self.pairs} pairs, {self.mean_tokens:.1f} tokens an example, shared {self.sharing:.2f} times"


@dataclass(frozen=True, eq=False)
class TablePairs(PairRows):
    """The pairs of one window, as the data module packs them.

    Attributes:
        dataset: The module's windows.
        number: Which of them.
        trees: The module's trees, a table each, by name.
    """

    dataset: WindowDataset
    number: int
    trees: Mapping[str, Tree]

    def pairs(self) -> list[Pair]:
        """See :class:`~benchmarks.dpo.pairs.PairRows`: a table's questions together, which pads the peer the least."""
        paths = [path for name in self.window().examples for path in self.trees[name].paths]
        return list(zip(paths[::2], paths[1::2], strict=True))

    def window(self) -> Window:
        """See :class:`~benchmarks.dpo.pairs.PairRows`."""
        return self.dataset[self.number]


@dataclass(frozen=True, eq=False)
class ChosenTables:
    """Tables that are like the whole file.

    Attributes:
        tables: Their number.
        windows: Their pairs, window by window.
        profile: Of these tables.
        whole: Of the whole file.
    """

    tables: int
    windows: tuple[TablePairs, ...]
    profile: Profile
    whole: Profile


def like_the_file(path: Path, tokenizer: str, count: int, vocabulary: int) -> ChosenTables:
    """Choose tables of a file at random until they are like the whole of it, and have the data module pack them.

    Args:
        path: A file of TAT-QA with answers.
        tokenizer: Folder of the tokenizer, in the way of ``data.base``.
        count: Number of tables.
        vocabulary: Of the timed model: tokens are renumbered one to one to fit in it.

    Raises:
        SystemExit: No choice is like the whole file, or its tokens are more than the model's.
    """
    pairs = TATQA(str(path), prompt=PROMPT).pairs(lambda _: True)
    by_table: dict[str, list[Tree]] = {}
    for tree in _trees(pairs, tokenizer):
        by_table.setdefault(tree.name.split(" part ")[0], []).append(tree)
    whole = Profile.of(tree for trees in by_table.values() for tree in trees)
    chosen = _choose(by_table, whole, count)
    module = _packed(path, chosen, tokenizer, vocabulary)
    dataset = module.train_dataloader().dataset
    assert isinstance(dataset, WindowDataset)
    profile = Profile.of(module.trees)
    # The rejected answers are chosen anew among the pairs of these tables alone.
    if profile.distance(whole) > LIKE:
        raise SystemExit(f"{path}: {count} tables ({profile}) are not within {LIKE:.0%} of the whole file ({whole})")
    trees = {tree.name: tree for tree in module.trees}
    return ChosenTables(len(chosen), tuple(TablePairs(dataset, i, trees) for i in range(len(dataset))), profile, whole)


def _trees(pairs: list[PreferencePair], tokenizer: str) -> list[Tree]:
    chat = ChatFormat(load_tokenizer(tokenizer))
    return PairTokenising(chat, LENGTHS, WINDOW, TOKEN_BUDGET, "stop", "the whole file").trees(pairs)


def _choose(by_table: dict[str, list[Tree]], whole: Profile, count: int) -> list[str]:
    names, generator = sorted(by_table), np.random.default_rng(0)
    for _ in range(_DRAWS):
        chosen = [names[i] for i in generator.choice(len(names), min(count, len(names)), replace=False)]
        # Well inside the bound: it is to hold for the answers that are chosen for these tables alone, too.
        if Profile.of(tree for name in chosen for tree in by_table[name]).distance(whole) <= LIKE / 3:
            return chosen
    raise SystemExit(f"none of {_DRAWS} choices of {count} from {len(names)} tables is like the whole file ({whole})")


class _Renumbered(PreferenceDataModule):
    """The data module on a tokenizer with more tokens than the timed model: each token that occurs gets a low number.

    One to one, so that nothing is shared that was not shared before; the end of an answer becomes the model's.
    """

    vocabulary: int

    @property
    def trees(self) -> Trees:
        """The trained trees."""
        return self._trained

    def setup(self, stage: str) -> None:
        """Read the pairs, then renumber their tokens; called once."""
        super().setup(stage)
        self._trained = GivenTrees(renumbered(self._trained, self.vocabulary))


def renumbered(trees: Sequence[Tree], vocabulary: int) -> list[Tree]:
    """Give each token that occurs a number below ``vocabulary``, one to one; the end of an answer becomes the model's.

    Raises:
        SystemExit: More tokens occur than the model has.
    """
    end = int(trees[0].paths[0].tokens[-1])
    used = np.unique(np.concatenate([path.tokens for tree in trees for path in tree.paths]))
    used = used[used != end]
    if len(used) > vocabulary - (UNKNOWN + 1):
        raise SystemExit(
            f"the tables have {len(used)} tokens, a model with {vocabulary} is too small: raise --vocabulary"
        )
    number = np.zeros(max(int(used.max()), end) + 1, np.int32)
    number[used] = np.arange(len(used)) + UNKNOWN + 1
    number[end] = END
    return [
        replace(tree, paths=tuple(replace(path, tokens=number[path.tokens]) for path in tree.paths)) for tree in trees
    ]


def _packed(path: Path, chosen: Sequence[str], tokenizer: str, vocabulary: int) -> _Renumbered:
    tables = [table for table in json.loads(path.read_text(encoding="utf-8")) if table["table"]["uid"] in set(chosen)]
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "tables.json"
        few.write_text(json.dumps(tables), encoding="utf-8")
        source = TATQA(str(few), prompt=PROMPT)
        module = _Renumbered(tokenizer, [source], window=WINDOW, token_budget=TOKEN_BUDGET, lengths=LENGTHS)
        module.vocabulary = vocabulary
        # What the module asks of Lightning's trainer: where the run stands, and that there is one process.
        module.trainer = SimpleNamespace(global_step=0, global_rank=0, world_size=1)  # type: ignore[assignment]
        module.setup("fit")
    return module

"""How full forests are on real lengths, and the FLOPs of all of TAT-QA beside those of TRL's batches.

Data, window, budget and lengths are those of the shipped configurations; nothing is trained. A window is cut into
forests of at most the budget, and what stands at its end need not fill one: fill is given beside the most that any
packer could reach with these windows, tokens / (budget x fewest forests a window), and beside the fill of windows that
hold more. (Nothing is padded: on the portable path a forest that is not full costs no more than its tokens.)

FLOPs are counted on paper for a model's shape: of the frozen base alone, two a multiply-add, backward once the forward
(no gradient of frozen weights), its attention two and a half times. TRL at its defaults runs policy, reference,
policy again (checkpointing) and backward on batches of 8 pairs, padded to their longest; attention is counted for both
as its causal half where no mask parts the rows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from benchmarks.contender import ModelShape
from benchmarks.dims import DIMS
from benchmarks.dpo.command import TABLE_BATCH
from benchmarks.dpo.tables import PROMPT, like_the_file
from benchmarks.measuring import versions
from lit_align.data.lengths import Lengths
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.t_wix import TWix
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.data.window_module import PlannedDataModule
from lit_align.data.windows import Tree
from lit_align.forest import TokenForest
from lit_align.models.tree_attention import plan_attention

GOAL = 0.95
CONFIGS = Path(__file__).parents[1] / "configs"
LARGER = 4
"""Windows so many times as large are looked at, too."""


@dataclass(frozen=True)
class Fill:
    """How an epoch is packed.

    Attributes:
        case: The data.
        window: Examples or pairs of a window.
        budget: Tokens a forest may have.
        windows: Of an epoch.
        forests: Of an epoch.
        fewest: Forests that any packer needs: each window's tokens by the budget, rounded up.
        tokens: Of all forests.
    """

    case: str
    window: int
    budget: int
    windows: int
    forests: int
    fewest: int
    tokens: int

    @property
    def fill(self) -> float:
        """Share of the budget that is filled.

        Example:
            >>> one = Fill("x", window=4, budget=100, windows=2, forests=5, fewest=4, tokens=360)
            >>> one.fill, one.reachable
            (0.72, 0.9)
        """
        return self.tokens / (self.budget * self.forests)

    @property
    def reachable(self) -> float:
        """Most that these windows allow."""
        return self.tokens / (self.budget * self.fewest)

    def row(self) -> str:
        """As a line of a Markdown table."""
        verdict = "met" if self.fill >= GOAL else "missed"
        return (
            f"| {self.case} | {self.window} | {self.budget:,} | {self.windows} | {self.forests / self.windows:.2f} | "
            f"{self.fill:.1%} | {self.reachable:.1%} | >= {GOAL:.0%}: {verdict} |"
        )


def fill_of(case: str, module: PlannedDataModule, window: int) -> Fill:
    """Pack one epoch of a module that is set up; no forest is built."""
    packed = [module.planned_forests(number) for number in range(module.windows_per_epoch)]
    sizes = [[sum(tree.size for tree in forest) for forest in forests] for forests in packed]
    return Fill(
        case=case,
        window=window,
        budget=module.token_budget,
        windows=len(sizes),
        forests=sum(map(len, sizes)),
        fewest=sum(math.ceil(sum(of_window) / module.token_budget) for of_window in sizes),
        tokens=sum(map(sum, sizes)),
    )


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one pass of DPO over some tables, the reference run in it.

    Attributes:
        ours: On forests.
        peer: On TRL's padded batches, with checkpointing.
    """

    ours: float
    peer: float

    @property
    def ratio(self) -> float:
        """Ours to the peer's."""
        return self.ours / self.peer


def dpo_flops(groups: Sequence[Sequence[Tree]], forests: Sequence[TokenForest], shape: ModelShape) -> StepFlops:
    """Count a pass over tables.

    Args:
        groups: Their trees, a list a forest; the peer takes the pairs in this order.
        forests: The same, built.
        shape: Of the model.
    """
    lengths = [len(path.tokens) for group in groups for tree in group for path in tree.paths]
    rows = attended = answers = 0.0
    for forest in forests:
        rows += len(forest)
        answers += len(forest.pair_rows)
        for call in plan_attention(forest):
            keys = sum(end - start for start, end in call.keys)
            attended += (call.queries[1] - call.queries[0]) * keys * (1.0 if call.mask is not None else 0.5)
    answers_of_peer = sum(int((path.classes == 1).sum()) for group in groups for tree in group for path in tree.paths)
    batches = [lengths[at : at + 2 * TABLE_BATCH] for at in range(0, len(lengths), 2 * TABLE_BATCH)]
    padded = sum(len(batch) * max(batch) for batch in batches)
    padded_attended = sum(len(batch) * max(batch) ** 2 / 2 for batch in batches)
    # Passes over layers, passes over attention (backward: 2.5), products of the head.
    return StepFlops(
        ours=_flops(shape, rows, attended, answers, layers=3, attention=2 + 2.5, head=3),
        peer=_flops(shape, padded, padded_attended, answers_of_peer, layers=4, attention=3 + 2.5, head=4),
    )


def _flops(
    shape: ModelShape, rows: float, attended: float, scored: float, layers: float, attention: float, head: float
) -> float:
    width = shape.heads + shape.key_value_heads
    layer = shape.hidden * (2 * shape.head_dim * width + 3 * (shape.intermediate or 3 * shape.hidden))
    products = 4 * shape.heads * shape.head_dim * attended * attention
    return shape.layers * (2 * layer * rows * layers + products) + 2 * shape.hidden * shape.vocabulary * scored * head


def tat_qa_module(path: Path, tokenizer: str, larger: int) -> tuple[PlannedDataModule, int]:
    """TAT-QA as ``configs/dpo/qwen3-1.7b-tatqa.yaml`` packs it, windows ``larger`` times as large; and the window."""
    settings = _settings("dpo/qwen3-1.7b-tatqa.yaml")
    window = larger * settings["window"]
    module = PreferenceDataModule(
        tokenizer, [TATQA(str(path), prompt=PROMPT)], window=window, token_budget=settings["token_budget"],
        lengths=Lengths(**settings["lengths"]),
    )  # fmt: skip
    return _set_up(module), window


def t_wix_module(path: Path, tokenizer: str, larger: int) -> tuple[PlannedDataModule, int]:
    """Rows of T-Wix as ``configs/sft/qwen3-1.7b-twix.yaml`` packs them, windows ``larger`` times as large."""
    settings = _settings("sft/qwen3-1.7b-twix.yaml")
    window = larger * settings["window"]
    module = SFTDataModule(
        tokenizer, [TWix(str(path))], bad_rows="drop", window=window, token_budget=settings["token_budget"],
        lengths=Lengths(**settings["lengths"]),
    )  # fmt: skip
    return _set_up(module), window


def _settings(name: str) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))["data"]["init_args"]
    return settings


def _set_up(module: Any) -> PlannedDataModule:
    # What the module asks of Lightning's trainer: where the run stands, and that there is one process.
    module.trainer = SimpleNamespace(global_step=0, global_rank=0, world_size=1)
    module.setup("fit")
    planned: PlannedDataModule = module
    return planned


def main(arguments: list[str]) -> None:
    """Count, print the tables, write them to ``packing.md`` and ``packing.json``.

    Args:
        arguments: The command line after ``packing``; ``--help`` explains.

    Raises:
        SystemExit: Neither file is given, or no tokenizer.
    """
    options = _parser().parse_args(arguments)
    if not options.tokenizer or not (options.tatqa or options.twix):
        raise SystemExit("packing needs --tokenizer, and --tatqa or --twix")
    fills, flops, facts = [], {}, {"versions": versions(("transformers", "tokenizers"))}
    for case, path, make in (("TAT-QA", options.tatqa, tat_qa_module), ("T-Wix", options.twix, t_wix_module)):
        for larger in (1, LARGER) if path else ():
            module, window = make(path, options.tokenizer, larger)
            fills.append(fill_of(f"{case}, {path.name}", module, window))
            if case == "TAT-QA" and larger == 1:
                flops = _whole_and_chosen(module, path, options)
    text = _markdown(fills, flops, options.dims)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "packing.md").write_text(text, encoding="utf-8")
    content = {
        **facts,
        "fills": [asdict(one) for one in fills],
        "flops": {name: asdict(one) for name, (one, _) in flops.items()},
    }
    (options.output / "packing.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(text)


def _whole_and_chosen(
    module: PlannedDataModule, path: Path, options: argparse.Namespace
) -> dict[str, tuple[StepFlops, str]]:
    """FLOPs and profile of the whole file, and of the tables that `dpo` measures."""
    shape = DIMS[options.dims]
    packed = [forest for number in range(module.windows_per_epoch) for forest in module.planned_forests(number)]
    built = [TokenForest.build([tree.paths for tree in forest]) for forest in packed]
    chosen = like_the_file(path, options.tokenizer, options.tables, 151_936)
    windows = [window.window() for window in chosen.windows]
    groups = [
        [one.trees[name] for name in window.examples] for one, window in zip(chosen.windows, windows, strict=True)
    ]
    forests = [forest for window in windows for forest in window.forests]
    return {
        "the whole file": (dpo_flops(packed, built, shape), str(chosen.whole)),
        f"{chosen.tables} tables of `dpo`": (dpo_flops(groups, forests, shape), str(chosen.profile)),
    }


def _markdown(fills: Sequence[Fill], flops: dict[str, tuple[StepFlops, str]], dims: str) -> str:
    lines = [
        "# How full forests are\n",
        "| data | window | budget | windows | forests a window | fill | reachable | goal |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
        *(one.row() for one in fills),
    ]
    if flops:
        lines += [
            f"\n## DPO on TAT-QA, FLOPs on paper, dimensions {dims}\n",
            "| tables | | ours, TFLOP | TRL's defaults, TFLOP | ours / TRL |",
            "|---|---|---:|---:|---:|",
        ]
        lines += [
            f"| {name} | {profile} | {one.ours / 1e12:,.0f} | {one.peer / 1e12:,.0f} | {one.ratio:.3f} |"
            for name, (one, profile) in flops.items()
        ]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks packing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--tatqa", type=Path, help="tatqa_dataset_dev.json or another file of TAT-QA with answers")
    add("--twix", type=Path, help="a file with the columns of T-Wix")
    add("--tokenizer", default=os.environ.get("LIT_ALIGN_QWEN3_TOKENIZER"), help="folder of Qwen3's tokenizer")
    add("--tables", type=int, default=20, help="tables that `dpo` measures; default %(default)s")
    add("--dims", choices=DIMS, default="1.7b", help="shape that FLOPs are counted for; default %(default)s")
    add("--output", type=Path, default=Path(__file__).parent / "results", help="default: benchmarks/results")
    return parser

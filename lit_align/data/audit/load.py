"""What an epoch costs: windows, tokens, what sharing saves, how full the forests are; and the realised mix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from lit_align.data.audit.examples import example_paths
from lit_align.data.audit.table import Cell, Measured, Table
from lit_align.data.mix import Mix
from lit_align.data.window_module import PlannedDataModule
from lit_align.forest import TokenClass

_MOST_WINDOWS = 100


def epoch_load(data: PlannedDataModule) -> Measured:
    """Windows, tokens and forests of an epoch, estimated from up to a hundred of its windows, evenly spread.

    Args:
        data: A data module that is set up.
    """
    windows = data.windows_per_epoch
    looked_at = np.unique(np.linspace(0, windows - 1, min(windows, _MOST_WINDOWS)).round().astype(int))
    tokens = trained = rows = forests = 0
    for window in tqdm(looked_at.tolist(), desc="packing windows", delay=2, leave=False, unit=" windows"):
        for forest in data.planned_forests(window):
            forests += 1
            rows += sum(tree.size for tree in forest)
            paths = [path for tree in forest for path in tree.paths]
            tokens += sum(len(path.tokens) for path in paths)
            own = [path for tree in forest for path in example_paths(tree, data.holds) if path.weight]
            trained += sum(int((path.classes == TokenClass.ANSWER).sum()) for path in own)
    scale = windows / len(looked_at)
    row: tuple[Cell, ...] = (
        windows, round(tokens * scale), round(trained * scale), round(rows * scale), round(tokens / rows, 2),
        round(forests / len(looked_at), 2), rows / forests / data.token_budget,
    )  # fmt: skip
    about = (
        f"Of {len(looked_at)} of {windows} windows, one process. Tokens are those of all examples, each whole; rows "
        "are what the model computes of them once what they share is shared; `shared` is tokens a row."
    )
    columns = (
        "windows",
        "tokens",
        "answer tokens trained",
        "rows",
        "shared",
        "forests a window",
        "budget filled, share",
    )
    return Measured((Table("an epoch", about, columns, (row,)),))


def realised_mix(data: PlannedDataModule, mixes: Mapping[str, Mix]) -> Measured:
    """Share of each source in what an epoch trains, and the share that was asked for.

    Args:
        data: A data module that is set up.
        mixes: The mix of the data by stage, if there are any; the name of a run without stages is empty.
    """
    counts, tokens = Counter[str](), Counter[str]()
    for tree in data.parts["training"]:
        for path in example_paths(tree, data.holds):
            counts[path.source] += 1
            tokens[path.source] += int((path.classes == TokenClass.ANSWER).sum())
    answers = 2 if data.holds == "pairs" else 1
    rows: list[tuple[Cell, ...]] = []
    for source, number in counts.items():
        asked = "; ".join(
            f"{weight / sum(mix.weights.values()):.1%} of the {mix.of} ({key})"
            for stage, mix in mixes.items()
            for key, weight in mix.weights.items()
            if f"{source}/".startswith(f"{stage}/{key}/".removeprefix("/"))
        )
        shares = number / counts.total(), tokens[source] / max(1, tokens.total())
        rows.append((source, number // answers, shares[0], tokens[source], shares[1], asked))
    columns = ("source", data.holds, f"{data.holds}, share", "answer tokens", "answer tokens, share", "asked for")
    return Measured((Table("mix", "What is trained, by source.", columns, tuple(rows)),))

"""Ranks together measure each tree once, in the order of the trees, and what each returns is all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
import torch

from lit_align.data.windows import Tree
from lit_align.evals import dealing
from lit_align.evals.dealing import dealt
from lit_align.forest import TokenForest, TokenPath
from lit_align.models.policy import Policy

POLICY = cast(Policy, type("OnCPU", (), {"device": torch.device("cpu")}))


def tree(number: int) -> Tree:
    paths = tuple(TokenPath(np.array([1, 2, n], np.int32), np.ones(3, np.uint8), f"{number}") for n in range(number))
    return Tree(str(number), paths, 2 + number)


def names(tree: Tree, forest: TokenForest) -> list[str]:
    assert len(forest) == tree.size
    return [path.example for path in tree.paths]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_each_tree_is_measured_by_one_rank(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = [tree(number) for number in (3, 1, 2, 4, 1)]
    alone = dealt(POLICY, trees, names, None)
    assert alone == [path.example for one in trees for path in one.paths]

    measured: list[list[str]] = []
    shares: dict[int, Any] = {}

    def noted(tree: Tree, forest: TokenForest) -> list[str]:
        measured.append(names(tree, forest))
        return measured[-1]

    def all_ranks(own: Mapping[int, Any]) -> dict[int, Any]:
        shares.update(own)
        return dict(sorted(shares.items()))

    monkeypatch.setattr(dealing, "gathered", all_ranks)
    for rank in range(world):
        monkeypatch.setattr(dealing, "rank_and_world", lambda rank=rank: (rank, world))
        together = dealt(POLICY, trees, noted, None)

    assert len(measured) == len(trees)
    assert together == alone

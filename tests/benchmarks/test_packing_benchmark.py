"""Fill and FLOPs worked out by hand, and the shipped settings on made tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tat_qa_tables import table_of, write

from benchmarks import packing
from benchmarks.contender import ModelShape
from benchmarks.dpo import tables
from benchmarks.packing import Fill, dpo_flops, fill_of, tat_qa_module
from lit_align.data.windows import Tree
from lit_align.forest import TokenForest, TokenPath


def test_a_fill_is_judged_by_the_whole_budget() -> None:
    row = Fill("x", window=4, budget=1000, windows=2, forests=5, fewest=4, tokens=3600).row()
    assert row == "| x | 4 | 1,000 | 2 | 2.50 | 72.0% | 90.0% | >= 95%: missed |"
    assert Fill("x", 4, 1000, 1, 1, 1, tokens=950).row().endswith(">= 95%: met |")


def test_an_epoch_is_counted_forest_by_forest(tmp_path: Path) -> None:
    path = Path(write(tmp_path, [table_of(number) for number in range(12)]))
    module, window = tat_qa_module(path, "tiny-qwen3", larger=1)
    one = fill_of("made", module, window)
    assert (one.window, one.budget, one.windows) == (32, 4096, module.windows_per_epoch)
    sizes = [len(forest) for window_ in module.training_windows() for forest in window_.forests]
    assert (one.forests, one.tokens) == (len(sizes), sum(sizes))
    assert one.fewest <= one.forests
    assert 0 < one.fill <= one.reachable <= 1


def test_flops_are_those_of_a_pair_by_hand() -> None:
    # A prompt of 3 tokens, answers of 2 and 1: 6 rows in a forest, 5 + 4 tokens for the peer, padded to 10.
    prompt, answers = [3, 4, 5], [[6, 7], [8]]
    paths = tuple(
        TokenPath(np.array([*prompt, *answer], np.int32), np.array([0] * 3 + [1] * len(answer), np.uint8), "x")
        for answer in answers
    )
    shape = ModelShape(10, hidden=4, layers=2, heads=2, key_value_heads=1, head_dim=2, intermediate=8)
    found = dpo_flops([[Tree("x", paths, 6)]], [TokenForest.build([paths])], shape)
    layer = 4 * 4 + 2 * 4 * 2 + 4 * 4 + 3 * 4 * 8  # queries, keys and values, output, MLP
    # The trunk (5 rows, causal), and the second answer (1 row) with the prompt and itself as keys.
    attended = 5 * 5 / 2 + 1 * 4
    head = 2 * 4 * 10 * 3
    assert found.ours == 2 * (2 * layer * 6 * 3 + 4 * 2 * 2 * attended * 4.5) + head * 3
    assert found.peer == 2 * (2 * layer * 10 * 4 + 4 * 2 * 2 * (2 * 25 / 2) * 5.5) + head * 4
    assert found.ratio == found.ours / found.peer


def test_the_command_writes_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LIKE", 1.0)  # few tables, for time
    path = write(tmp_path, [table_of(number) for number in range(8)])
    packing.main(["--tatqa", str(path), "--tokenizer", "tiny-qwen3", "--tables", "4", "--output", str(tmp_path)])
    text = (tmp_path / "packing.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    assert "| 4 tables of `dpo` | " in text
    content = json.loads((tmp_path / "packing.json").read_text())
    assert [one["window"] for one in content["fills"]] == [32, 128]
    assert all(0 < one["ours"] < one["peer"] for one in content["flops"].values())


def test_missing_files_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="packing needs --tokenizer, and --tatqa or --twix"):
        packing.main(["--tokenizer", "tiny-qwen3"])

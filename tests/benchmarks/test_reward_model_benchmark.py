"""The reward model that is made here learns, and is a reward model to everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import reward_model
from lit_align.evals.judge import CalibratedMap, RewardModelScorer


def test_a_model_made_here_goes_through_scorer_and_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_model, "KEPT", 2)
    monkeypatch.setattr(reward_model, "TRAINED", 1)
    rows = [
        {
            "instruction": f"Question {i}",
            "input": "",
            "chosen": f"Yes, of course: {i}",
            "rejected": f"No way, fool: {i}",
        }
        for i in range(80)
    ]
    Path("pairs.json").write_text(json.dumps(rows), encoding="utf-8")
    words = ["--data=pairs.json", "--base=tiny-qwen3", "--folder=made", "--out=results", "--steps=12", "--lr=5e-3"]
    reward_model.main(words)
    page = Path("results/reward-model.md").read_text(encoding="utf-8")
    [test] = [line for line in page.splitlines() if line.startswith("| test, reward")]
    assert float(test.split("|")[3].split()[0]) > 0.9
    RewardModelScorer("made", CalibratedMap("made/calibration.json")).check()
    held, test_rows = (Path(f"made/{name}.jsonl").read_text(encoding="utf-8") for name in ("held", "test"))
    prompts = [{json.loads(line)["prompt"] for line in text.splitlines()} for text in (held, test_rows)]
    assert not prompts[0] & prompts[1]

"""A run of stages, exported by its folders alone, is the policy that the run ended with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from in_process import fit, shown_line
from staged_runs import progressive

from lit_align.cli import main
from lit_align.commands.export import MANIFEST

RUN = Path("lightning_logs/run/version_0")
TOKENS = torch.tensor([[3, 17, 44, 9, 60, 21, 8, 30]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=TOKENS).logits
    return found


class LastLogits(pl.Callback):
    """Keep what the policy says when its run ends."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        del trainer
        torch.save(logits(pl_module.policy.causal_lm.eval()), "last-logits.pt")


@pytest.mark.slow
def test_the_stages_of_a_run_become_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM

    assert fit(progressive(callbacks=[{"class_path": "test_export_runs.LastLogits"}])) == 0
    stages = json.loads((RUN / "stages.json").read_text(encoding="utf-8"))["stages"]
    paths = [str(RUN / path) for path in stages[-1]["policy"]]
    assert len(paths) == 2, "the third stage went on with the second"
    capsys.readouterr()
    words = [*(f"--adapters+={path}" for path in paths), "--limit=4", "--max_new_tokens=4", "--device=cpu"]
    assert main(["export", f"--adapters={paths[-1]}", "--form=OneAdapter", "--out=alone"]) == 1
    assert f"was trained on top of {stages[-1]['below'][0]}" in shown_line(capsys)
    assert main(["export", *words, "--form=MergedWeights", "--form.dtype=float32", "--out=merged"]) == 0
    told = json.loads(Path("merged", MANIFEST).read_text(encoding="utf-8"))
    assert told["base"]["name"] == "tiny-qwen3"
    assert told["rank"] == 7
    assert told["drift"]["kl"]["mean"] < 1e-10
    merged = AutoModelForCausalLM.from_pretrained("merged", dtype="auto")
    torch.testing.assert_close(logits(merged), torch.load("last-logits.pt", weights_only=True), rtol=1e-4, atol=1e-4)

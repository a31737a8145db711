"""What a whole run costs beyond forward and backward: `lit-align fit` with all that belongs to it.

`lit-align fit` is run on a random model of a real shape, with made conversations or made pairs that share their context
six by six. From the end of the first window to the end of training, which the last checkpoint is part of, process CPU
time is dealt out in two: losses and their gradients (policy and reference forward, head, backward), and everything else
(data loader, packing, Lightning's loop, clipping, optimizer, logging to TensorBoard and CSV, checkpoint). One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from typing_extensions import override

from benchmarks.contender import ModelShape
from benchmarks.dims import DIMS
from benchmarks.facts import facts_of, write_results
from benchmarks.measuring import KEEP_MEMORY, NO_BARS, ONE_THREAD, in_own_process

GOAL = 0.05
CASES = ("SFT+KL", "DPO, six questions on one table")
WINDOW = {"SFT+KL": 4, "DPO, six questions on one table": 12}
PACKAGES = ("torch", "transformers", "peft", "lightning")


class LoopClock(pl.Callback):
    """Deals the CPU time of a fit out to losses with their gradients, and the rest.

    Args:
        path: JSON file that is written at the end of training.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._graded = 0.0
        self._begun: float | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Measure around what the module computes."""
        module: Any = pl_module
        for name in ("forest_loss", "manual_backward"):
            setattr(module, name, self._around(getattr(module, name)))

    def _around(self, function: Any) -> Any:
        def measured(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._graded += time.process_time() - start

        return measured

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin after the first window."""
        if self._begun is None:
            self._graded, self._begun = 0.0, time.process_time()

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what was measured."""
        assert self._begun is not None
        whole = time.process_time() - self._begun
        facts = {"windows": trainer.global_step - 1, "seconds": whole, "graded": self._graded}
        self._path.write_text(json.dumps(facts), encoding="utf-8")


@dataclass(frozen=True)
class LoopCost:
    """What a run took.

    Attributes:
        case: Of :data:`CASES`.
        windows: Counted windows.
        seconds: CPU seconds of all of them.
        graded: Of these, the seconds in losses and their gradients.
    """

    case: str
    windows: int
    seconds: float
    graded: float

    @property
    def beyond(self) -> float:
        """What the rest adds to forward and backward, as a share of these.

        Example:
            >>> round(LoopCost("DPO", 10, seconds=10.3, graded=10.0).beyond, 3)
            0.03
        """
        return (self.seconds - self.graded) / self.graded

    def row(self) -> str:
        """As a line of a Markdown table."""
        verdict = "met" if self.beyond <= GOAL else "missed"
        a_window = f"{self.seconds / self.windows:.3f} | {self.graded / self.windows:.3f}"
        return f"| {self.case} | {self.windows} | {a_window} | {self.beyond:.1%} | <= {GOAL:.0%}: {verdict} |"


def fit(case: str, shape: ModelShape, windows: int, tokens: int) -> LoopCost:
    """Run `lit-align fit` once; to be called in a process of its own, whose folder it changes.

    Args:
        case: Of :data:`CASES`.
        shape: Of the model.
        windows: Counted windows; one more is run.
        tokens: About the tokens of a conversation, or of what six questions share.

    Raises:
        SystemExit: The run failed.
    """
    from lit_align import cli
    from lit_align.tokenizer import load_tokenizer

    torch.set_num_threads(1)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape.save(folder / "base")
        load_tokenizer("tiny-qwen3").save_pretrained(folder / "base")
        rows = _rows(case, (windows + 2) * WINDOW[case], tokens)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (folder / "config.yaml").write_text(yaml.safe_dump(_config(case, windows + 1, tokens)), encoding="utf-8")
        os.chdir(folder)
        try:
            status = cli.main(["fit", "-c", "config.yaml"])
            if status:
                raise SystemExit(f"{case}: lit-align fit ended with {status}; its message stands above")
            facts = json.loads(Path("clock.json").read_text(encoding="utf-8"))
        finally:
            os.chdir(before)
            shutil.rmtree(folder / "lightning_logs", ignore_errors=True)
    return LoopCost(case, **facts)


def _rows(case: str, count: int, tokens: int) -> list[dict[str, Any]]:
    """Made texts; every word is about four tokens of the bundled tokenizer."""
    draw = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]

    def text(words: int) -> str:
        return " ".join("".join(draw.choices(syllables, k=2)) for _ in range(words))

    words = tokens // 4
    if case == CASES[0]:
        return [{"prompt": text(words // 4), "completion": text(words - words // 4)} for _ in range(count)]
    rows = []
    for table in range(count // 6):
        context = text(words)
        for _ in range(6):
            prompt = f"{context}\n{text(10)}"
            rows.append({"prompt": prompt, "chosen": text(3), "rejected": text(3), "group": f"table {table}"})
    return rows


def _config(case: str, steps: int, tokens: int) -> dict[str, Any]:
    sft = case == CASES[0]
    source: dict[str, Any] = {"path": "rows.jsonl"}
    if not sft:
        source["group"] = "group"
    module: dict[str, Any] = {"base": "./base", "weights": {"dtype": "float32"}, "lora": {"rank": 8, "alpha": 16}}
    if sft:
        module["anchor"] = {"coef": 0.03, "tail_tokens": 128}
    return {
        "seed_everything": 0,
        "cpu_threads": 1,
        "model": {"class_path": "SFTModule" if sft else "DPOModule", "init_args": module},
        "data": {
            "class_path": "SFTDataModule" if sft else "PreferenceDataModule",
            "init_args": {
                "sources": [{"class_path": "PromptCompletionFile" if sft else "PreferenceFile", "init_args": source}],
                "val_fraction": 0.0,
                "window": WINDOW[case],
                "token_budget": max(2_048, 4 * tokens),
                "lengths": {"max_length": max(1_024, 2 * tokens)},
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "max_steps": steps,
            "callbacks": [{"class_path": "benchmarks.loop.LoopClock", "init_args": {"path": "clock.json"}}],
        },
    }


def main(arguments: list[str]) -> None:
    """Measure, print the table, write it to ``loop.md`` and ``loop.json``.

    Args:
        arguments: The command line after ``loop``; ``--help`` explains.

    Raises:
        SystemExit: A wrong option, or a run that failed.
    """
    options = _parser().parse_args(arguments)
    if options.windows < 1:
        raise SystemExit(f"--windows must be at least 1, got {options.windows}")
    costs = []
    for case in CASES:
        print(f"{case}: lit-align fit, {options.windows + 1} windows", file=sys.stderr, flush=True)
        process = ONE_THREAD | KEEP_MEMORY | NO_BARS
        costs.append(in_own_process(process, fit, case, DIMS[options.dims], options.windows, options.tokens))
    rows = [
        "| case | windows | a window, CPU s | of this forward and backward, s | beyond them | goal |",
        "|---|---:|---:|---:|---:|---|",
        *(cost.row() for cost in costs),
    ]
    parts = ["# What a run costs beyond forward and backward", "\n".join(rows)]
    content = {"runs": [asdict(cost) for cost in costs]}
    print(write_results(options.output, "loop", parts, facts_of(options, PACKAGES), content))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--dims", choices=DIMS, default="smollm2-135m", help="shape of the model; default %(default)s")
    add("--windows", type=int, default=8, help="counted windows; default %(default)s")
    add("--tokens", type=int, default=512, help="of a conversation, or of a table, about; default %(default)s")
    add("--output", type=Path, default=Path(__file__).parent / "results", help="default: benchmarks/results")
    return parser

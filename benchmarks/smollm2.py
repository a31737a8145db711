"""The T-Wix recipe on a real model: SmolLM2-135M with and without the anchor, several seeds, on the same held-out rows.

Runs `lit-align fit -c configs/sft/smollm2-135m.yaml` on a local file with T-Wix's columns, once a seed and coefficient,
and then measures each adapter in fp32 on the conversations that no run was trained on: NLL of the answers and the exact
KL(policy || base), per token. Finished runs are kept in the folder and not repeated.

    python -m benchmarks smollm2 --data twix.jsonl --folder smollm2-runs
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.measuring import machine, versions
from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mixture import split
from lit_align.data.sources.t_wix import TWix
from lit_align.data.tokenising import Tokenising
from lit_align.forest import TokenForest
from lit_align.losses.anchor import ReverseKL
from lit_align.metrics.statistics import Interval, mean_interval, paired_summary
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import only_adapters
from lit_align.ops.frozen_head import score_tokens
from lit_align.tokenizer import load_tokenizer

CONFIG = Path("configs/sft/smollm2-135m.yaml")
BF16 = Path("configs/overlays/bf16.yaml")
NATS = (0.0, float("inf"))  # bounds of a per-token NLL or KL

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Per-token measurements on the held-out answers.

    Attributes:
        nll: Nats, shape ``(tokens,)``.
        kl: KL(policy || base), nats, shape ``(tokens,)``.
    """

    nll: Floats
    kl: Floats


def main(arguments: list[str]) -> None:
    """Run what is missing, measure all adapters, write the table.

    Args:
        arguments: The command's options, without its name.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks smollm2", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="file with the columns messages and subset")
    parser.add_argument("--folder", type=Path, default=Path("smollm2-runs"), help="where the runs are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--coefs", type=float, nargs="+", default=[0.0, 0.03], help="0 is plain SFT and comes first")
    parser.add_argument("--bf16", action="store_true", help="train with the base in bf16 (measured in fp32 anyhow)")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args(arguments)
    if options.coefs[0] != 0 or len(options.coefs) < 2:
        parser.error("--coefs must be 0 and at least one more")
    torch.set_num_threads(1)
    runs = {(coef, seed): _fit(options, coef, seed) for seed in options.seeds for coef in options.coefs}
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    forests = _held_out(options.data, settings)
    base, scores = _measure(forests, settings["model"]["init_args"], runs)
    text = report(base, scores, forests, options, shlex.join(["python", "-m", "benchmarks", "smollm2", *arguments]))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "smollm2.md").write_text(text, encoding="utf-8")
    print(text)


def _fit(options: argparse.Namespace, coef: float, seed: int) -> Path:
    """The checkpoint of a finished run."""
    root: Path = options.folder
    # Whatever else decides the run's numbers is in the name: a finished run is reused for just these.
    data = hashlib.sha256(options.data.read_bytes()).hexdigest()[:8]
    number = "bf16" if options.bf16 else "fp32"
    folder = root / f"coef-{coef:g}-seed-{seed}-{number}-steps-{options.steps}-data-{data}"
    done = sorted(folder.glob("lightning_logs/*/version_*/adapter/adapter_model.safetensors"))
    if not done:
        folder.mkdir(parents=True, exist_ok=True)
        whole = {"path": str(options.data.absolute()), "subset": "both", "limit": None}
        source = {"class_path": "TWix", "init_args": whole}
        (folder / "data.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"sources": [source]}}}))
        configs = [CONFIG.absolute(), *([BF16.absolute()] if options.bf16 else []), "data.yaml"]
        words = ["fit", *(word for path in configs for word in ("-c", str(path)))]
        words += ["--seed_everything", str(seed), "--data.seed", str(seed), "--model.anchor.coef", str(coef)]
        words += ["--trainer.max_steps", str(options.steps)]
        print(f"coefficient {coef:g}, seed {seed}: lit-align {shlex.join(words)}", flush=True)
        subprocess.run([sys.executable, "-m", "lit_align", *words], cwd=folder, check=True)
        done = sorted(folder.glob("lightning_logs/*/version_*/adapter/adapter_model.safetensors"))
    return done[-1].parent.parent / "checkpoints" / "last.ckpt"


def _held_out(path: Path, settings: dict[str, Any]) -> list[TokenForest]:
    """A forest for each conversation of the validation split that the configuration makes."""
    data = settings["data"]["init_args"]
    base = settings["model"]["init_args"]["base"]
    _, held_out = split(TWix(str(path), subset="both").conversations(), data["val_fraction"], seed=0)
    part = Tokenising(
        ChatFormat(load_tokenizer(base)), Lengths(**data["lengths"]), "all", data["token_budget"], 1.0,
        data["bad_rows"], "validation",
    )  # fmt: skip
    return [TokenForest.build([tree.paths]) for tree in part.trees(held_out)]


@torch.no_grad()
def _measure(
    forests: Sequence[TokenForest], model: dict[str, Any], runs: dict[tuple[float, int], Path]
) -> tuple[Scores, dict[tuple[float, int], Scores]]:
    """Scores of the base, and of each run's adapter on it."""
    policy = Policy(model["base"], Weights(dtype="float32"), LoRA(**model["lora"]), "tree_sdpa")
    policy.eval()
    with only_adapters(policy, ()):
        base_hidden = [policy.hidden(forest, forest.pair_rows) for forest in tqdm(forests, desc="base")]
    base = _scores(policy, forests, base_hidden, base_hidden)
    found = {}
    for (coef, seed), path in runs.items():
        kept = path.with_name("held-out.npz")
        if kept.exists() and len(np.load(kept)["nll"]) == len(base.nll):
            found[coef, seed] = Scores(**np.load(kept))
            continue
        state = torch.load(path, weights_only=True)["state_dict"]
        adapter = {name.removeprefix("policy."): value for name, value in state.items()}
        if adapter.keys() != policy.adapter_parameters().keys():
            raise ValueError(f"{path}: its adapter is not that of {CONFIG}; remove the folder to run it again")
        policy.load_state_dict(adapter, strict=False)
        bar = tqdm(forests, desc=f"coefficient {coef:g}, seed {seed}")
        hidden = [policy.hidden(forest, forest.pair_rows) for forest in bar]
        found[coef, seed] = _scores(policy, forests, hidden, base_hidden)
        np.savez(kept, nll=found[coef, seed].nll, kl=found[coef, seed].kl)
    return base, found


def _scores(
    policy: Policy, forests: Sequence[TokenForest], hidden: Sequence[torch.Tensor], base: Sequence[torch.Tensor]
) -> Scores:
    nll, kl = [], []
    for forest, own, reference in zip(forests, hidden, base, strict=True):
        scores = score_tokens(
            own, policy.head, forest.pair_tokens, reference_hidden=reference, divergences=[ReverseKL()]
        )
        nll.append(-scores.logps.double()[forest.target_pairs])
        kl.append(scores.divergences[0].double()[forest.target_pairs])
    return Scores(torch.cat(nll).numpy(), torch.cat(kl).numpy())


def report(
    base: Scores,
    scores: dict[tuple[float, int], Scores],
    forests: Sequence[TokenForest],
    options: argparse.Namespace,
    command: str,
) -> str:
    """The table: means over seeds with intervals over conversations, then each seed.

    Args:
        base: Scores of the base.
        scores: Scores by coefficient and seed.
        forests: The held-out conversations, in the order of the scores.
        options: The command's options.
        command: The command, for the note.
    """
    clusters = [str(i) for i, forest in enumerate(forests) for _ in range(len(forest.target_pairs))]
    lines = [
        "| anchor | NLL, nats/token [95% CI] | KL to the base, nats/token [95% CI] | NLL by seed | KL by seed |",
        "|:--|--:|--:|--:|--:|",
        f"| untrained base | {_told(mean_interval(base.nll, clusters, bounds=NATS))} | 0 | | |",
    ]
    means = {}
    for coef in options.coefs:
        mine = [scores[coef, seed] for seed in options.seeds]
        means[coef] = Scores(np.mean([one.nll for one in mine], axis=0), np.mean([one.kl for one in mine], axis=0))
        nll, kl = (mean_interval(values, clusters, bounds=NATS) for values in (means[coef].nll, means[coef].kl))
        seeds = [", ".join(f"{values.mean():.4f}" for values in column) for column in
                 ([one.nll for one in mine], [one.kl for one in mine])]  # fmt: skip
        lines.append(f"| {coef or 'none'} | {_told(nll)} | {_told(kl)} | {seeds[0]} | {seeds[1]} |")
    for coef in options.coefs[1:]:
        nll, kl = (
            paired_summary(plain, anchored, clusters, bounds=NATS).difference
            for plain, anchored in ((means[0.0].nll, means[coef].nll), (means[0.0].kl, means[coef].kl))
        )
        lines.append(f"| {coef} less none | {_told(nll, '+')} | {_told(kl, '+')} | | |")
    facts = [*machine().values(), *(f"{name} {found}" for name, found in versions(["torch", "transformers"]).items())]
    note = (
        f"{len(forests)} held-out conversations, {len(clusters)} answer tokens; {options.steps} steps of 4 examples; "
        f"{len(options.seeds)} seeds, averaged: the intervals are over conversations, not over seeds. Trained with the "
        f"base in {'bf16' if options.bf16 else 'fp32'}, measured in fp32. {', '.join(facts)}. `{command}`"
    )
    return "\n".join([*lines, "", f"*{note}*", ""])


def _told(interval: Interval, sign: str = "") -> str:
    return f"{interval.mean:{sign}.4f} [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"

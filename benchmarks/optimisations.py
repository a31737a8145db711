"""What each optimisation of a step is worth: the step beside itself without it, and beside TRL at its defaults.

An optimisation is taken out of the finished policy again; the package has no option for it. Workloads, adapters and
measurement are those of `dpo` and `sft-kl`: CPU time in turns, one thread; peak memory in a process of its own. Loss
and gradients are held against each other before anything is measured.

  lean LoRA     lit_align/models/lean_lora.py: without it, PEFT's own forward pass
  needed rows   lit_align/models/needed_rows.py: without it, the last layer at all rows
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender, ModelShape, PreparedStep, Work
from benchmarks.dpo import command as dpo
from benchmarks.measuring import KEEP_MEMORY, NO_BARS, ONE_THREAD, in_own_process, machine, versions
from benchmarks.report import Report
from benchmarks.sft_kl import command as sft_kl
from benchmarks.versus import Case, measure_time
from lit_align.models.policy import Policy

LEAN_LORA, NEEDED_ROWS = "lean LoRA", "needed rows"


@dataclass(frozen=True)
class Without(Contender[Work]):
    """Our step with optimisations taken out.

    Attributes:
        ours: The step.
        names: What is taken out, of :data:`REMOVALS`.
    """

    ours: Contender[Work]
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """See :class:`~benchmarks.contender.Contender`."""
        return f"{self.ours.name} without {' and '.join(self.names)}"

    def prepare(self, workload: Work, base: str) -> PreparedStep:
        """See :class:`~benchmarks.contender.Contender`."""
        step = self.ours.prepare(workload, base)
        module: Any = step.model
        for name in self.names:
            REMOVALS[name](module.policy)
        return step


def _peft_forward(policy: Policy) -> None:
    from peft.tuners.lora import Linear

    lean = [part for part in policy.modules() if type(part) is Linear and "forward" in part.__dict__]
    if not lean:
        raise ValueError("no layer of the policy has the lean forward pass: there is nothing to compare")
    for part in lean:
        del part.forward


def _all_rows(policy: Policy) -> None:
    if not policy._slices:
        raise ValueError("the policy computes its last layer at all rows already: there is nothing to compare")
    policy._slices = False


REMOVALS: dict[str, Callable[[Policy], None]] = {LEAN_LORA: _peft_forward, NEEDED_ROWS: _all_rows}


def beside_itself(case: Case[Work]) -> Case[Work]:
    """A case of another command, its first peer kept, the others replaced by ours without optimisations."""
    left_out = [(LEAN_LORA,), (NEEDED_ROWS,), (LEAN_LORA, NEEDED_ROWS)]
    peers = tuple(Without(case.ours, names) for names in left_out)
    return replace(case, peers=(*peers, case.peers[0]), targets={})


def main(arguments: list[str]) -> None:
    """Measure, print the tables, write them to ``optimisations.md`` and ``optimisations.json``.

    Args:
        arguments: The command line after ``optimisations``; ``--help`` explains.

    Raises:
        SystemExit: A wrong option, TRL missing, or sides that do not compute the same.
    """
    options = _parser().parse_args(arguments)
    if importlib.util.find_spec("trl") is None:
        raise SystemExit("optimisations compares with TRL, which is not installed: pip install -e '.[benchmark]'")
    if options.rounds < dpo.LEAST_ROUNDS:
        raise SystemExit(f"--rounds must be at least {dpo.LEAST_ROUNDS} for an interval of 95 %, got {options.rounds}")
    timed = ModelShape(options.vocabulary, options.hidden, options.layers)
    large = ModelShape(options.memory_vocabulary, options.hidden, options.memory_layers)
    report = Report(
        name="optimisations",
        title="Optimisations of a step, each beside the step without it",
        machine=machine(),
        versions=versions(dpo.PACKAGES),
        settings={key: str(value) for key, value in vars(options).items() if key != "output"},
        shapes_of_targets=True,
        overview=True,
    )
    if "time" in options.parts:
        process = ONE_THREAD | KEEP_MEMORY | NO_BARS
        pairs = dpo.time_cases(timed, dpo.made_pairs(timed.vocabulary, options.part), options.rounds)
        report.time += in_own_process(process, measure_time, [beside_itself(case) for case in pairs])
        longest, prompt = round(512 * options.part), round(128 * options.part)
        rows = sft_kl.time_cases(timed, 4, longest, prompt, options.rounds)
        padded = [beside_itself(case) for case in rows if case.name == "SFT+KL, 20% padding"]
        report.time += in_own_process(process, measure_time, padded)
    if "memory" in options.parts:
        for case in dpo.memory_cases(large, dpo.made_pairs(large.vocabulary, options.part)):
            report.memory += beside_itself(case).memory(too_large="set --parts time")
    report.write(options.output)
    print(report.markdown())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks optimisations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    parts = ["time", "memory"]
    add("--parts", nargs="+", choices=parts, default=parts, help="default: both")
    add("--rounds", type=int, default=9, help="counted rounds of time, at least 6; default %(default)s")
    add("--part", type=float, default=1.0, help="lengths as a share of those of `dpo` and `sft-kl`; default 1")
    add("--hidden", type=int, default=256, help="hidden size; default %(default)s")
    add("--layers", type=int, default=6, help="layers of the timed model; default %(default)s")
    add("--vocabulary", type=int, default=5_120, help="of the timed model; default %(default)s")
    add("--memory-layers", type=int, default=4, help="layers of the model of the memory runs; default %(default)s")
    add("--memory-vocabulary", type=int, default=151_936, help="of that model; default %(default)s")
    add(
        "--output", type=Path, default=Path(__file__).parent / "results",
        help="folder of optimisations.md and optimisations.json; default: benchmarks/results",
    )  # fmt: skip
    return parser

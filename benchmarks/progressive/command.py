"""Progressive DPO beside its alternatives, on the bundled Qwen3 and the three domains of the progressive quickstart.

Three arms of equal length, by the command `lit-align fit`: the quickstart as it is, whose stages are compared with the
end of the stage before; the same stages compared with the bare base; and one joint run on the same pairs at the shares
that they have over all stages, with one adapter of as many parameters. The seeds draw adapters and the order of the
pairs; the held-out items are the same. Finished runs are kept in a folder and not repeated.

    python -m benchmarks progressive
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml
from tqdm import tqdm

from benchmarks.measuring import machine, versions
from benchmarks.progressive.measured import measured
from benchmarks.progressive.report import (
    Comparison,
    costs_table,
    differences_table,
    ends_table,
    stages_table,
    transfer_table,
    verdict,
)
from benchmarks.progressive.runs import ARMS, QUICKSTART, Run, run_of


def main(arguments: list[str]) -> None:
    """Run what is missing, then write the tables.

    Args:
        arguments: The command's options, without its name.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks progressive", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, default=Path("progressive-runs"), help="where the runs are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds (default 0 1 2)")
    parser.add_argument("--config", type=Path, default=QUICKSTART, help="what the arms depart from")
    options = parser.parse_args(arguments)
    if len(set(options.seeds)) < len(options.seeds):
        parser.error("--seeds must differ")
    quickstart = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    # By seed: whatever is finished first is a whole comparison.
    runs = [run_of(arm, seed, options.folder, quickstart) for seed in options.seeds for arm in ARMS]
    missing = [run for run in runs if not run.is_finished]
    print(
        f"{len(runs)} runs; {len(runs) - len(missing)} of them are in {options.folder} and are not repeated", flush=True
    )
    for run in tqdm(missing, desc="runs", unit="run", delay=2):
        run.fit()
    text = report(runs, shlex.join(["python", "-m", "benchmarks", "progressive", *arguments]))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "progressive.md").write_text(text, encoding="utf-8")
    print(text)


def report(runs: Sequence[Run], command: str) -> str:
    """The tables of finished runs.

    Args:
        runs: A run for each seed and arm.
        command: As typed, for the record.
    """
    arms = list(ARMS)
    seeds = list(dict.fromkeys(run.seed for run in runs))
    comparison = Comparison({arm: [measured(run) for run in runs if run.arm == arm] for arm in arms})
    [joint] = [run.config for run in runs if (run.arm, run.seed) == ("joint", seeds[0])]
    model, data = joint["model"]["init_args"], joint["data"]["init_args"]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in data["mix"]["weights"].items())
    counts = {domain: (len(own), len(set(own))) for domain, own in comparison.clusters.items()}
    note = (
        f"Held-out pairs, items (clusters): {', '.join(f'{domain} {n} ({k})' for domain, (n, k) in counts.items())}. "
        f"`accuracy`: the policy alone finds the chosen answer likelier. Training seeds {', '.join(map(str, seeds))} "
        "draw adapters and the order of the pairs; the items stay the same. Intervals, 95 %: percentile bootstrap, "
        "4,000 resamples over clusters and over seeds, the same resamples for all arms, so differences are paired; "
        "where all clusters and seeds agree, the bound on what the clusters may have missed. They cover other items of "
        "this kind and other seeds, not other data, models or tasks; with few seeds the seeds' share is understated. "
        "Nothing is corrected for the number of comparisons."
    )
    setup = (
        f"Bundled tiny Qwen3, {comparison.windows} windows of {data['window']} pairs in each arm. Joint: {shares} of "
        f"the pairs, one adapter of rank {model['lora']['rank']}, the sum of the stages' ranks, with their scale; "
        "reference: the base; one cosine over all windows, where each stage has its own."
    )
    used = versions(["torch", "transformers", "peft", "lightning"])
    facts = [f"{name} {one}" for name, one in {**machine(), **used}.items()]
    parts = [
        "# Progressive preference training beside its alternatives", f"`{command}`", setup,
        "Accuracy at the end, mean over seeds (by seed):", ends_table(comparison, arms), verdict(comparison, arms),
        "Differences of accuracy at the end:", differences_table(comparison, arms),
        "After each stage:", stages_table(comparison, arms),
        "Backward transfer, accuracy at the end less that after the stage itself (below 0 is forgetting):",
        transfer_table(comparison, arms), costs_table(comparison, arms, runs), note, f"{', '.join(facts)}.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"

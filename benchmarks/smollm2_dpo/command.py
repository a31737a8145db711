"""DPO on top of SFT with a real model: SmolLM2-135M on TAT-QA, three losses, two kinds of rejected answers.

The tables of the published file are parted by a hash: some train SFT on the gold answers, some make pairs, a fifth is
held out. The SFT model answers the questions of the pairs' tables; where it is wrong by the official metric, its answer
is the on-policy rejected one. Each DPO run starts from the SFT adapter and is compared with it; all share one cache of
the reference's log-probs. Everything finished is kept in the folder and not repeated.

    python -m benchmarks smollm2-dpo --tatqa tatqa_dataset_dev.json --jobs 2
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from benchmarks.measuring import machine, versions
from benchmarks.smollm2_dpo import runs
from benchmarks.smollm2_dpo.report import COLUMNS, Scores, pairwise, table
from benchmarks.smollm2_dpo.runs import LOSSES, Run
from benchmarks.smollm2_dpo.tables import Parts, cut, digest
from lit_align.data.chat import ChatFormat
from lit_align.tokenizer import load_tokenizer


def main(arguments: list[str]) -> None:
    """Run what is missing, measure all models, write the table.

    Args:
        arguments: The command's options, without its name.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks smollm2-dpo", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--tatqa", type=Path, required=True, help="a published file with answers")
    parser.add_argument("--folder", type=Path, default=Path("smollm2-dpo-runs"), help="where the runs are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the table")
    parser.add_argument("--longest", type=int, default=640, help="tables with a longer prompt are left out (tokens)")
    parser.add_argument("--sft-windows", type=int, default=24)
    parser.add_argument("--windows", type=int, default=12, help="of twelve pairs, a run")
    parser.add_argument("--pair-tables", type=int, default=40, help="tables of which pairs are made")
    parser.add_argument("--held-out-tables", type=int, default=18, help="tables that are measured, six questions each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--negatives", nargs="+", choices=["built", "on-policy"], default=["built", "on-policy"])
    parser.add_argument("--groups", nargs="+", choices=["table", "question"], default=["table", "question"])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of one thread each")
    parser.add_argument("--report", action="store_true", help="write the table of all that is finished, run nothing")
    options = parser.parse_args(arguments)
    root: Path = options.folder / (
        f"{digest(options.tatqa)}-longest-{options.longest}-sft-{options.sft_windows}-windows-{options.windows}"
        f"-tables-{options.pair_tables}-{options.held_out_tables}"
    )
    most = {"pairs": options.pair_tables, "held-out": options.held_out_tables}
    parts = cut(options.tatqa, root / "tables", ChatFormat(load_tokenizer(runs.BASE)), options.longest, most)
    study = Study(root, parts, options.sft_windows, options.windows)
    if not options.report:
        todo = [Run(*one) for one in product(options.losses, options.negatives, options.groups, options.seeds)]
        study.run(sorted(todo, key=lambda one: one.group != "table"), options.jobs)
    command = shlex.join(["python", "-m", "benchmarks", "smollm2-dpo", *arguments])
    text = study.report(command)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "smollm2-dpo-scores.md").write_text(text, encoding="utf-8")
    print(text)


class Study:
    """The models of the study and where they lie.

    Args:
        root: Folder of the study.
        parts: The tables.
        sft_windows: Windows of SFT.
        windows: Windows of a DPO run.
    """

    def __init__(self, root: Path, parts: Parts, sft_windows: int, windows: int) -> None:
        self.root, self.parts, self.sft_windows, self.windows = root, parts, sft_windows, windows

    def run(self, todo: list[Run], jobs: int) -> None:
        """Train and measure what is missing.

        Args:
            todo: The preference runs.
            jobs: Runs at a time.
        """
        sft = runs.sft(self.root / "sft", self.parts, self.sft_windows)
        held_out = runs.sample(self.root / "samples-held-out", self.parts.held_out, sft, k=2)
        with ThreadPoolExecutor(jobs) as pool:
            work = [pool.submit(self._measure, "base", None, None, None)]
            samples = runs.sample(self.root / "samples-pairs", self.parts.pairs, sft, k=4)
            work.append(pool.submit(self._measure, "sft", sft, None, held_out))

            def one(run: Run) -> None:
                adapter = runs.dpo(self.root / run.name, self.parts, run, sft, samples, self.windows)
                self._measure(run.name, sft, adapter, held_out)

            work += [pool.submit(one, run) for run in todo]
            for task in work:
                task.result()

    def _measure(self, name: str, sft: Path | None, live: Path | None, samples: Path | None) -> None:
        out = self.root / name / "scores.json"
        if out.exists():
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        words = ["--held-out", str(self.parts.held_out), "--out", str(out)]
        for option, path in (("--sft", sft), ("--live", live), ("--samples", samples)):
            words += [option, str(path)] if path else []
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "benchmarks.smollm2_dpo.measure", *words], check=True)
        print(f"{name}: measured in {time.perf_counter() - start:.0f} s", flush=True)

    def report(self, command: str) -> str:
        """The tables of all models that are measured.

        Args:
            command: For the note.
        """
        scores: dict[Run | str, Scores] = {}
        for name in ("base", "sft"):
            scores[name] = json.loads((self.root / name / "scores.json").read_text(encoding="utf-8"))
        for loss, negatives, group, seed in product(LOSSES, ("built", "on-policy"), ("table", "question"), range(10)):
            run = Run(loss, negatives, group, seed)
            if (path := self.root / run.name / "scores.json").exists():
                scores[run] = json.loads(path.read_text(encoding="utf-8"))
        items = {part: scores["sft"][part] for part in ("answers", "built", "on-policy")}
        counts = ", ".join(
            f"{len(found)} {part} of {len({item['cluster'] for item in found})} tables" for part, found in items.items()
        )
        facts = [*machine().values(), *(f"{key} {value}" for key, value in versions(["torch", "transformers"]).items())]
        note = (
            f"Held out: {counts}. Intervals over tables, 95 %, one training seed unless named. Displacement, log-probs "
            f"and KL on the built pairs, against the SFT model. {', '.join(facts)}. `{command}`"
        )
        return "\n".join([table(scores), "", *self._comparisons(scores), "", f"*{note}*", ""])

    def _comparisons(self, scores: dict[Run | str, Scores]) -> list[str]:
        head = [
            "| compared | " + " | ".join(title for _, _, title, _ in COLUMNS) + " |",
            "|:--|" + "--:|" * len(COLUMNS),
        ]
        rows = []
        for run in [run for run in scores if isinstance(run, Run)]:
            for name, other in (
                ("on-policy less built", Run(run.loss, "on-policy", run.group, run.seed)),
                ("by question less by table", Run(run.loss, run.negatives, "question", run.seed)),
            ):
                if other != run and other in scores:
                    rows.append(f"| {run.name}: {name} | " + " | ".join(pairwise(scores, run, other)) + " |")
        return ["Between runs of one seed, paired by item:", "", *head, *rows] if rows else []

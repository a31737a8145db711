"""Skill gained against skill lost on the bundled Qwen3: what the KL anchor is worth beside a lower learning rate.

Four curves start at plain SFT with the quickstart's settings (configs/quickstart.yaml, no anchor, full rate):
`anchor` puts the KL on the trained answers, `lower learning rate` has no KL, `replay KL` puts it on replayed
conversations, and `replay NLL` trains on these very conversations instead. Each point is measured before and after on
the same questions with several seeds. Finished runs go to forgetting.jsonl at once, and are not repeated.

    python -m benchmarks forgetting
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.forgetting.curves import Answers, Point, Resampling
from benchmarks.forgetting.log import Record, append_record, read_records
from benchmarks.forgetting.plot import draw, load_matplotlib
from benchmarks.forgetting.report import comparison_tables, hardware_note, method_note, points_table
from benchmarks.forgetting.runs import FULL_LR, Method, Setting, benchmarks_of, identity, run_once, setting_of
from benchmarks.resampling import Floats


@dataclass(frozen=True)
class Curve:
    """A family of settings of growing strength, all starting at plain SFT.

    Attributes:
        method: What is varied.
        strengths: Coefficients or weights, growing; learning rates, falling.
    """

    method: Method
    strengths: tuple[float, ...]

    def settings(self, steps: int, items: int) -> list[Setting]:
        """The shared setting, then one a strength, from the weakest protection to the strongest.

        Args:
            steps: Optimizer steps, > 0.
            items: Questions of each skill, > 0.
        """
        shared = Setting("plain SFT", 0.0, FULL_LR, steps, items)
        if self.method == "plain SFT":
            return [shared, *(Setting("plain SFT", 0.0, rate, steps, items) for rate in self.strengths)]
        return [shared, *(Setting(self.method, strength, FULL_LR, steps, items) for strength in self.strengths)]


# As many points a curve: the least loss of several noisy points is the lower, the more there are.
CURVES = {
    "anchor": Curve("anchor", (0.14, 0.15, 0.16, 0.18)),
    "lower learning rate": Curve("plain SFT", (2e-3, 1.5e-3, 1e-3, 5e-4)),
    "replay KL": Curve("replay KL", (0.03, 0.1, 0.3, 1.0)),
    "replay NLL": Curve("replay NLL", (0.03, 0.1, 0.3, 1.0)),
}


def main(arguments: list[str]) -> None:
    """Run what is missing, then write table and plot.

    Args:
        arguments: The command's options, without its name.

    Raises:
        SystemExit: The options or the file of finished runs are at fault, or matplotlib is missing.
    """
    options = _options(arguments)
    try:
        load_matplotlib()  # now, not after the runs
        records = _measure(options)
        text = report(records, options, shlex.join(["python", "-m", "benchmarks", "forgetting", *arguments]))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise SystemExit(f"forgetting: {error}") from error
    print(f"\n{text}")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks forgetting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds (default 0 1 2)")
    parser.add_argument("--steps", type=int, default=120, help="optimizer steps (default 120)")
    parser.add_argument("--items", type=int, default=200, help="questions of each skill (default 200)")
    parser.add_argument("--only", choices=[*CURVES], action="append", help="this curve only; may be repeated")
    parser.add_argument("--strengths", type=float, nargs="+", help="other coefficients or rates, with one --only")
    parser.add_argument("--fresh", action="store_true", help="forget the finished runs and start over")
    options = parser.parse_args(arguments)
    if options.strengths and len(options.only or []) != 1:
        parser.error("--strengths belongs to one curve: name it with one --only")
    if min(options.steps, options.items) < 1 or len(set(options.seeds)) < len(options.seeds):
        parser.error("--steps and --items must be at least 1, and --seeds must differ")
    return options


def _curves(options: argparse.Namespace) -> dict[str, Curve]:
    chosen = {name: curve for name, curve in CURVES.items() if name in (options.only or CURVES)}
    if options.strengths:
        falling = options.only[0] == "lower learning rate"
        strengths = tuple(sorted(options.strengths, reverse=falling))
        chosen = {name: Curve(curve.method, strengths) for name, curve in chosen.items()}
    return chosen


def _baseline(options: argparse.Namespace) -> Setting:
    return Setting("untrained", 0.0, 0.0, 0, options.items)


def _measure(options: argparse.Namespace) -> list[Record]:
    """Run what the file of finished runs lacks; returns all runs that the report needs."""
    path = options.out / "forgetting.jsonl"
    if options.fresh:
        path.unlink(missing_ok=True)
    finished, message = read_records(path)
    if message:
        print(message, flush=True)
    settings = {
        setting: None for curve in _curves(options).values() for setting in curve.settings(options.steps, options.items)
    }
    wanted = [(_baseline(options), 0), *((setting, seed) for seed in options.seeds for setting in settings)]
    keys = {setting: identity(setting, 0)["questions"] for setting in (_baseline(options), *settings)}
    found = {(setting_of(one), one["seed"]): one for one in finished if one["questions"] == keys.get(setting_of(one))}
    missing = [run for run in wanted if run not in found]
    print(f"{len(wanted)} runs; {len(wanted) - len(missing)} of them are in {path} and are not repeated", flush=True)
    _quiet_lightning()
    torch.set_num_threads(1)  # the model is tiny: a second thread costs more than it brings
    for number, (setting, seed) in enumerate(missing, start=1):
        record = found[setting, seed] = run_once(setting, seed)
        append_record(path, record)
        new, old = (float(_row(record, key).mean()) for key in ("new", "old"))
        print(
            f"[{number}/{len(missing)}] {setting.method} strength {setting.strength:g} rate {setting.lr:g} "
            f"seed {seed}: new {new:.3f} old {old:.3f} ({record['cpu_s']:.0f} s CPU, {record['wall_s']:.0f} s)",
            flush=True,
        )
    return [found[run] for run in wanted]


def _quiet_lightning() -> None:
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    # Meant: the frozen base stays in evaluation mode; forests are built from tokens in memory; no validation data.
    warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode at the start of training")
    warnings.filterwarnings("ignore", message=r".*does not have many workers")
    warnings.filterwarnings("ignore", message=r"Total length of `list` across ranks is zero")
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")


def report(records: Sequence[Record], options: argparse.Namespace, command: str) -> str:
    """Write ``forgetting.md`` and ``forgetting.png``.

    Args:
        records: The baseline and one run a setting and seed.
        options: The command's options.
        command: The command as typed, for the record.

    Returns:
        The text of ``forgetting.md``.
    """
    by_run = {(setting_of(record), int(record["seed"])): record for record in records}
    labels = [[item.cluster for item in benchmark.items.items()] for benchmark in benchmarks_of(options.items)]
    resampling = Resampling(labels[0], labels[1], len(options.seeds))
    before = _answers([by_run[_baseline(options), 0]])
    curves: dict[str, list[Point]] = {}
    for name, curve in _curves(options).items():
        curves[name] = []
        for setting in curve.settings(options.steps, options.items):
            strength = setting.lr if setting.method == "plain SFT" else setting.strength
            after = _answers([by_run[setting, seed] for seed in options.seeds])
            curves[name].append(resampling.point(strength, before, after))
    accuracy = f"Before training: new skill {before.new.mean():.3f}, old skills {before.old.mean():.3f}."
    setup = (
        f"Bundled tiny Qwen3, data of `configs/quickstart.yaml`, {options.steps} steps, AdamW, peak rate {FULL_LR:g} "
        "unless named, cosine to a tenth. `replay NLL`: weight of a replayed token's loss."
    )
    note = method_note((len(labels[0]), len(labels[1])), resampling.clusters, options.seeds)
    parts = [
        "# Skill gained against skill lost", f"`{command}`", f"{setup} {accuracy}", "![figure](forgetting.png)",
        points_table(curves), comparison_tables(curves), note, hardware_note(records),
    ]  # fmt: skip
    text = "\n\n".join(part for part in parts if part) + "\n"
    caption = (
        f"Bundled tiny Qwen3, {options.steps} steps, n = {len(labels[0])} new and {len(labels[1])} old questions, "
        f"seeds {', '.join(map(str, options.seeds))} (dots); crosses: 95 % over tables and seeds"
    )
    draw(curves, caption, options.out / "forgetting.png")
    (options.out / "forgetting.md").write_text(text, encoding="utf-8")
    return text


def _answers(records: Sequence[Record]) -> Answers:
    return Answers(*(np.stack([_row(record, key) for record in records]) for key in ("new", "old")))


def _row(record: Record, key: str) -> Floats:
    return np.array([float(bit) for bit in record[key]])


if __name__ == "__main__":
    main(sys.argv[1:])

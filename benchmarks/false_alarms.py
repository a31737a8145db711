"""How often the base seems to differ from itself: both sampled at temperature 0.7, with different random numbers.

The bundled tiny model answers the questions of a benchmark once in each of many measurements, and two of them are a
comparison of before and after, decided as the tables of a run decide it. None is used twice, so the comparisons are
independent, and all that come out significant are false alarms. The adapter `tiny_qwen3_undecided` is on in both: it
leaves the model in doubt between two ways of answering, so that scores vary.

An answer's random numbers are named by the seed and by the question's id, and each measurement has ids of its own: as
good as seeds of its own, and a question is read once for sixteen measurements, which takes a quarter of the time.

The scores are kept in the folder; a run goes on where one was stopped, and `--comparisons` may grow.

    python -m benchmarks false-alarms --folder false-alarm-scores
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measuring import versions
from lit_align.data.chat import ChatFormat
from lit_align.data.sources.finance_tables import draw_table
from lit_align.data.sources.scale_answers import ScalePairs
from lit_align.data.sources.table_skills import TableSkillItems, ask
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import Benchmark
from lit_align.evals.exact_match import ExactMatchBenchmark
from lit_align.evals.preferred_answer import PreferredAnswerBenchmark
from lit_align.evals.sampling import Sampling
from lit_align.metrics.statistics import paired_test
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import FrozenAdapterReference
from lit_align.tokenizer import load_tokenizer
from lit_align.types import EvalItem, EvalSource, Message, PairSource, PreferencePair

ADAPTER = "package:lit_align/assets/tiny_qwen3_undecided"
LOW, HIGH = 0.02, 0.08
TOGETHER = 16  # measurements that are answered in one go
GENERATION = Generation(max_new_tokens=24, batch_size=128, sampling=Sampling(0.7))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TableItems(EvalSource):
    """Several questions about each of some tables, which are a cluster, as those of TAT-QA are.

    Attributes:
        tables: How many.
        skills: What is asked about each.
    """

    tables: int
    skills: tuple[str, ...] = ("lookup", "rise", "higher", "compare", "scale")

    def items(self) -> list[EvalItem]:
        """Draw the tables and their questions; the same fields give the same ones."""
        rng = Random("false alarms")
        drawn = []
        for number in range(self.tables):
            table = draw_table(rng, "eval", (2, 2, 3))
            for skill in self.skills:
                task = ask(skill, table, "eval", rng)
                prompt = (Message("user", task.prompt()),)
                drawn.append(EvalItem(f"table {number} {skill}", prompt, task.answer, skill, f"table {number}"))
        return drawn


@dataclass(frozen=True)
class AgainItems(EvalSource):
    """The questions of a source once for each measurement, under ids of their own.

    Attributes:
        source: The questions.
        measurements: Numbers of the measurements.
    """

    source: EvalSource
    measurements: range

    def items(self) -> list[EvalItem]:
        """All questions of the first measurement, then those of the next one."""
        once = self.source.items()
        return [replace(item, id=f"{number} {item.id}") for number in self.measurements for item in once]


@dataclass(frozen=True)
class AgainPairs(PairSource):
    """The same of pairs.

    Attributes:
        source: The pairs.
        measurements: Numbers of the measurements.
    """

    source: PairSource
    measurements: range

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """All pairs of the first measurement, then those of the next one."""
        once = self.source.pairs(keep)
        return [replace(pair, id=f"{number} {pair.id}") for number in self.measurements for pair in once]


@dataclass(frozen=True)
class Kind:
    """A benchmark whose main measure is compared.

    Attributes:
        name: Of its file.
        title: For the table.
        source: Its questions.
    """

    name: str
    title: str
    source: EvalSource | PairSource

    def benchmark(self, measurements: range) -> Benchmark:
        """Ask all questions once for each measurement."""
        if isinstance(self.source, PairSource):
            return PreferredAnswerBenchmark(AgainPairs(self.source, measurements), self.name, GENERATION)
        return ExactMatchBenchmark(AgainItems(self.source, measurements), self.name, GENERATION)


KINDS = (
    Kind("alone", "exact match, a question a table", TableSkillItems(["lookup", "rise", "compare"], 40)),
    Kind("tables", "exact match, five questions a table", TableItems(20)),
    Kind("preferred", "preferred answer", ScalePairs("eval", 80)),
)


@dataclass(frozen=True)
class Measured:
    """Scores of one benchmark in all measurements.

    Attributes:
        scores: The main measure, ``(measurements, items)``.
        clusters: Of each item.
    """

    scores: Floats
    clusters: tuple[str, ...]


@dataclass(frozen=True)
class Alarms:
    """What the comparisons of one benchmark came to.

    Attributes:
        measured: What was compared, two neighbouring measurements at a time.
        significant: Which comparisons came out significant, ``(comparisons,)``.
    """

    measured: Measured
    significant: NDArray[np.bool_]

    @property
    def share(self) -> float:
        """Share of the comparisons that came out significant."""
        return float(self.significant.mean())

    def interval(self) -> tuple[float, float]:
        """95 % interval of the share by Wilson's score (1927)."""
        z, n = 1.959964, len(self.significant)
        middle = (self.share + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(self.share * (1 - self.share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return middle - half, middle + half


def is_significant(before: Floats, after: Floats, clusters: Sequence[str]) -> bool:
    """Whether two measurements of the same items differ at the 5 % level, as the tables decide it.

    Args:
        before: A score an item, in [0, 1].
        after: Likewise.
        clusters: Of each item.
    """
    return paired_test(before, after, clusters).p_value < 0.05


def decide(measured: Measured) -> Alarms:
    """Compare the first two measurements, the next two, and so on.

    Example:
        >>> decide(Measured(np.array([[0.0, 0, 1], [1, 1, 0], [1, 0, 1], [1, 0, 1]]), ("a", "b", "c"))).significant
        array([False, False])
    """
    pairs = zip(measured.scores[::2], measured.scores[1::2], strict=True)
    found = [is_significant(before, after, measured.clusters) for before, after in pairs]
    return Alarms(measured, np.array(found))


def measure(kind: Kind, policy: Policy, chat: ChatFormat, count: int, folder: Path) -> Measured:
    """Answer the questions in each measurement that the folder does not hold.

    Args:
        kind: The benchmark.
        policy: The model.
        chat: Its chat format.
        count: Number of measurements.
        folder: Where the scores are kept, a line a measurement.
    """
    once = kind.benchmark(range(1)).conditions()
    file = folder / f"{kind.name}-{once['items']}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    with file.open("a", encoding="utf-8") as kept:
        while len(lines) < count:
            measurements = range(len(lines), min(len(lines) + TOGETHER, count))
            benchmark = kind.benchmark(measurements)
            results = benchmark.run(policy, chat)
            main = next(iter(benchmark.measures))
            for at, number in enumerate(measurements):
                own = results[at * int(once["n"]) : (at + 1) * int(once["n"])]
                scores, clusters = [item.scores[main] for item in own], [item.cluster for item in own]
                lines.append(json.dumps({"measurement": number, "scores": scores, "clusters": clusters}))
                kept.write(lines[-1] + "\n")
            kept.flush()
            print(f"{kind.title}: {len(lines)} of {count} measurements", file=sys.stderr, flush=True)
    rows = [json.loads(line) for line in lines[:count]]
    if [row["measurement"] for row in rows] != list(range(count)):
        raise SystemExit(f"{file}: must hold a line a measurement, in order; delete it")
    return Measured(np.array([row["scores"] for row in rows]), tuple(rows[0]["clusters"]))


def table(found: Sequence[tuple[str, Alarms]]) -> str:
    """A line a benchmark, and one for all."""
    lines = [
        "| benchmark | items | clusters | comparisons | mean score | mean \\|difference\\| | significant [95% CI] "
        f"| {LOW:.0%} to {HIGH:.0%} |",
        "|:--|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for name, alarms in found:
        scores, clusters = alarms.measured.scores, alarms.measured.clusters
        apart = np.abs(scores[1::2].mean(1) - scores[::2].mean(1)).mean()
        low, high = alarms.interval()
        lines.append(
            f"| {name} | {scores.shape[1]} | {len(set(clusters))} | {len(alarms.significant)} | {scores.mean():.3f} | "
            f"{apart:.3f} | {alarms.share:.1%} [{low:.1%}, {high:.1%}] | "
            f"{'met' if LOW <= alarms.share <= HIGH else 'missed'} |"
        )
    together = np.concatenate([alarms.significant for _, alarms in found])
    lines.append(f"| all | | | {len(together)} | | | {together.mean():.1%} | |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measure what is missing, decide, write ``false-alarms.md``.

    Args:
        arguments: The command's options, without its name.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks false-alarms",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--comparisons", type=int, default=200, help="of each benchmark; two measurements each")
    parser.add_argument("--folder", type=Path, default=Path("false-alarm-scores"), help="where scores are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chat = ChatFormat(load_tokenizer("tiny-qwen3"))
    policy = Policy("tiny-qwen3", Weights(dtype="float32"), LoRA(rank=4), "tree_sdpa")
    FrozenAdapterReference(ADAPTER).attach(policy)
    found = []
    for kind in KINDS:
        measured = measure(kind, policy, chat, 2 * options.comparisons, options.folder)
        found.append((kind.title, decide(measured)))
    facts = ", ".join(f"{key} {value}" for key, value in versions(["torch", "transformers"]).items())
    command = shlex.join(["python", "-m", "benchmarks", "false-alarms", *arguments])
    text = (
        f"# The base against itself: false alarms at the 5 % level\n\n{table(found)}\n\n"
        "*tiny-qwen3 under its undecided adapter on both sides, temperature 0.7, the same questions, other random "
        f"numbers in each of the {2 * options.comparisons} measurements of a benchmark, each used in one comparison. "
        f"{facts}. `{command}`*\n"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "false-alarms.md").write_text(text, encoding="utf-8")
    print(text)

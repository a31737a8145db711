"""Time and memory of preparing as many instruction rows as Finance-Instruct has, cold and from the cache.

The rows are generated with the columns of Finance-Instruct-500k: half of the system texts blank, some questions asked
twice. Texts are random words of the tokenizer's vocabulary, each a piece of its own, six characters a token, of
log-normal length (median of a question 40 tokens, of an answer 200): the true lengths were not measured. Each start is
a process of its own; memory is that of all its processes together, looked at every 0.1 s.

    python -m benchmarks instruction-rows --rows 20000
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from benchmarks.measuring import NO_BARS, ONE_THREAD, in_own_process, machine, versions
from lit_align.data.lengths import Lengths
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.finance_instruct import FinanceInstruct
from lit_align.tokenizer import load_tokenizer

REAL_ROWS = 500_000
GOAL_SECONDS = 20.0
_MEDIAN_QUESTION, _MEDIAN_ANSWER, _LONGEST = 40, 200, 4000


@dataclass(frozen=True)
class Start:
    """What a start took.

    Attributes:
        windows: Of an epoch.
        prepared: Seconds from the start of the process to the end of ``setup``.
        first_window: Seconds from the start of the process to the first window.
        computed: Of that the seconds that its processes computed, all together: what it takes where nothing else runs
            and one process does the work.
        fingerprint: Seconds of computing the fingerprint of the data, which the first checkpoint needs.
        identity: That fingerprint.
    """

    windows: int
    prepared: float
    first_window: float
    computed: float
    fingerprint: float
    identity: str


@dataclass(frozen=True)
class Peak:
    """Most memory of a start, in bytes.

    Attributes:
        resident: Of all its processes together; what they share counts in each.
        own: The part that lies in no file: what mapped files have in memory, the system takes back when it needs it.
    """

    resident: int
    own: int


def write_file(path: Path, rows: int, base: str, seed: int = 0) -> None:
    """Write a file like the real one.

    Args:
        path: Where to.
        rows: How many.
        base: Of whose vocabulary the words are.
        seed: Of everything that is random.
    """
    rng = Random(seed)
    vocabulary = load_tokenizer(base).get_vocab()
    words = sorted(word[1:] for word in vocabulary if word[0] == "Ġ" and word[1:].isalpha() and len(word) > 4)
    text = rng.choices(words, k=1_000_000)

    def some(median: int) -> str:
        size = min(_LONGEST, 1 + int(median * rng.lognormvariate(0, 0.9)))
        start = rng.randrange(len(text) - size)
        return " ".join(text[start : start + size])

    asked = ["What is it?"]
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(rows):
            if rng.random() > 0.03:
                asked.append(some(_MEDIAN_QUESTION))
            question = asked[-1] if rng.random() > 0.03 else rng.choice(asked[-1000:])
            row = {"system": rng.choice(["", "\n", some(8)]), "user": question, "assistant": some(_MEDIAN_ANSWER)}
            stream.write(json.dumps(row) + "\n")
            del asked[:-1000]


def start(path: str, base: str, cache: str, processes: int, begun: float) -> Start:
    """Prepare the data, or find them in the cache, up to the first window.

    Args:
        path: The rows.
        base: Whose tokenizer.
        cache: Folder of the cache.
        processes: That tokenise.
        begun: When this process was asked for.
    """
    data = SFTDataModule(
        base, [FinanceInstruct(path)], val_fraction=0.01, window=64, token_budget=4096, cache=cache,
        lengths=Lengths(2048, max_dropped=0.3), bad_rows="drop", processes=processes,
    )  # fmt: skip
    alone: Any = SimpleNamespace(global_step=0, global_rank=0, world_size=1)
    data.trainer = alone
    data.setup("fit")
    prepared = time.time() - begun
    next(iter(data.train_dataloader()))
    first_window = time.time() - begun
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    computed = sum(one.ru_utime + one.ru_stime for one in spent)
    before = time.process_time()
    identity = data.identity()["data"]
    fingerprint = time.process_time() - before
    return Start(data.windows_per_epoch, prepared, first_window, computed, fingerprint, identity)


def measured(path: str, base: str, cache: str, processes: int) -> tuple[Start, Peak]:
    """Start in a process of its own, and look at the memory of it and of those that it starts (Linux)."""
    found: list[tuple[int, int]] = [(0, 0)]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            found.append(_memory_below(Path("/proc/self").resolve()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        result = in_own_process({**ONE_THREAD, **NO_BARS}, start, path, base, cache, processes, time.time())
    finally:
        done.set()
        watcher.join()
    return result, Peak(*(max(values) for values in zip(*found, strict=True)))


def _memory_below(process: Path) -> tuple[int, int]:
    """Resident and own memory of all processes that one has started, and these."""
    resident = own = 0
    for listed in process.glob("task/*/children"):
        for child in _text(listed).split():
            below = process.parent / child
            known = dict(line.split(":", 1) for line in _text(below / "status").splitlines())
            resident += int(known.get("VmRSS", "0 kB").split()[0]) * 1024
            own += int(known.get("RssAnon", "0 kB").split()[0]) * 1024
            more = _memory_below(below)
            resident, own = resident + more[0], own + more[1]
    return resident, own


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return ""


def report(
    command: str, rows: int, sizes: tuple[int, int], processes: int, starts: dict[str, tuple[Start, Peak]]
) -> str:
    """The page.

    Args:
        command: What was run.
        rows: Of the file.
        sizes: Bytes of the file and of the cache.
        processes: That tokenised.
        starts: What each took, by name; ``cold`` and ``warm`` are among them.
    """
    facts = [*machine().values(), *(f"{name} {number}" for name, number in versions(["tokenizers"]).items())]
    lines = [
        f"| {name} | {one.prepared:.1f} | {one.first_window:.1f} | {one.computed:.1f} | {one.fingerprint:.1f} | "
        f"{peak.resident / 2**20:,.0f} | {peak.own / 2**20:,.0f} |"
        for name, (one, peak) in starts.items()
    ]
    table = "\n".join(lines)
    warm = starts["warm"][0]
    verdict = ""
    if rows == REAL_ROWS:
        verdict = f" {'Met' if warm.first_window < GOAL_SECONDS else 'Missed'} by the wall clock"
        verdict += f", {'met' if warm.computed < GOAL_SECONDS else 'missed'} by the seconds of computing."
    return f"""\
# Preparing instruction rows

{rows:,} generated rows, {sizes[0] / 1e6:,.0f} MB; the cache has {sizes[1] / 1e6:,.0f} MB. Cold, {processes} processes \
tokenise {rows / starts["cold"][0].prepared:,.0f} rows a second, reading and writing included. Goal at {REAL_ROWS:,} \
rows: from a warm cache to the first window in under {GOAL_SECONDS:.0f} s.{verdict}

| start | prepared, s | first window, s | computed, s | fingerprint, s | peak of all processes, MiB | in no file, MiB |
|:--|--:|--:|--:|--:|--:|--:|
{table}

*From the start of a process to the first window, imports included, by the wall clock; other programs ran beside it, \
hence the seconds that its processes computed till then, all together. The fingerprint is that of the first \
checkpoint, in seconds of computing. {", ".join(facts)}. `{command}`*
"""


def main(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Its options.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks instruction-rows", description=__doc__)
    parser.add_argument("--rows", type=int, default=REAL_ROWS, help="rows of the generated file")
    parser.add_argument("--processes", type=int, default=2, help="processes that tokenise")
    parser.add_argument("--base", default="tiny-qwen3", help="whose tokenizer")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the page")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "rows.jsonl", Path(folder) / "cache"
        write_file(path, options.rows, options.base)
        starts = {}
        for name in ("cold", "warm"):
            starts[name] = measured(str(path), options.base, str(cache), options.processes)
            print(f"{name}: {starts[name]}", flush=True)
        if len({one.identity for one, _ in starts.values()}) > 1:
            raise SystemExit("the cache gave other data than the preparation")
        size = sum(file.stat().st_size for file in cache.rglob("*"))
        command = f"python -m benchmarks instruction-rows {shlex.join(words)}".rstrip()
        page = report(command, options.rows, (path.stat().st_size, size), options.processes, starts)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "instruction-rows.md").write_text(page, encoding="utf-8")
    print(page)

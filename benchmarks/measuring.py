"""How time and memory are measured: interleaved rounds in one process, peak memory in a process of its own."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(64 * 2**30)}
"""For time: glibc keeps what it was given, so that page faults do not drown the arithmetic."""

RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""For memory: each tensor above 64 KiB is mapped and unmapped on its own, so that the resident set is what is alive.

With a threshold of 1 MB, tensors of some hundred rows (0.8 MB for 800 rows of 256) would lie in glibc's heap, which
keeps the holes between them: one DPO step on a shared table read 184 MB in place of 130, TRL's, whose tensors are
larger, 927 in place of 926 (measured).
"""

NO_BARS = {"TQDM_DISABLE": "1"}

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

WIDE = 0.15
"""An interval wider than this share of its median does not settle a comparison."""


@dataclass(frozen=True)
class MedianInterval:
    """A median with its confidence interval.

    Attributes:
        median: Of the rounds.
        low: Lower end.
        high: Upper end.
        rounds: Number of rounds.
        coverage: Probability, at least the one asked for, that the interval holds the true median.
    """

    median: float
    low: float
    high: float
    rounds: int
    coverage: float

    @property
    def settles(self) -> bool:
        """Whether the interval is no wider than :data:`WIDE` of the median."""
        return self.high - self.low <= WIDE * self.median


def median_interval(values: Sequence[float], level: float = 0.95) -> MedianInterval:
    r"""Median and its interval from order statistics: no assumption on the distribution of a round.

    The true median lies between the k-th smallest and the k-th largest of n independent values with probability

    .. math:: 1 - 2 \sum_{i<k} \binom{n}{i} 2^{-n};

    the largest k that keeps ``level`` is taken (David and Nagaraja 2003, *Order Statistics*, section 7.1).

    Args:
        values: One value a round.
        level: Coverage aimed at, in (0, 1).

    Raises:
        ValueError: Too few values: not even the whole range reaches ``level``.

    Example:
        >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0, 9.0, 8.0])
        MedianInterval(median=5.0, low=2.0, high=8.0, rounds=9, coverage=0.9609375)
    """
    ordered, n = sorted(values), len(values)
    outside, k = 2.0 ** (1 - n), 1
    if 1 - outside < level:
        raise ValueError(f"the range of {n} rounds covers the median with {1 - outside:.3f} < {level}; use more rounds")
    while 1 - (wider := outside + 2.0 ** (1 - n) * math.comb(n, k)) >= level:
        outside, k = wider, k + 1
    return MedianInterval(statistics.median(ordered), ordered[k - 1], ordered[n - k], n, 1 - outside)


def ratio_by_round(ours: Sequence[float], peer: Sequence[float]) -> MedianInterval:
    """Interval of the median ratio of two measurements that were taken in the same rounds.

    Example:
        >>> ratio_by_round([1.0] * 6, [2.0] * 5 + [4.0])
        MedianInterval(median=0.5, low=0.25, high=0.5, rounds=6, coverage=0.96875)
    """
    return median_interval([a / b for a, b in zip(ours, peer, strict=True)])


def interleave(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    begun: Callable[[int], object] = lambda _number: None,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each step in each round, after one round that is not counted.

    Neighbours in time are compared, so that a machine that slows down for a while slows all of a round. The order
    turns by one each round, so that no step always follows the same neighbour.

    Args:
        steps: What is measured, by name.
        rounds: Number of counted rounds.
        begun: Told the number of each round at its start; 0 is the one that is not counted.
        clock: Of the seconds.

    Returns:
        Seconds by name, one a round.
    """
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.freeze()  # what stands already need not be searched again before each step
    try:
        for number in range(rounds + 1):
            begun(number)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                gc.collect()
                start = clock()
                steps[name]()
                spent = clock() - start
                if number:
                    seconds[name].append(spent)
    finally:
        gc.unfreeze()
    return seconds


def peak_above_resident(action: Callable[[], Result]) -> tuple[Result, float]:
    """What ``action`` returns, and by how many MB (10^6 bytes) the resident set rose above its size before (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _kib("/proc/self/status", "VmRSS")
    result = action()
    return result, (_kib("/proc/self/status", "VmHWM") - before) * 1024 / 1e6


def available_bytes() -> int:
    """Memory that a new process may take without swapping (Linux)."""
    return _kib("/proc/meminfo", "MemAvailable") * 1024


def in_own_process(
    environment: Mapping[str, str],
    function: Callable[Parameters, Result],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """Call ``function`` in a fresh process that starts under ``environment``.

    glibc reads its settings before ``main``: they cannot be changed in a process that runs.

    Args:
        environment: Variables beside the present ones.
        function: Importable by name.
        *args: Picklable.
        **kwargs: Picklable.

    Raises:
        BrokenProcessPool: The process was killed, as by the kernel when memory is out.
        Exception: Whatever ``function`` raised.
    """
    with (
        _environment(environment),
        ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        return pool.submit(function, *args, **kwargs).result()


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def machine() -> dict[str, str]:
    """Processor, cores, operating system; memory and load where the system tells them."""
    facts = {"processor": _processor(), "cores": str(os.cpu_count())}
    if Path("/proc/meminfo").exists():
        facts["memory"] = f"{_kib('/proc/meminfo', 'MemTotal') * 1024 / 1e9:.1f} GB"
    facts["system"] = platform.platform()
    if hasattr(os, "getloadavg"):  # not on Windows
        facts["load average at the start"] = " ".join(f"{load:.2f}" for load in os.getloadavg())
    return facts


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of installed packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _kib(path: str, key: str) -> int:
    return next(int(line.split()[1]) for line in Path(path).read_text().splitlines() if line.startswith(key))

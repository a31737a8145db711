"""Which benchmarks the callbacks of a run measure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lit_align.callbacks.benchmark import BenchmarkEvaluation
from lit_align.callbacks.early_stopping import MTBenchEarlyStopping
from lit_align.evals.benchmark import Benchmark


def benchmarks_of(callbacks: Iterable[Any]) -> list[Benchmark]:
    """The benchmarks that are measured before and after, and those that choose when to stop.

    Args:
        callbacks: Of a trainer, or of its configuration.
    """
    some = list(callbacks)
    measured = [benchmark for one in some if isinstance(one, BenchmarkEvaluation) for benchmark in one.benchmarks]
    return [*measured, *(one.benchmark for one in some if isinstance(one, MTBenchEarlyStopping))]

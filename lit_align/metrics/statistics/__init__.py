"""Intervals, tests and power of means over clustered items, alone and paired."""

from lit_align.metrics.statistics.decisions import Decision, holm, paired_test
from lit_align.metrics.statistics.intervals import Interval, mean_interval
from lit_align.metrics.statistics.paired import PairedSummary, is_better, paired_summary
from lit_align.metrics.statistics.power import minimum_detectable_effect

__all__ = [
    "Decision",
    "Interval",
    "PairedSummary",
    "holm",
    "is_better",
    "mean_interval",
    "minimum_detectable_effect",
    "paired_summary",
    "paired_test",
]

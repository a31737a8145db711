"""The figure of growth: time above, memory below, a column a variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.forgetting.plot import load_matplotlib
from benchmarks.growth.sweeps import Point, expected_megabytes, expected_seconds

MEASURED, EXPECTED, LOGITS = "#0072B2", "#D55E00", "#999999"  # of Okabe & Ito 2008


def draw(sweeps: Mapping[str, Sequence[Point]], caption: str, path: Path) -> None:
    """Write the figure.

    Args:
        sweeps: Points by variable.
        caption: One line above all.
        path: A PNG file.
    """
    pyplot = load_matplotlib()
    figure, axes = pyplot.subplots(2, len(sweeps), figsize=(3.4 * len(sweeps), 6), layout="constrained", squeeze=False)
    for column, (name, points) in enumerate(sweeps.items()):
        values = [point.value for point in points]
        time, memory = axes[0][column], axes[1][column]
        time.plot(values, expected_seconds(points), "--", color=EXPECTED, label="expected: as the FLOPs")
        time.plot(values, [point.seconds for point in points], "o-", color=MEASURED, label="measured")
        top = 1.25 * max(point.megabytes for point in points)
        logits = [point.logits for point in points]
        memory.plot(values, logits, ":", color=LOGITS, label="logits of all targets, were they kept")
        memory.plot(values, expected_megabytes(points), "--", color=EXPECTED, label="expected: as the tokens")
        memory.plot(values, [point.megabytes for point in points], "o-", color=MEASURED, label="measured")
        for one in (time, memory):
            one.set_xlim(left=0)
            one.set_ylim(bottom=0)
            one.grid(alpha=0.25)
        memory.set_ylim(0, top)
        memory.set_xlabel(name)
    axes[0][0].set_ylabel("CPU time of a step, s")
    axes[1][0].set_ylabel("peak memory above the weights, MB")
    axes[0][0].legend(fontsize=8)
    axes[1][0].legend(fontsize=8)
    figure.suptitle(caption, fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)

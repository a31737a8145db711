"""The figure of the forgetting benchmark: skill gained against skill lost, one line a curve."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.forgetting.curves import Point
from lit_align.metrics.statistics import Interval


@dataclass(frozen=True)
class Style:
    """How a curve looks.

    Attributes:
        colour: One of Okabe & Ito 2008, told apart by people with any colour vision.
        marker: Of its points.
        label_at: Offset of a point's label, in typographic points; each curve has its own side.
    """

    colour: str
    marker: str
    label_at: tuple[int, int]


STYLES = {
    "anchor": Style("#D55E00", "o", (8, -14)),
    "lower learning rate": Style("#0072B2", "s", (-8, 7)),
    "replay KL": Style("#009E73", "^", (8, 5)),
    "replay NLL": Style("#CC79A7", "D", (-8, -14)),
}
_CORNER = (0.9, 0.15)  # much gained and little lost; shown enlarged where several points crowd there


def load_matplotlib() -> ModuleType:
    """Load matplotlib with its file-only backend.

    Raises:
        ModuleNotFoundError: It is not installed; the message names the extra.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError as error:
        raise ModuleNotFoundError(
            'the plot needs matplotlib, which is missing: pip install -e ".[benchmark]"'
        ) from error
    matplotlib.use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def draw(curves: Mapping[str, Sequence[Point]], caption: str, path: Path) -> None:
    """Write the figure.

    Args:
        curves: Points by curve, each in the curve's order; the first point is the one that all curves share.
        caption: One line above the figure.
        path: A PNG file.
    """
    pyplot = load_matplotlib()
    figure, axes = pyplot.subplots(figsize=(9, 6.2), layout="constrained")
    crowded = {
        name: [point for point in points if point.gain.mean > _CORNER[0] and point.lost.mean < _CORNER[1]]
        for name, points in curves.items()
    }
    enlarged = sum(map(len, crowded.values())) > 2
    for name, points in curves.items():
        apart = [point for point in points[1:] if not (enlarged and point in crowded[name])]
        _draw_curve(axes, name, points, apart)
    axes.set_xlabel("skill gained (accuracy on the new skill, after − before)")
    axes.set_ylabel("skill lost (accuracy on the old skills, before − after)")
    axes.set_title(caption, fontsize=9)
    axes.grid(alpha=0.25)
    axes.margins(0.07)
    axes.legend(loc="upper left", title="better: to the right and down")
    if enlarged:
        inset = axes.inset_axes((0.09, 0.08, 0.5, 0.36))
        for name, points in crowded.items():
            if points:
                _draw_curve(inset, name, points, points)
        inset.margins(0.15)
        inset.grid(alpha=0.25)
        inset.tick_params(labelsize=8)
        axes.indicate_inset_zoom(inset, edgecolor="grey")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _draw_curve(axes: Any, name: str, points: Sequence[Point], labelled: Sequence[Point]) -> None:
    style = STYLES[name]
    for point in points:
        axes.plot(point.seed_gains, point.seed_losses, ".", color=style.colour, alpha=0.45, markersize=5, zorder=2)
    gains, losses = [point.gain for point in points], [point.lost for point in points]
    axes.errorbar(
        [one.mean for one in gains], [one.mean for one in losses], xerr=_arms(gains), yerr=_arms(losses),
        color=style.colour, marker=style.marker, markersize=6, linewidth=1.4, elinewidth=0.9, label=name, zorder=3,
    )  # fmt: skip
    for point in labelled:
        axes.annotate(
            f"{point.strength:g}", (point.gain.mean, point.lost.mean), xytext=style.label_at,
            textcoords="offset points", ha="left" if style.label_at[0] > 0 else "right", color=style.colour,
            fontsize=9, zorder=4,
        )  # fmt: skip


def _arms(intervals: Sequence[Interval]) -> list[list[float]]:
    # A mean of few seeds may lie a hair outside of its percentile interval, and an arm has no negative length.
    return [[max(0.0, one.mean - one.low) for one in intervals], [max(0.0, one.high - one.mean) for one in intervals]]

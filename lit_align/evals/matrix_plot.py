"""Pictures of the forgetting matrix: a heat map of what changed, and learning against divergence."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lit_align.evals.matrix import Cell, Line, Matrix
from lit_align.metrics.statistics import Interval

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of Okabe & Ito 2008, told apart by people with any colour vision."""

_MARKERS = "os^DvP*"


def draw_heat_map(found: Matrix, outcomes: Mapping[str, str]) -> bytes:
    """Scores of all policies on all benchmarks; the colour is the paired difference from the base.

    A measure with two bounds is coloured by its share of their span, another one by its share of the largest difference
    on its line.

    Args:
        found: The matrix.
        outcomes: What became of a stage, by its name, where that is to be said below its column.

    Returns:
        A PNG file.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message names the extra.
    """
    lines = [line for line in found.lines if line.main]
    width, height = 2.6 + 1.5 * len(found.policies), 1.9 + 0.62 * len(lines)
    return _png((width, height), lambda figure, axes: _draw_cells(figure, axes, found, outcomes, lines))


def _draw_cells(figure: Any, axes: Any, found: Matrix, outcomes: Mapping[str, str], lines: Sequence[Line]) -> None:
    shades = [[_shade(line, cell.against_base) for cell in line.cells] for line in lines]
    largest = max((abs(shade) for row in shades for shade in row), default=0.0) or 1.0
    image = axes.imshow(shades, cmap="PuOr_r", vmin=-largest, vmax=largest, aspect="auto")
    for row, line in enumerate(lines):
        for column, cell in enumerate(line.cells):
            dark = abs(shades[row][column]) > 0.6 * largest
            text = _cell_text(cell, ".2f" if _span(line) == 1 else ".3g")
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    heads = [f"{name}\n({outcomes[name]})" if name in outcomes else name for name in found.policies]
    axes.set_xticks(range(len(heads)), heads)
    labels = [f"{line.benchmark} – {line.skill}" if line.skill else line.benchmark for line in lines]
    axes.set_yticks(range(len(lines)), [f"{label}\n{line.measure}" for label, line in zip(labels, lines, strict=True)])
    axes.set_xlabel("policy after the stage")
    axes.set_title("score, and its paired difference from the base (*: its interval excludes 0)", fontsize=10)
    spans = all(_span(line) for line in lines)
    figure.colorbar(image, ax=axes, label="difference" if spans else "difference, share of its line's largest")


def draw_learning(found: Matrix) -> bytes | None:
    """What each domain scores against how far the policy has moved on it, a line a domain from the base on.

    Args:
        found: The matrix.

    Returns:
        A PNG file; None where no domain has both.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message names the extra.
    """
    scored = [(line, found.divergence(line)) for line in found.lines if line.scored]
    pairs = [(line, other) for line, other in scored if other is not None]
    return _png((8.5, 5.6), lambda _, axes: _draw_paths(axes, found, pairs)) if pairs else None


def _draw_paths(axes: Any, found: Matrix, pairs: Sequence[tuple[Line, Line]]) -> None:
    for number, (line, other) in enumerate(pairs):
        _draw_path(axes, number, line, other)
    for number, name in enumerate(found.policies):
        axes.plot([], [], linestyle="none", label=f"{number}: {name}")
    axes.set_xlabel("exact KL(policy ‖ base, the benchmark's reference) on the domain, nats a token")
    axes.set_ylabel(" / ".join(dict.fromkeys(line.measure for line, _ in pairs)))
    axes.grid(alpha=0.25)
    axes.margins(0.08)
    axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _draw_path(axes: Any, number: int, line: Line, other: Line) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
    xs, ys = ([cell.score for cell in one.cells] for one in (other, line))
    axes.errorbar(
        [one.mean for one in xs], [one.mean for one in ys], xerr=_arms(xs), yerr=_arms(ys), color=colour,
        marker=marker, markersize=6, linewidth=1.3, elinewidth=0.8, alpha=0.9, label=line.domain,
    )  # fmt: skip
    for step, (x, y) in enumerate(zip(xs, ys, strict=True)):
        place = {"xytext": (6, 5 + 2 * number), "textcoords": "offset points"}
        axes.annotate(str(step), (x.mean, y.mean), color=colour, fontsize=9, **place)


def _png(size: tuple[float, float], draw: Callable[[Any, Any], None]) -> bytes:
    try:
        matplotlib, figures = map(importlib.import_module, ("matplotlib", "matplotlib.figure"))
    except ImportError as error:
        raise ModuleNotFoundError('plots need matplotlib, which is missing: pip install -e ".[plots]"') from error
    file = io.BytesIO()
    # Not by pyplot, whose backend is the user's, as in a notebook; and no name is a formula.
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}):
        figure = figures.Figure(figsize=size, layout="constrained")
        draw(figure, figure.subplots())
        figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _span(line: Line) -> float:
    span = line.bounds[1] - line.bounds[0]
    return span if math.isfinite(span) else 0.0


def _shade(line: Line, difference: Interval | None) -> float:
    if difference is None:
        return 0.0
    largest = max(abs(cell.against_base.mean) for cell in line.cells if cell.against_base is not None)
    return difference.mean / (_span(line) or largest or 1.0)


def _cell_text(cell: Cell, digits: str) -> str:
    text, difference = f"{cell.score.mean:{digits}}", cell.against_base
    if difference is None:
        return text
    sure = "" if difference.low <= 0 <= difference.high else "*"  # the interval excludes 0
    return f"{text}\n{difference.mean:+{digits}}{sure}"


def _arms(intervals: Sequence[Interval]) -> list[list[float]]:
    def arm(one: Interval, end: Callable[[Interval], float]) -> float:
        return abs(one.mean - end(one)) if math.isfinite(end(one)) else 0.0

    return [[arm(one, lambda it: it.low) for one in intervals], [arm(one, lambda it: it.high) for one in intervals]]

"""Whether two runs of one benchmark agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WITHIN = 0.10
"""How far the ratios of two runs may be apart, relatively."""


@dataclass(frozen=True)
class Rerun:
    """A row that two runs have in common.

    Attributes:
        row: Case and peer.
        ratios: Ours to the peer's, in either run.
        settled: Whether the interval of neither is too wide.
    """

    row: str
    ratios: tuple[float, float]
    settled: bool

    @property
    def apart(self) -> float:
        """How far the second is from the first, relatively."""
        return self.ratios[1] / self.ratios[0] - 1

    @property
    def verdict(self) -> str:
        """``agrees``, ``differs`` or ``not settled``.

        Example:
            >>> Rerun("chat", (0.50, 0.54), settled=True).verdict, Rerun("chat", (0.50, 0.56), settled=True).verdict
            ('agrees', 'differs')
        """
        if not self.settled:
            return "not settled"
        return "agrees" if abs(self.apart) <= WITHIN else "differs"


def reruns(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Rerun]:
    """The rows of time and memory that two runs have in common.

    Args:
        one: What :meth:`~benchmarks.report.Report.write` wrote as JSON.
        other: The same of another run.

    Raises:
        ValueError: They have no row in common.
    """
    first, second = _rows(one), _rows(other)
    common = [key for key in first if key in second]
    if not common:
        raise ValueError(f"the runs {one['name']} and {other['name']} have no row in common: nothing to compare")
    return [Rerun(key, (first[key][0], second[key][0]), settled=first[key][1] and second[key][1]) for key in common]


def _rows(content: Mapping[str, Any]) -> dict[str, tuple[float, bool]]:
    """Ratio of each row by its name, and whether it settles."""
    rows = {}
    for unit, row in ((part, row) for part in ("time", "memory") for row in content[part]):
        ratio = row["ratio"]
        if not row["alike"]:  # the rounds compute unlike things: the ratio of all seconds
            ratio = sum(row["ours"]) / sum(row["theirs"])
        middle = ratio if isinstance(ratio, float) else ratio["median"]
        rows[f"{row['case']}, {row['peer']}, {unit}"] = (middle, row["settles"])
    return rows


def table(rows: Sequence[Rerun]) -> str:
    """As Markdown, with a line that counts the verdicts."""
    lines = ["| row | one | other | apart | |", "|---|---:|---:|---:|---|"]
    lines += [
        f"| {row.row} | {row.ratios[0]:.3f} | {row.ratios[1]:.3f} | {row.apart:+.1%} | {row.verdict} |" for row in rows
    ]
    counts = {word: sum(row.verdict == word for row in rows) for word in ("agrees", "differs", "not settled")}
    lines.append("\n" + ", ".join(f"{word}: {count}" for word, count in counts.items()) + f" (bound {WITHIN:.0%})")
    return "\n".join(lines)

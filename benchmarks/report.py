"""The tables of a comparison with other libraries, as Markdown and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.facts import sections
from benchmarks.measuring import MedianInterval


@dataclass(frozen=True)
class Agreement:
    """How far a peer is from ours, relatively.

    Attributes:
        loss: Difference of the losses.
        gradient: Norm of the difference of all LoRA gradients, in norms of the peer's.
    """

    loss: float
    gradient: float

    def worse(self, other: Agreement) -> Agreement:
        """The larger of both differences."""
        return Agreement(max(self.loss, other.loss), max(self.gradient, other.gradient))


@dataclass(frozen=True)
class Exactness:
    """How far ours is from the naive form in float64.

    Attributes:
        case: What was computed.
        agreement: Of loss and gradients.
    """

    case: str
    agreement: Agreement


@dataclass(frozen=True)
class Comparison:
    """A row of a table.

    Attributes:
        case: What was computed.
        peer: Whom ours is compared with.
        unit: Of the measurements.
        ours: Our measurements, one a round.
        theirs: The peer's, in the same rounds.
        ratio: Ours to theirs: of the rounds, or a single one where a round repeats the last to a few per cent (memory).
        target: Upper bound that the ratio should keep; None where there is none.
        agreement: Of loss and gradients.
        alike: Whether all rounds compute the same; else the interval also spans how the workloads differ.
    """

    case: str
    peer: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    ratio: MedianInterval | float
    target: float | None
    agreement: Agreement
    alike: bool = True

    def verdict(self) -> str:
        """Whether the target is met; it is where the interval reaches it, and the word says so if the median does not.

        A target that lies within an interval too wide to settle is neither met nor missed.

        Example:
            >>> agreement = Agreement(0.0, 0.0)
            >>> Comparison("c", "p", "MB", [1.0], [4.0], 0.25, 0.3, agreement).verdict()
            'met'
            >>> Comparison("c", "p", "s", [1], [1], MedianInterval(0.31, 0.3, 0.32, 9, 0.96), 0.3, agreement).verdict()
            'met by the interval'
            >>> Comparison("c", "p", "s", [1], [1], MedianInterval(0.31, 0.2, 0.42, 9, 0.96), 0.3, agreement).verdict()
            'not settled'
        """
        if self.target is None:
            return ""
        ratio = self.ratio
        if isinstance(ratio, float):
            return "met" if ratio <= self.target else "missed"
        if ratio.low > self.target:
            return "missed"
        if ratio.high > self.target and not self.settles:
            return "not settled"
        return "met" if ratio.median <= self.target else "met by the interval"

    @property
    def settles(self) -> bool:
        """Whether the interval is narrow enough; one over unlike rounds is as wide as they are unlike."""
        return isinstance(self.ratio, float) or not self.alike or self.ratio.settles

    @property
    def ratio_text(self) -> str:
        """The ratio, with its interval where it has one."""
        if isinstance(self.ratio, float):
            return f"{self.ratio:.3f}"
        text = f"{self.ratio.median:.3f} [{self.ratio.low:.3f}, {self.ratio.high:.3f}]"
        return text if self.alike else f"{text}; sums {sum(self.ours) / sum(self.theirs):.3f}"

    def row(self, with_target: bool) -> str:
        """The comparison as a line of a Markdown table."""
        ratio = self.ratio_text
        if not self.settles:
            ratio += " does not settle"
        target = f"<= {self.target:.2f}: {self.verdict()}" if with_target and self.target is not None else ""
        digits = 0 if self.unit == "MB" else 2
        ours, theirs = (f"{statistics.median(values):,.{digits}f}" for values in (self.ours, self.theirs))
        agreement = f"{self.agreement.loss:.1e} | {self.agreement.gradient:.1e}"
        return f"| {self.case} | {self.peer} | {ours} | {theirs} | {ratio} | {target} | {agreement} |"


def overview(comparisons: Sequence[Comparison]) -> str:
    """A Markdown table with a line a case and a column a peer."""
    peers = list(dict.fromkeys(one.peer for one in comparisons))
    lines = [f"| case | {' | '.join(peers)} |", f"|---|{'---:|' * len(peers)}"]
    for case in dict.fromkeys(one.case for one in comparisons):
        ratios = {one.peer: one.ratio_text for one in comparisons if one.case == case}
        lines.append(f"| {case} | {' | '.join(ratios.get(peer, '') for peer in peers)} |")
    return "\n".join(lines)


@dataclass
class Report:
    """All results of a run and what they depend on.

    Attributes:
        name: Of the files.
        title: Of the document.
        machine: Hardware.
        versions: Of Python and the packages.
        settings: Shapes and settings, in words.
        shapes_of_targets: Whether the shapes are those that the targets were set for.
        time: Rows of the table of CPU time.
        memory: Rows of the table of peak memory.
        exactness: Rows of the table of float64.
        overview: Whether a table with a column a peer comes first.
    """

    name: str
    title: str
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, str]
    shapes_of_targets: bool
    time: list[Comparison] = field(default_factory=list)
    memory: list[Comparison] = field(default_factory=list)
    exactness: list[Exactness] = field(default_factory=list)
    overview: bool = False

    def markdown(self) -> str:
        """Tables, machine, versions and settings."""
        parts = [f"# {self.title}"]
        if not self.shapes_of_targets:
            parts.append("These shapes are not the ones that the targets were set for; none is judged.")
        differences = "loss differs by | LoRA gradients differ by"
        for title, unit, ratio, comparisons in (
            ("CPU time of a step", "s", "ours / peer, median [95 % interval]", self.time),
            ("Peak memory of a step above the weights", "MB", "ours / peer", self.memory),
        ):
            if comparisons:
                head = f"| case | peer | ours, {unit} | peer, {unit} | {ratio} | target | {differences} |"
                lines = [head, "|---|---|---:|---:|---:|---|---:|---:|"]
                lines += [comparison.row(self.shapes_of_targets) for comparison in comparisons]
                if self.overview:
                    parts += [f"## {title}, ours / peer", overview(comparisons)]
                parts += [f"## {title}", "\n".join(lines)]
        if self.time:
            parts.append(
                "The interval is of the median of the ratios by round, from order statistics. *Does not settle*: it is "
                "wider than 15 % of its median; measure again on a quiet machine. *Sums*: the rounds compute unlike "
                "things in turn, which the interval spans too, and this is the ratio of all seconds."
            )
        if self.exactness:
            lines = [f"| case | {differences} |", "|---|---:|---:|"]
            for one in self.exactness:
                lines.append(f"| {one.case} | {one.agreement.loss:.1e} | {one.agreement.gradient:.1e} |")
            parts += ["## Ours beside the naive form in float64", "\n".join(lines)]
        parts += sections({"machine": self.machine, "versions": self.versions, "settings": self.settings})
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Write ``NAME.md`` and ``NAME.json`` (all rounds) into a folder that is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.md").write_text(self.markdown(), encoding="utf-8")
        content = asdict(self)
        for part in ("time", "memory"):
            for row, comparison in zip(content[part], getattr(self, part), strict=True):
                row["verdict"] = comparison.verdict() if self.shapes_of_targets else ""
                row["settles"] = comparison.settles
        (folder / f"{self.name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

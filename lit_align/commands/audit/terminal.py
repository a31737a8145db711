"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lit_align.commands.audit.coloured import Coloured
from lit_align.data.audit.table import Cell, Measured, Table

_COLOURS = {"prompt": "\033[36m", "answer": "\033[1;32m", "scaffold": "\033[33m"}
_OFF, _BOLD, _RED = "\033[0m", "\033[1m", "\033[31m"
_LEVELS = "_.:-=+*#"  # of a histogram
_WIDEST = 44  # characters of a cell; what is wider stands below its row
_LONGEST_RUN = 300  # characters


def report_lines(measured: Measured, samples: Sequence[Coloured], colour: bool) -> Iterator[str]:
    """The tables, some examples with the class of their tokens, and the limits that are broken.

    Args:
        measured: What was found.
        samples: Examples.
        colour: Whether the terminal shows colours; else the classes stand in brackets.
    """
    bold, off = (_BOLD, _OFF) if colour else ("", "")
    for table in measured.tables:
        yield f"{bold}{table.name}{off}"
        yield from (f"  {line}" for line in table_lines(table))
        yield ""
    if samples:
        legend = (_painted(kind, kind, colour) for kind in _COLOURS)
        yield f"{bold}tokens{off}: {' '.join(legend)}"
        firsts = {one.source: one for one in reversed(samples) if one.part == "training"}
        for one in reversed(firsts.values()):
            yield f"  {one.source}, {one.id}"
            for runs in one.paths:
                yield "    " + "".join(_painted(run.kind, _shortened(run.text), colour) for run in runs)
        yield ""
    for check in measured.failed:
        yield f"{_RED if colour else ''}failed{off} {check}"
    held = len(measured.checks) - len(measured.failed)
    yield f"{held} of {len(measured.checks)} limits hold"


def table_lines(table: Table) -> Iterator[str]:
    """A table with aligned columns; numbers on the right, long texts in a line below their row.

    Args:
        table: The table.
    """
    texts = [[cell_text(cell, name) for cell, name in zip(row, table.columns, strict=True)] for row in table.rows]
    long = {i for i, _ in enumerate(table.columns) if any(len(row[i]) > _WIDEST for row in texts)}
    shown = [i for i in range(len(table.columns)) if i not in long and any(row[i] for row in texts)]
    names = headings(table)
    widths = {i: max(len(names[i]), *(len(row[i]) for row in texts)) for i in shown}
    right = {i for i in shown if all(isinstance(row[i], int | float | None) for row in table.rows)}

    def aligned(cells: Sequence[str]) -> str:
        return "  ".join(cells[i].rjust(widths[i]) if i in right else cells[i].ljust(widths[i]) for i in shown).rstrip()

    yield aligned(names)
    for row in texts:
        yield aligned(row)
        yield from (f"    {names[i]}: {row[i]}" for i in sorted(long) if row[i])


def headings(table: Table) -> list[str]:
    """Names of the columns as they are shown: a share beside its number is called just that.

    Args:
        table: The table.
    """
    return [
        "share" if name == f"{before}, share" else name.removesuffix(", share")
        for before, name in zip(("", *table.columns), table.columns, strict=False)
    ]


def cell_text(cell: Cell, column: str) -> str:
    """A cell in characters.

    Args:
        cell: The cell.
        column: Its column, which says whether it is a share.

    Example:
        >>> cell_text(0.25, "cut, share"), cell_text(12345, "n"), cell_text((0, 1, 4, 8), "1, 2, 4, …")
        ('25.0%', '12,345', '_.-#')
    """
    if cell is None:
        return ""
    if isinstance(cell, tuple):
        most = max(cell, default=0)
        return "".join(_LEVELS[-(-count * (len(_LEVELS) - 1) // most) if most else 0] for count in cell)
    if isinstance(cell, str):
        return cell
    return f"{cell:.1%}" if column.endswith("share") else f"{cell:,}"


def _painted(kind: str, text: str, colour: bool) -> str:
    return f"{_COLOURS[kind]}{text}{_OFF}" if colour else f"[{kind}: {text}]"


def _shortened(text: str) -> str:
    text = text.replace("\n", "\\n")
    half = _LONGEST_RUN // 2
    return text if len(text) <= _LONGEST_RUN else f"{text[:half]} … {text[-half:]}"

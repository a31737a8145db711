"""Whether the chosen answer is the longer one: what length alone tells of a preference."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lit_align.data.audit.examples import Example
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table
from lit_align.forest import TokenClass, TokenPath
from lit_align.metrics.statistics import mean_interval


def length_bias(every: Iterable[Example], settings: AuditSettings) -> Measured:
    """Share of the pairs whose chosen answer has more tokens, and how many more.

    Args:
        every: Examples; those that are no pairs are passed over.
        settings: The limits.
    """
    sizes: dict[tuple[str, str], list[tuple[int, int]]] = {}
    groups: dict[tuple[str, str], list[str]] = {}
    for one in every:
        if len(one.paths) == 2:
            chosen, rejected = map(_answer_size, one.paths)
            sizes.setdefault((one.part, one.source), []).append((chosen, rejected))
            groups.setdefault((one.part, one.source), []).append(one.group)
    rows: list[tuple[Cell, ...]] = []
    checks = []
    for (part, source), pairs in sizes.items():
        chosen, rejected = np.array(pairs, np.int64).T
        longer = mean_interval((chosen > rejected) + 0.5 * (chosen == rejected), groups[part, source])
        spread = f"[{longer.low:.3f}, {longer.high:.3f}]"
        rows.append((
            part, source, len(pairs), longer.mean, spread, round(float(chosen.mean()), 1),
            round(float(rejected.mean()), 1), round(float((chosen - rejected).mean()), 2),
        ))  # fmt: skip
        if settings.max_longer is not None:
            beyond = max(longer.low, 1 - longer.high)
            which = "chosen" if longer.mean >= 0.5 else "rejected"
            advice = (
                f"the {which} answer is the longer one in {max(longer.mean, 1 - longer.mean):.0%} of {len(pairs)} "
                f"pairs (95 % {spread} for chosen; an end of the interval is held to the limit): match lengths, or set "
                "it to 1 where the longer or shorter form is what is preferred"
            )
            checks.append(Check("audit.max_longer", f"{part}: {source}", beyond, settings.max_longer, advice))
    about = "Pairs whose chosen answer has more tokens than the rejected one; ties count half, intervals over groups."
    columns = (
        "part", "source", "pairs", "chosen is longer, share", "95 %", "chosen, tokens", "rejected, tokens",
        "difference",
    )  # fmt: skip
    tables = (Table("length bias", about, columns, tuple(rows)),) if rows else ()
    return Measured(tables, tuple(checks))


def _answer_size(path: TokenPath) -> int:
    return int((path.classes == TokenClass.ANSWER).sum())

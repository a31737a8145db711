"""What became of the rows: kept, cut, dropped and why; how long they are; what a cut took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lit_align.data.audit.examples import Example
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table
from lit_align.data.length_report import KEPT, REFUSED
from lit_align.data.window_module import WindowDataModule
from lit_align.forest import TokenClass

_QUANTILES = (0.05, 0.5, 0.95, 0.99)


def rows_kept(data: WindowDataModule, bad_rows: str, max_dropped: float) -> Measured:
    """Rows by source: read, kept, cut, dropped and why, left by the mix.

    Args:
        data: A data module that is set up, its own limits lifted so that all is counted.
        bad_rows: What a run does with rows that break a rule.
        max_dropped: Largest share that a run lets be dropped.
    """
    rows: list[tuple[Cell, ...]] = []
    checks = []
    for part, report in data.reports.items():
        for source, outcomes in report.outcomes.items():
            where = f"{part}: {source}"
            unkept = {why: number for why, number in sorted(outcomes.items()) if why not in KEPT}
            told = ", ".join(f"{number} {why}" for why, number in unkept.items())
            dropped, read = report.dropped_of(source)
            refused = outcomes[REFUSED]
            kept, cut = outcomes["kept"] + outcomes["cut"], outcomes["cut"]
            first = report.first_refusal(source)
            rows.append((part, source, outcomes.total(), kept, cut, told or "none", report.undrawn(source), first))
            advice = f"{report.advice(source)}; or raise it"
            checks.append(Check("data.lengths.max_dropped", where, dropped / max(1, read), max_dropped, advice))
            if refused and bad_rows == "stop":
                advice = f"a run stops at the first ({first}): mend the rows, or set `data.bad_rows: drop`"
                checks.append(Check("data.bad_rows: stop", where, refused, 0, advice))
    about = (
        f"What was tokenised, in {data.holds}, those of several trained turns once a turn: kept, of these cut, and "
        "dropped for what reason; `left by the mix` was read and not asked for."
    )
    columns = ("part", "source", "tokenised", "kept", "cut", "dropped", "left by the mix", "first refusal")
    return Measured((Table("rows", about, columns, tuple(rows)),), tuple(checks))


def lengths(data: WindowDataModule) -> Measured:
    """Tokens of prompts and answers of all that was tokenised, before any limit.

    Args:
        data: A data module that is set up.
    """
    rows: list[tuple[Cell, ...]] = []
    for part, report in data.reports.items():
        for source, sizes in report.sizes.items():
            prompts, whole = np.array(sizes, np.int64).reshape(-1, 2).T
            rows += [(part, source, "prompt", *_spread(prompts)), (part, source, "answer", *_spread(whole - prompts))]
    longer = ", of a pair the longer one" if data.holds == "pairs" else ""
    about = f"Tokens before any limit (answers with their end-of-turn token{longer}); a histogram's bar is a doubling."
    columns = ("part", "source", "of", "n", "mean", "5 %", "median", "95 %", "99 %", "longest", "1, 2, 4, 8, …")
    return Measured((Table("lengths", about, columns, tuple(rows)),))


def _spread(sizes: np.ndarray) -> tuple[Cell, ...]:
    quantiles = (int(np.quantile(sizes, q, method="inverted_cdf")) for q in _QUANTILES)
    doublings = np.bincount(np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64))
    return (len(sizes), round(float(sizes.mean()), 1), *quantiles, int(sizes.max()), tuple(map(int, doublings)))


def ends_kept(
    every: Iterable[Example], lost_tokens: dict[tuple[str, str], int], ends: Sequence[int], settings: AuditSettings
) -> Measured:
    """What cuts took: the tokens, and the end-of-turn token that tells a model to stop.

    Args:
        every: All examples.
        lost_tokens: Tokens that cuts took, by part and source.
        ends: Ids of the tokens that end a turn.
        settings: The limits.
    """
    counts: dict[tuple[str, str], np.ndarray] = {}
    for one in every:
        count = counts.setdefault((one.part, one.source), np.zeros(3, np.int64))
        for path in one.paths:
            count += (1, int(path.tokens[-1]) not in ends, int((path.classes == TokenClass.ANSWER).sum()))
    rows: list[tuple[Cell, ...]] = []
    checks = []
    for (part, source), (answers, open_ended, tokens) in counts.items():
        share, lost = float(open_ended / answers), lost_tokens.get((part, source), 0)
        rows.append(
            (part, source, int(answers), int(open_ended), share, int(tokens), lost, lost / max(1, tokens + lost))
        )
        if settings.max_cut is not None:
            advice = (
                "raise `data.lengths.max_length`, or set `data.lengths.overlong: drop`: a model that learns from "
                "answers without an end does not stop"
            )
            checks.append(Check("audit.max_cut", f"{part}: {source}", share, settings.max_cut, advice))
    about = "Answers that are trained or scored without their end-of-turn token, and answer tokens that cuts took."
    columns = (
        "part", "source", "answers", "without end", "without end, share", "answer tokens", "tokens cut",
        "tokens cut, share",
    )  # fmt: skip
    return Measured((Table("cuts", about, columns, tuple(rows)),), tuple(checks))

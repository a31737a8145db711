"""What became of the rows: kept, cut, dropped and why; how long they are; what a cut took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from lit_align.data.audit.examples import Example
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table
from lit_align.data.length_report import KEPT, REFUSED
from lit_align.data.window_module import PlannedDataModule
from lit_align.forest import TokenClass, TokenPath

_QUANTILES = (0.05, 0.5, 0.95, 0.99)


def rows_kept(data: PlannedDataModule, bad_rows: str, max_dropped: float) -> Measured:
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


def lengths(data: PlannedDataModule) -> Measured:
    """Tokens of prompts and answers of all that was tokenised, before any limit.

    Args:
        data: A data module that is set up.
    """
    rows: list[tuple[Cell, ...]] = []
    for part, report in data.reports.items():
        for source, sizes in report.sizes.items():
            prompts, whole = sizes.T
            rows += [(part, source, "prompt", *_spread(prompts)), (part, source, "answer", *_spread(whole - prompts))]
    longer = ", of a pair the longer one" if data.holds == "pairs" else ""
    about = f"Tokens before any limit (answers with their end-of-turn token{longer}); a histogram's bar is a doubling."
    columns = ("part", "source", "of", "n", "mean", "5 %", "median", "95 %", "99 %", "longest", "1, 2, 4, 8, …")
    return Measured((Table("lengths", about, columns, tuple(rows)),))


def _spread(sizes: NDArray[np.int64]) -> tuple[Cell, ...]:
    quantiles = (int(np.quantile(sizes, q, method="inverted_cdf")) for q in _QUANTILES)
    doublings = np.bincount(np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64))
    return (len(sizes), round(float(sizes.mean()), 1), *quantiles, int(sizes.max()), tuple(map(int, doublings)))


def token_classes(
    every: Iterable[Example], lost_tokens: Mapping[tuple[str, str], int], end: int, settings: AuditSettings
) -> Measured:
    """What cuts took (tokens, and the end-of-turn token that tells a model to stop), and tokens of a wrong class.

    The classes of a path are wrong where no token is an answer's, where prompt follows on the answer, or where the
    answer holds an end-of-turn token that is not its last.

    Args:
        every: All examples.
        lost_tokens: Tokens that cuts took, by part and source.
        end: Id of the token that ends a turn.
        settings: The limits.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    first: dict[tuple[str, str], str] = {}
    for one in every:
        count = counts.setdefault((one.part, one.source), Counter())
        for path in one.paths:
            answer = path.tokens[path.classes == TokenClass.ANSWER]
            count.update(answers=1, tokens=len(answer), open=int(not len(answer) or answer[-1] != end))
            if wrong := _wrong_classes(path, answer, end):
                count["wrong"] += 1
                first.setdefault((one.part, one.source), f"{one.id}: {wrong}")
    rows: list[tuple[Cell, ...]] = []
    checks = []
    for (part, source), count in counts.items():
        where, open_ended, lost = (
            f"{part}: {source}",
            count["open"] / count["answers"],
            lost_tokens.get((part, source), 0),
        )
        such = first.get((part, source), "")
        rows.append((
            part, source, count["answers"], count["open"], open_ended, count["tokens"], lost,
            lost / max(1, count["tokens"] + lost), count["wrong"], such,
        ))  # fmt: skip
        if settings.max_cut is not None:
            advice = (
                "raise `data.lengths.max_length`, or set `data.lengths.overlong: drop`: a model that learns from "
                "answers without an end does not stop"
            )
            checks.append(Check("audit.max_cut", where, open_ended, settings.max_cut, advice))
        advice = f"{such}; the source or the chat template labels tokens wrongly: report it"
        checks.append(Check("token classes", where, count["wrong"], 0, advice))
    about = (
        "Answers that are trained or scored without their end-of-turn token, answer tokens that cuts took, and answers "
        "whose tokens are of a wrong class (no answer, prompt after it, an end inside)."
    )
    columns = (
        "part", "source", "answers", "without end", "without end, share", "answer tokens", "tokens cut",
        "tokens cut, share", "wrong classes", "such as",
    )  # fmt: skip
    return Measured((Table("cuts", about, columns, tuple(rows)),), tuple(checks))


def _wrong_classes(path: TokenPath, answer: NDArray[np.int32], end: int) -> str:
    if not len(answer):
        return "no token is of an answer"
    begins = int(np.argmax(path.classes == TokenClass.ANSWER))
    if (path.classes[begins:] == TokenClass.PROMPT).any():
        return "prompt follows on the answer"
    return "the answer holds an end-of-turn token inside" if (answer[:-1] == end).any() else ""

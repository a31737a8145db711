"""Tables of TAT-QA's shape, drawn at random, with passages and questions of all four types."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

_ROWS = (
    "Revenue", "Cost of sales", "Gross profit", "Research and development", "Selling expenses", "Income taxes",
    "Net income", "Total assets", "Deferred revenue", "Other income", "Cash and cash equivalents", "Inventories",
)  # fmt: skip
_CAUSES = (
    "lower payments for taxes and integration costs", "higher volume from large orders in Asia",
    "favorable timing of working capital changes", "the termination of interest rate swaps",
    "increased headcount and related expenses", "a decline in average selling prices",
    "the acquisition of two smaller competitors", "weaker demand from customers in Europe",
    "new products that were introduced in the second half", "the effect of foreign currency translation",
)  # fmt: skip


def table_of(number: int, seed: int = 0) -> dict[str, Any]:
    """One context with six to eight questions, as the official files hold it."""
    rng = Random(f"{seed}/{number}")
    last = rng.randint(2017, 2020)
    years = [str(last - i) for i in range(3)]
    labels = rng.sample(_ROWS, 6)
    scale = rng.choice(["thousand", "million", ""])
    cells = [[rng.randint(-400, 9000) or 7 for _ in years] for _ in labels]
    marked = rng.random() < 0.5
    rows = [["", *years]] + [
        [label, *(_cell(value, marked and i == 0) for value in row)]
        for i, (label, row) in enumerate(zip(labels, cells, strict=True))
    ]
    causes = rng.sample(_CAUSES, 4)
    passages = [
        f"{label} changed in {years[0]} primarily due to {cause}. No other change of {label} was material."
        for label, cause in zip(labels, causes, strict=False)
    ]
    asked: list[tuple[str, Any, str, str, str]] = []
    for _ in range(2):
        i, j = rng.randrange(6), rng.randrange(3)
        asked.append((f"What was {labels[i]} in {years[j]}?", [rows[i + 1][j + 1]], "span", scale, ""))
    i = rng.randrange(4)
    asked.append((f"What drove the change of {labels[i]}?", [causes[i]], "span", "", ""))
    i, j = rng.randrange(6), rng.randrange(2)
    both = [rows[i + 1][1 + j], rows[i + 1][2 + j]]
    asked.append((f"What was {labels[i]} in {years[j]} and {years[j + 1]}?", both, "multi-span", scale, ""))
    i, j = rng.randrange(6), rng.randrange(2)
    a, b = abs(cells[i][j]), abs(cells[i][j + 1])
    asked.append((f"What was the change of {labels[i]} from {years[j + 1]}?", a - b, "arithmetic", scale, f"{a} - {b}"))
    change = round(100 * (a - b) / b, 2)
    asked.append((f"By what percentage did {labels[i]} change?", change, "arithmetic", "percent", f"({a}-{b})/{b}"))
    i = rng.randrange(6)
    mean, terms = sum(map(abs, cells[i])) / 3, " + ".join(f"{abs(value):,}" for value in cells[i])
    asked.append((f"What is the average of {labels[i]}?", round(mean, 2), "arithmetic", scale, f"({terms}) / 3"))
    if number % 3 == 0:
        large = [year for year, value in zip(years, cells[0], strict=True) if value > 2000] or years[:1]
        asked.append((f"In how many years was {labels[0]} large?", str(len(large)), "count", "", "##".join(large)))
    return {
        "table": {"uid": f"table-{seed}-{number}", "table": rows},
        "paragraphs": [{"uid": f"p{i}", "order": i + 1, "text": text} for i, text in enumerate(passages)],
        "questions": [
            {
                "uid": f"q-{seed}-{number}-{order}", "order": order, "question": text, "answer": answer,
                "derivation": derivation, "answer_type": kind, "answer_from": "table", "rel_paragraphs": [],
                "req_comparison": False, "scale": of,
            }
            for order, (text, answer, kind, of, derivation) in enumerate(asked, start=1)
        ],
    }  # fmt: skip


def _cell(value: int, dollar: bool) -> str:
    text = f"({abs(value):,})" if value < 0 else f"{value:,}"
    return f"${text}" if dollar else text


def write(folder: Path, contexts: list[dict[str, Any]], name: str = "tatqa_dataset_dev.json") -> str:
    path = folder / name
    path.write_text(json.dumps(contexts, ensure_ascii=False), encoding="utf-8")
    return str(path)

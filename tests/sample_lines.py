"""Files as `lit-align sample` writes them, by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def line(
    name: str = "1",
    sample: int = 0,
    answer: str = "5",
    finished: bool = True,
    scores: Mapping[str, float] | None = None,
    gold: str = "4",
    group: str = "",
    prompt: str = "2 + 2?",
    gold_scores: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """One completion."""
    return {
        "id": name, "sample": sample, "source": "sums", "group": group, "prompt": [{"role": "user", "content": prompt}],
        "gold": gold, "answer": answer, "finished": finished, "tokens": len(answer), "scores": dict(scores or {}),
        **({} if gold_scores is None else {"gold_scores": dict(gold_scores)}),
    }  # fmt: skip


def write_lines(folder: Path, lines: Iterable[Mapping[str, Any]], name: str = "sums.jsonl") -> str:
    path = folder / name
    path.write_text("".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in lines), encoding="utf-8")
    return str(path)

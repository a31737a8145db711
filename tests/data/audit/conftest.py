"""Data modules over a few rows of one's own, set up as a run does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lit_align.data.lengths import Lengths
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.data.sources.preference_file import PreferenceFile

WORDS = [f"{a}{b}" for a in ("ba", "ce", "di", "fo", "gu", "la") for b in ("rt", "nk", "mp", "sh", "lv", "nd")]


def words(n: int, seed: Any) -> str:
    """So many words at random."""
    rng = Random(str(seed))
    return " ".join(rng.choices(WORDS, k=n))


def chats(n: int, seed: str = "") -> list[list[str]]:
    """Questions and answers of words at random, none like another."""
    return [[words(12, f"{seed} q {i}"), words(8, f"{seed} a {i}")] for i in range(n)]


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def conversations(tmp_path: Path) -> Callable[..., SFTDataModule]:
    """Makes a data module of conversations: ``train`` and ``val`` hold turns, the user's first."""

    def make(train: list[list[str]], val: list[list[str]] | None = None, **options: Any) -> SFTDataModule:
        def source(name: str, rows: list[list[str]]) -> MessagesFile:
            roles = ("user", "assistant")
            turns = [[{"role": roles[i % 2], "content": text} for i, text in enumerate(row)] for row in rows]
            return MessagesFile(_write(tmp_path / name, [{"messages": one} for one in turns]))

        options = {"window": 4, "token_budget": 1024, "lengths": Lengths(max_length=512), **options}
        held = [source("val.jsonl", val)] if val else []
        return SFTDataModule(sources=[source("train.jsonl", train)], val_sources=held, **options)

    return make


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., PreferenceDataModule]:
    """Makes a data module of pairs: ``rows`` hold prompt, chosen, rejected and perhaps a group."""

    def make(rows: list[tuple[str, ...]], **options: Any) -> PreferenceDataModule:
        columns = ("prompt", "chosen", "rejected", "table")
        held = [dict(zip(columns, row, strict=False)) for row in rows]
        grouped = "table" if len(rows[0]) == 4 else ""
        options = {"window": 8, "token_budget": 1024, "lengths": Lengths(max_length=512), **options}
        source = PreferenceFile(_write(tmp_path / "pairs.jsonl", held), group=grouped)
        return PreferenceDataModule(sources=[source], **options)

    return make

"""TAT-QA's tables in three parts: for SFT, for pairs, and held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_align.data.chat import ChatFormat
from lit_align.data.mixture import first_held_out, is_held_out
from lit_align.data.sources.tat_qa.source import TATQA

HELD_OUT = 0.2
"""Share of the tables that nothing is trained on."""


@dataclass(frozen=True)
class Parts:
    """Files in TAT-QA's own format.

    Attributes:
        sft: Tables whose gold answers are trained first.
        pairs: Tables of which preference pairs are made.
        held_out: Tables that are measured.
    """

    sft: Path
    pairs: Path
    held_out: Path


def cut(tatqa: Path, folder: Path, chat: ChatFormat, longest: int, most: Mapping[str, int]) -> Parts:
    """Part the tables by a hash of their uids; those with a prompt over a limit are left out of all parts.

    Args:
        tatqa: The published file.
        folder: Where the parts are written.
        chat: The model's chat format.
        longest: Most tokens of a table's longest prompt.
        most: Most tables of a part, by its name (``sft``, ``pairs``, ``held-out``); which ones, the hash decides too.
    """
    sizes: dict[str, int] = {}
    for prompt in TATQA(str(tatqa)).prompts():
        size = len(chat.prompt_ids(prompt.messages, prompt.id))
        sizes[prompt.group] = max(sizes.get(prompt.group, 0), size)
    parts: dict[str, list[Any]] = {"sft": [], "pairs": [], "held-out": []}
    for table in json.loads(tatqa.read_text(encoding="utf-8")):
        uid = table["table"]["uid"]
        if sizes.get(uid, longest + 1) <= longest:
            trained = "sft" if is_held_out(uid, 0.5, seed=1) else "pairs"
            parts["held-out" if is_held_out(uid, HELD_OUT, seed=0) else trained].append(table)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, found in parts.items():
        uids = [table["table"]["uid"] for table in found]
        kept = first_held_out(uids, most.get(name, len(uids)), seed=2)
        tables = [table for table in found if table["table"]["uid"] in kept]
        files[name] = folder / f"{name}.json"
        text = json.dumps(tables, ensure_ascii=False)
        if not files[name].exists() or files[name].read_text(encoding="utf-8") != text:
            files[name].write_text(text, encoding="utf-8")
    return Parts(files["sft"], files["pairs"], files["held-out"])


def digest(path: Path) -> str:
    """Eight hexadecimal digits of a file's contents, for names of folders."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]

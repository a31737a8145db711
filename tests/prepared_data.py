"""Data modules whose data have everything that preparation must keep: groups, mixes, splits, replay, drops."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.data.sources.skill_pairs import SkillPairs
from lit_align.data.sources.table_skills import TableSkills
from lit_align.data.sources.unpaired_pairs import UnpairedPairs
from lit_align.data.sources.unpaired_preference_file import UnpairedPreferenceFile
from lit_align.data.unpaired import UnpairedDataModule
from lit_align.data.window_module import WindowDataModule

KINDS = ("conversations", "pairs", "ratings")
of_all_kinds = pytest.mark.parametrize("kind", KINDS)
of_conversations_and_pairs = pytest.mark.parametrize("kind", KINDS[:2])  # of which there may be a replay


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def chats(number: int = 30) -> list[dict[str, Any]]:
    """Conversations of one or two answers, of growing length; the last one has a control token."""
    rows = []
    for i in range(number):
        turns = [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": "yes " * (1 + i % 9)}]
        rows.append({"messages": turns + (turns if i % 3 == 0 else [])})
    return [*rows, {"messages": [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "no"}]}]


def pairs(number: int = 30) -> list[dict[str, Any]]:
    """Pairs of ten tables, three questions each; the last one cannot be read, that before it has equal answers."""
    rows = [
        {"prompt": f"A table of numbers {i % 10}. Question {i}?", "chosen": "yes " * (1 + i % 9), "rejected": "no",
         "table": f"table {i % 10}" if i % 7 else None}
        for i in range(number)
    ]  # fmt: skip
    return [*rows, {**rows[0], "chosen": "no"}, {"prompt": "?"}]


def ratings(number: int = 40) -> list[dict[str, Any]]:
    """Answers about ten tables or to five prompts, good and bad; the last one has no label, that before it a token."""
    rows = [
        {"prompt": f"A table of numbers {i % 10}. Question {i % 5}?", "completion": f"{i} " + "yes " * (i % 9),
         "label": i % 3 == 0, "table": f"table {i % 10}" if i % 4 else None}
        for i in range(number)
    ]  # fmt: skip
    return [*rows, {**rows[0], "completion": "<|im_end|>"}, {**rows[1], "label": None}]


def module(kind: str, folder: Path, **options: Any) -> WindowDataModule:
    """A data module of files in a folder, set up."""
    common: dict[str, Any] = {
        "val_fraction": 0.3, "replay": [TableSkills(n=7)], "replay_share": 0.5, "window": 6, "bad_rows": "drop",
        "lengths": Lengths(max_length=60, max_dropped=0.9, overlong="cut"), "token_budget": 400,
    }  # fmt: skip
    data: WindowDataModule
    if kind == "conversations":
        path = folder / "chat.jsonl"
        sources = [MessagesFile(str(path) if path.exists() else write_rows(path, chats())), TableSkills(n=40, seed=1)]
        mix = Mix({"chat.jsonl": 1, "table_skills": 1}, by="repeat")
        data = SFTDataModule(**{"sources": sources, "mix": mix, **common, **options})
    elif kind == "ratings":
        path = folder / "ratings.jsonl"
        files = [UnpairedPreferenceFile(str(path) if path.exists() else write_rows(path, ratings()), group="table")]
        apart = UnpairedPairs(SkillPairs(skills=["rise"], n=12))
        mix = Mix({"ratings.jsonl": 1, "skill_pairs": 1}, by="repeat")
        common = {name: value for name, value in common.items() if not name.startswith("replay")}
        data = UnpairedDataModule(**{"sources": [*files, apart], "mix": mix, **common, **options})
    else:
        path = folder / "pairs.jsonl"
        file = PreferenceFile(str(path) if path.exists() else write_rows(path, pairs()), group="table")
        data = PreferenceDataModule(**{"sources": [file], **common, **options})
    data.trainer = SimpleNamespace(global_step=0, global_rank=0, world_size=1)  # type: ignore[assignment]
    data.setup("fit")
    return data


def everything(data: WindowDataModule) -> dict[str, Any]:
    """All that a run sees of its data, as plain values."""
    windows = [*data.train_dataloader(), *data.val_dataloader()]
    forests = [*(forest for window in windows for forest in window.forests), data.largest_forest(), data.probe_forest()]
    parts = {"training": data._trained, "validation": data._validation, "replay": data._replayed}
    return {
        "windows": [(window.index, window.examples) for window in windows],
        "forests": [{name: _plain(value) for name, value in vars(forest).items()} for forest in forests],
        "trees": {
            part: [
                (
                    tree.name,
                    tree.size,
                    tree.group,
                    [{k: _plain(v) for k, v in vars(path).items()} for path in tree.paths],
                )
                for tree in trees
            ]
            for part, trees in parts.items()
        },
        "identity": data.identity(),
        "groups": data.trained_groups,
        "questions": data.trained_questions,
        "sources": data.source_names,
        "reports": {part: report.state() for part, report in data.reports.items()},
        "sizes": {
            part: {source: sizes.tolist() for source, sizes in report.sizes.items()}
            for part, report in data.reports.items()
        },
    }


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value

"""The fingerprint of a source is that of what it reads and how, and not of where it lies."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_align.data.overlap import EvaluationSets
from lit_align.data.sources import fingerprint
from lit_align.data.sources.decontaminated import DecontaminatedConversations
from lit_align.data.sources.finance_instruct import FinanceInstruct
from lit_align.data.sources.fingerprint import source_fingerprint
from lit_align.data.sources.hub_rows import hub_revision
from lit_align.data.sources.named import NamedConversations
from lit_align.data.sources.table_skills import TableSkillItems, TableSkills
from lit_align.types import ConversationSource, stop_at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "here" / "rows.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps({"system": "", "user": "a", "assistant": "b"}) + "\n", encoding="utf-8")
    return file


WRAPPED: dict[str, Callable[[str], ConversationSource]] = {
    "bare": FinanceInstruct,
    "named": lambda path: NamedConversations("mine", FinanceInstruct(path)),
    "clean": lambda path: DecontaminatedConversations(FinanceInstruct(path), EvaluationSets({"a": TableSkillItems()})),
    "in a set": lambda path: DecontaminatedConversations(TableSkills(), EvaluationSets({"a": FinanceInstruct(path)})),
}


@pytest.mark.parametrize("made", WRAPPED)
def test_a_changed_byte_is_another_source_however_it_is_wrapped(path: Path, made: str) -> None:
    before = source_fingerprint(WRAPPED[made](str(path)))
    assert source_fingerprint(WRAPPED[made](str(path))) == before
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"b"', '"c"'), encoding="utf-8")
    os.utime(path, ns=(1, 1))  # a file system with coarse times
    assert source_fingerprint(WRAPPED[made](str(path))) != before


def test_a_file_that_was_moved_is_the_same_source_and_one_that_was_renamed_is_not(path: Path, tmp_path: Path) -> None:
    # Ids and names of sources are made of the file's name.
    before = source_fingerprint(FinanceInstruct(str(path)))
    shutil.copy(path, tmp_path / "rows.jsonl")
    assert source_fingerprint(FinanceInstruct(str(tmp_path / "rows.jsonl"))) == before
    shutil.copy(path, tmp_path / "other.jsonl")
    assert source_fingerprint(FinanceInstruct(str(tmp_path / "other.jsonl"))) != before


def test_another_setting_is_another_source() -> None:
    some = [TableSkills(), TableSkills(n=401), TableSkills(seed=1), TableSkills(skills=["scale"]), TableSkillItems()]
    assert len({source_fingerprint(one) for one in some}) == len(some)


def test_a_folder_is_all_of_its_files(path: Path) -> None:
    before = source_fingerprint(FinanceInstruct(str(path.parent)))
    (path.parent / "notes.txt").write_text("not read", encoding="utf-8")
    assert source_fingerprint(FinanceInstruct(str(path.parent))) == before
    shutil.copy(path, path.parent / "more.jsonl")
    assert source_fingerprint(FinanceInstruct(str(path.parent))) != before


def test_a_set_of_the_hub_is_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for revision in ("f00", "f00", "ba5"):
        monkeypatch.setattr(fingerprint, "hub_revision", lambda name, revision=revision: f"{name}@{revision}")
        found.append(source_fingerprint(FinanceInstruct("owner/name")))
    assert found[0] == found[1] != found[2]


def test_a_builder_of_datasets_on_a_local_file_is_read_row_by_row_and_has_a_revision(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    options: dict[str, Any] = {"data_files": {"train": str(path)}, "cache_dir": str(tmp_path / "cache")}
    load, builder = datasets.load_dataset, datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset", lambda _, split: load("json", split=split, **options))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda _: builder("json", **options))
    assert [one.id for one in FinanceInstruct("owner/name").stream(stop_at)] == ["name:1"]
    assert len(hub_revision("owner/name")) > 8
    assert source_fingerprint(FinanceInstruct("owner/name")) == source_fingerprint(FinanceInstruct("owner/name"))

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lit_align.data.sources.read_rows import read_rows


def parquet_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    return path


def test_parquet_rows_are_the_rows_that_were_written_across_row_groups(tmp_path: Path) -> None:
    rows = [{"a": i, "b": [{"role": "user", "content": f"да {i}"}]} for i in range(5)]
    found = list(read_rows(str(parquet_file(tmp_path / "a.parquet", rows))))
    assert [row.values for row in found] == rows
    assert [row.id for row in found] == [f"a.parquet:{i}" for i in range(1, 6)]


def test_a_folder_is_read_file_by_file_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        parquet_file(tmp_path / f"{name}.parquet", [{"x": f"{name}{i}"} for i in range(2)])
    assert [(row.id, row.values["x"]) for row in read_rows(str(tmp_path))] == [
        ("a.parquet:1", "a0"), ("a.parquet:2", "a1"), ("b.parquet:1", "b0"), ("b.parquet:2", "b1"),
    ]  # fmt: skip


def test_a_limit_counts_over_all_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text('{"x": 1}\n{"x": 2}\n', encoding="utf-8")
    assert [row.id for row in read_rows(str(tmp_path), limit=3)] == ["a.jsonl:1", "a.jsonl:2", "b.jsonl:1"]


@pytest.mark.parametrize(("files", "says"), [([], "is a folder without a .json"), (["a.json", "b.parquet"], "several")])
def test_a_folder_that_leaves_a_choice_or_none_is_refused(tmp_path: Path, files: list[str], says: str) -> None:
    for name in files:
        (tmp_path / name).write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        list(read_rows(str(tmp_path)))


@pytest.mark.parametrize("kept", [0, 3, 40, -1])
def test_a_parquet_file_that_was_cut_short_is_refused_by_name(tmp_path: Path, kept: int) -> None:
    path = parquet_file(tmp_path / "a.parquet", [{"x": i} for i in range(9)])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a\.parquet: is no Parquet file, or one that was cut short"):
        list(read_rows(str(path)))


def test_values_that_json_has_not_are_named(tmp_path: Path) -> None:
    import datetime

    path = parquet_file(tmp_path / "a.parquet", [{"x": datetime.date(2026, 1, 2)}])
    [row] = read_rows(str(path))
    with pytest.raises(ValueError, match=r"a\.parquet:1: x: must be text, not a date \(\"2026-01-02\"\)"):
        row.text("x")


def test_a_data_set_of_the_hub_is_read_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, str]] = []
    rows = [{"subset": "general", "messages": [{"role": "user", "content": "a"}]}, {"subset": "b", "messages": []}]

    def load(name: str, split: str) -> datasets.Dataset:
        asked.append((name, split))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = list(read_rows("t-tech/T-Wix"))
    assert asked == [("t-tech/T-Wix", "train")]
    assert [row.values for row in found] == rows
    assert (found[1].id, found[1].where) == ("T-Wix:2", "t-tech/T-Wix:2")


def test_a_hub_out_of_reach_is_answered_with_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(name: str, split: str) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(OSError, match=r"t-tech/T-Wix: cannot be read .*Couldn't reach.*hf download .* as `path`"):
        list(read_rows("t-tech/T-Wix"))


def test_a_missing_file_beside_others_is_no_id_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chats").write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"data/chat: no such file; did you mean 'chats'"):
        list(read_rows("data/chat"))

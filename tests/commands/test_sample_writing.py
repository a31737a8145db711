"""Completions on disk: whole lines, no gap, no duplicate, one writer, and nothing overwritten."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lit_align.commands.sample_file import (
    SampleFile,
    manifest_of,
    part_of,
    read_manifest,
    refuse_other_manifest,
)
from lit_align.commands.sole_writer import sole_writer

OUT = Path("some.jsonl")
KEYS = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
MANIFEST = {"k": 2, "adapters": [{"path": "here", "digest": "11"}], "base": {"name": "x", "dtype": "float32"}}


def line(name: str, number: int, **changes: Any) -> dict[str, Any]:
    return {"id": name, "sample": number, "finished": True, "tokens": 4, "scores": {"f1": 0.5}, **changes}


def written() -> list[tuple[str, int]]:
    lines = [json.loads(text) for text in OUT.read_text(encoding="utf-8").splitlines()]
    return [(one["id"], one["sample"]) for one in lines]


def test_the_finished_file_is_in_order_whatever_the_order_of_writing() -> None:
    with SampleFile(OUT, MANIFEST, KEYS) as file:
        file.append([line("b", 1), line("a", 1)])
        assert not OUT.exists(), "nothing half-written lies under the final name"
        file.append([line("b", 0), line("a", 0)])
        file.finish()
    assert written() == KEYS
    assert {path.name for path in Path().iterdir()} == {"some.jsonl", "some.manifest.json"}


def test_the_summary_is_over_all_completions_also_those_of_an_earlier_process() -> None:
    with SampleFile(OUT, MANIFEST, KEYS) as file:
        file.append([line("a", 0, finished=False, tokens=10), line("a", 1, scores={})])
    with SampleFile(OUT, MANIFEST, KEYS) as file:
        file.append([line("b", 0, scores={"f1": 1.0}), line("b", 1, tokens=2)])
        summary = file.finish()
    # tokens (10 + 4 + 4 + 2) / 4; f1 (0.5 + 1.0 + 0.5) / 3
    expected = {"n": 4, "unfinished": 0.25, "tokens": 5.0, "scores": {"f1": {"mean": pytest.approx(2 / 3), "n": 3}}}
    assert summary == expected
    manifest = read_manifest(OUT)
    assert manifest is not None
    assert manifest["summary"] == expected


@pytest.mark.parametrize("lost", [1, 10, 40])
def test_a_line_that_was_broken_off_is_cut_off(lost: int) -> None:
    with SampleFile(OUT, MANIFEST, KEYS) as file:
        file.append([line("a", 0), line("b", 0)])
    whole = part_of(OUT).read_bytes()
    part_of(OUT).write_bytes(whole[:-lost])
    with SampleFile(OUT, MANIFEST, KEYS) as file:
        assert file.done == {0}
        file.append([line("b", 0)])
    assert part_of(OUT).read_bytes() == whole


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{}\n", ":2: is no completion of this run ('id')"),
        (b"[1]\n", ":2: is no completion of this run"),
        (b"no json\n", ":2: is no completion of this run (Expecting value"),
        (json.dumps(line("a", 0)).encode() + b"\n", ":2: is no completion of this run ('a', sample 0: twice)"),
        (json.dumps(line("c", 0)).encode() + b"\n", ":2: is no completion of this run ('c', sample 0: unknown)"),
    ],
    ids=["other keys", "no object", "no JSON", "twice", "another prompt"],
)
def test_a_line_that_is_none_of_the_run_is_refused_by_its_number(text: bytes, said: str) -> None:
    with SampleFile(OUT, MANIFEST, KEYS) as file:
        file.append([line("a", 0)])
    with part_of(OUT).open("ab") as stream:
        stream.write(text)
    kept = part_of(OUT).read_bytes()
    with pytest.raises(ValueError, match=r"delete the file to begin anew") as told:
        SampleFile(OUT, MANIFEST, KEYS)
    assert f"{part_of(OUT)}{said}" in str(told.value)
    assert part_of(OUT).read_bytes() == kept


def test_texts_come_back_as_they_are() -> None:
    answer = "Ответ\u2028в 1 строке\n<think>é</think>\x00"
    with SampleFile(OUT, MANIFEST, [("a", 0)]) as file:
        file.append([line("a", 0, answer=answer)])
    with SampleFile(OUT, MANIFEST, [("a", 0)]) as file:
        file.finish()
    assert json.loads(OUT.read_bytes())["answer"] == answer
    assert "Ответ" in OUT.read_text(encoding="utf-8"), "a file for people too"


class _FullDisk:
    """A file on a disk that takes a few bytes more and then none."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: Any) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(self.room, len(data))
        self.room -= taken
        return int(self.file.write(data[:taken]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 7, 90])
def test_a_full_disk_leaves_the_completions_before_it_whole(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with SampleFile(OUT, MANIFEST, KEYS) as file:
        file.append([line("a", 0)])
        before = part_of(OUT).read_bytes()
        monkeypatch.setattr(file, "_file", _FullDisk(file._file, room))
        with pytest.raises(OSError, match=r"some.jsonl.part could not be written \(No space left on device\)"):
            file.append([line("a", 1), line("b", 0)])
        assert file.done == {0}
    assert part_of(OUT).read_bytes() == before


def test_a_full_disk_at_the_end_leaves_all_completions_to_go_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    with SampleFile(OUT, MANIFEST, [("a", 0)]) as file:
        file.append([line("a", 0)])

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(OSError, match="No space left on device"):
                file.finish()
    assert {path.name for path in Path().iterdir()} == {"some.jsonl.part", "some.manifest.json"}
    with SampleFile(OUT, MANIFEST, [("a", 0)]) as file:
        file.finish()
    assert written() == [("a", 0)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 3}, "`k` was 2 and is 3"),
        ({"adapters": []}, "`adapters.n` was 1 and is 0"),
        ({"adapters": [{"path": "here", "digest": "22"}]}, "`adapters.0.digest` was '11' and is '22'"),
        ({"base": {"name": "x", "dtype": "bfloat16"}, "k": 1}, "`k` was 2 and is 1, `base.dtype` was 'float32' and is"),
    ],
    ids=["k", "no adapter", "another adapter", "two"],
)
def test_completions_of_other_settings_are_refused_by_what_differs(changes: dict[str, Any], said: str) -> None:
    with SampleFile(OUT, MANIFEST, KEYS):
        pass
    was = read_manifest(OUT)
    assert was is not None
    with pytest.raises(ValueError, match="drawn with other settings") as told:
        refuse_other_manifest(OUT, was, {**MANIFEST, **changes})
    assert said in str(told.value)
    assert "name another `out`, or delete some.jsonl.part and some.manifest.json" in str(told.value)


def test_where_an_adapter_lies_does_not_matter() -> None:
    moved = {**MANIFEST, "adapters": [{"path": "there", "digest": "11"}], "base": {"name": "y", "dtype": "float32"}}
    with pytest.raises(ValueError, match="drawn with other settings: `k` was 2 and is 3; name another"):  # it alone
        refuse_other_manifest(OUT, {**MANIFEST, "runs": [{}]}, {**moved, "k": 3})
    with SampleFile(OUT, MANIFEST, KEYS):
        pass
    was = read_manifest(OUT)
    assert was is not None
    assert refuse_other_manifest(OUT, was, moved) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "some.jsonl.part is there, and some.manifest.json is not"),
        ("{", "some.manifest.json: is no JSON"),
        ("[]", "some.manifest.json: must hold keys, holds list"),
    ],
)
def test_completions_of_unknown_settings_are_refused(text: str | None, said: str) -> None:
    with SampleFile(OUT, MANIFEST, KEYS):
        pass
    manifest_of(OUT).unlink()
    if text is not None:
        manifest_of(OUT).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="name another `out`") as told:
        read_manifest(OUT)
    assert said in str(told.value)


def test_a_manifest_without_completions_is_no_obstacle() -> None:
    manifest_of(OUT).write_text("{", encoding="utf-8")
    assert read_manifest(OUT) is None


def test_a_second_writer_is_refused_and_the_first_leaves_no_lock() -> None:
    out = Path("new/folder/some.jsonl")
    with sole_writer(out):
        for _ in range(2):  # also after a refusal
            with pytest.raises(BlockingIOError, match=r"writing new.folder.some\.jsonl: wait"), sole_writer(out):
                pass
        with sole_writer(out.with_name("other.jsonl")):
            pass
    with sole_writer(out):
        pass
    assert list(out.parent.iterdir()) == []


def test_a_killed_writer_leaves_no_lock() -> None:
    code = (
        "import os, sys, pathlib\nfrom lit_align.commands.sole_writer import sole_writer\n"
        "with sole_writer(pathlib.Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    )
    path = str(Path(__file__).parents[2])
    killed = subprocess.run([sys.executable, "-c", code, str(OUT)], env={"PYTHONPATH": path})
    assert killed.returncode == -9
    assert Path(".some.jsonl.lock").exists()
    with sole_writer(OUT):
        pass
    assert not Path(".some.jsonl.lock").exists()


def test_a_folder_that_cannot_be_made_is_named() -> None:
    Path("file").write_text("x", encoding="utf-8")
    with pytest.raises(OSError, match=r"file.some\.jsonl cannot be written"), sole_writer(Path("file/some.jsonl")):
        pass

"""What is kept is found by all that decides it, refused when it is not whole, and written by one process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prepared_data import chats, everything, module, of_all_kinds, write_rows

from lit_align.data import sft as sft_file
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.part import Workshop
from lit_align.data.prepared import cache as cache_file
from lit_align.data.prepared import deciding as deciding_file
from lit_align.data.prepared.cache import PreparedCache
from lit_align.data.prepared.columns import Column
from lit_align.data.prepared.deciding import deciding
from lit_align.data.prepared.prepared import FORMAT, Prepared
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.data.sources.named import NamedConversations
from lit_align.data.sources.table_skills import TableSkills
from lit_align.tokenizer import load_tokenizer
from lit_align.types import ConversationSource


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def not_again(*_: Any) -> Prepared:
    raise AssertionError("prepared again")


@of_all_kinds
def test_a_warm_start_gives_what_a_cold_one_gives_and_what_none_gives(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = everything(module(kind, tmp_path))
    cold = module(kind, tmp_path, cache="kept")
    assert everything(cold) == expected
    monkeypatch.setattr(type(cold), "_prepare", not_again)
    assert everything(module(kind, tmp_path, cache="kept")) == expected
    assert len(entries(Path("kept"))) == 1


@of_all_kinds
def test_what_makes_windows_alone_may_change(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"window": 2, "token_budget": 250, "seed": 7}
    if kind != "ratings":
        changes["replay_share"] = 0.25
    expected = everything(module(kind, tmp_path, **changes))
    first = module(kind, tmp_path, cache="kept")
    monkeypatch.setattr(type(first), "_prepare", not_again)
    assert everything(module(kind, tmp_path, cache="kept", workers=0, processes=1, **changes)) == expected


@of_all_kinds
def test_a_budget_that_is_too_small_is_an_error_warm_and_cold(kind: str, tmp_path: Path) -> None:
    for cache in (None, "kept"):
        module(kind, tmp_path, cache=cache)
        with pytest.raises(ValueError, match=r"tokens (of its .*)?are over `data.token_budget` = 30"):
            module(kind, tmp_path, cache=cache, token_budget=30)


@of_all_kinds
def test_a_warm_start_tells_the_same_report(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    def lines() -> list[str]:
        caplog.clear()
        module(kind, tmp_path, cache="kept")
        return [line for line in caplog.messages if line.startswith(("training: ", "validation: ", "replay: "))]

    cold = lines()
    assert len(cold) > 3
    assert lines() == cold


CHANGES: list[dict[str, Any]] = [
    {"turns": "last"},
    {"thinking": True},
    {"lengths": Lengths(max_length=61, max_dropped=0.9, overlong="cut")},
    {"split_seed": 1},
    {"val_fraction": 0.2},
    {"mix": None},
    {"mix": Mix({"chat.jsonl": 1, "table_skills": 2}, by="repeat")},
    {"replay": [TableSkills(n=8)]},
    {"val_sources": [TableSkills(n=3)]},
    {"base": "other"},
]


def test_whatever_decides_the_data_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = load_tokenizer("tiny-qwen3")
    other.chat_template = str(other.chat_template).replace("<|im_start|>", "<|im_start|> ")
    monkeypatch.setattr(sft_file, "load_tokenizer", lambda base: other if base == "other" else load_tokenizer(base))
    module("conversations", tmp_path, cache="kept")
    for number, change in enumerate(CHANGES, start=2):
        changed = module("conversations", tmp_path, cache="kept", **change)
        assert len(entries(Path("kept"))) == number, change
        alone = module("conversations", tmp_path, **change)
        for part in ("_trained", "_validation", "_replayed"):
            found, expected = ([tree.name for tree in getattr(data, part)] for data in (changed, alone))
            assert found == expected, change
        assert changed.identity() == alone.identity(), change


def test_the_bytes_of_a_file_count_and_not_its_date(tmp_path: Path) -> None:
    first = everything(module("conversations", tmp_path, cache="kept"))
    path = tmp_path / "chat.jsonl"
    os.utime(path, (1, 1))
    assert everything(module("conversations", tmp_path, cache="kept")) == first
    assert len(entries(Path("kept"))) == 1
    text, when = path.read_bytes(), path.stat()
    path.write_bytes(text.replace(b"Question 1?", b"Question X?"))
    os.utime(path, (when.st_atime, when.st_mtime))  # as long as before, and as old
    assert everything(module("conversations", tmp_path, cache="kept")) != first
    assert len(entries(Path("kept"))) == 2


def key(*sources: ConversationSource) -> str:
    return deciding({"sources": list(sources)}, load_tokenizer("tiny-qwen3"))[0]


def test_files_are_seen_wherever_they_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    write_rows(folder / "a.jsonl", chats(2))
    source = NamedConversations("chat", MessagesFile(str(folder)))
    keys = {key(source)}
    write_rows(folder / "b.jsonl", chats(3))
    keys.add(key(source))
    (folder / "b.jsonl").rename(folder / "c.jsonl")
    keys.add(key(source))
    assert len(keys) == 3


def test_a_file_that_was_moved_is_the_same_and_one_that_was_renamed_is_another(tmp_path: Path) -> None:
    # Ids and sources are made of its name, of nothing else that stands in a path.
    keys = set()
    for place in ("here/chat.jsonl", "there/chat.jsonl", "there/talk.jsonl"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write_rows(tmp_path / place, chats(2))
        keys.add(key(MessagesFile(str(tmp_path / place))))
    assert len(keys) == 2


def test_a_data_set_of_the_hub_counts_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, file: str, repo_type: str) -> str:
        assert (name, repo_type) == ("owner/set", "dataset")
        return str(tmp_path / commit / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    keys = set()
    for commit in ("0123", "4567", "0123"):  # noqa: B007  which the function above looks up
        keys.add(key(MessagesFile("owner/set")))
    assert len(keys) == 2


@dataclass(frozen=True)
class WithAFunction(TableSkills):
    """A source that holds something of which nothing can be told."""

    chooses: Any = field(default=len)


def test_an_option_that_cannot_be_told_is_refused_and_named() -> None:
    with pytest.raises(ValueError, match=r"`data.cache`: what data.sources.chooses holds .* a builtin_function"):
        key(WithAFunction())


# ------------------------------------------------------------------------------------------------ damage


def cut(entry: Path) -> None:
    path = entry / "training.tokens"
    path.write_bytes(path.read_bytes()[:-4])


def flip(entry: Path) -> None:
    path = entry / "replay.classes"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


def edit(entry: Path, **changes: Any) -> None:
    path = entry / "prepared.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGES = {
    "cut": (cut, "training.tokens has"),
    "flipped": (flip, "replay.classes does not fit its checksum"),
    "missing file": (lambda entry: (entry / "validation.names.utf8").unlink(), "validation.names.utf8 is missing"),
    "no manifest": (lambda entry: (entry / "prepared.json").unlink(), "prepared.json is missing or not whole"),
    "half a manifest": (lambda entry: (entry / "prepared.json").write_text('{"format'), "is missing or not whole"),
    "other format": (lambda entry: edit(entry, format=FORMAT + 1), f"prepared.json is not of format {FORMAT}"),
    "other code": (lambda entry: edit(entry, **{"made by": {}}), "made by another version of datasets"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_whole_or_of_another_version_is_named_and_made_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = everything(module("conversations", tmp_path, cache="kept"))
    [entry] = entries(Path("kept"))
    hurt, says = DAMAGES[damage]
    hurt(entry)  # type: ignore[operator]
    assert everything(module("conversations", tmp_path, cache="kept")) == expected
    [told] = [line for line in caplog.messages if "prepared again" in line]
    assert told.startswith(f"prepared data {entry} are not used: ")
    assert says in told
    caplog.clear()
    assert everything(module("conversations", tmp_path, cache="kept")) == expected
    assert not [line for line in caplog.messages if "prepared again" in line]
    assert entries(Path("kept")) == [entry]


def test_a_change_of_the_code_that_prepares_is_another_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tokenizer = load_tokenizer("tiny-qwen3")
    before = deciding({"sources": [TableSkills()]}, tokenizer)
    foreign = deciding({"sources": [WithAFunction(chooses=1)]}, tokenizer)
    assert before[1] != foreign[1], "a class of this file"
    monkeypatch.setattr(deciding_file, "_CODE", ("data", "types.py"))
    after = deciding({"sources": [TableSkills()]}, tokenizer)
    assert after[0] == before[0]
    assert [name for name in before[1] if before[1][name] != after[1][name]] == ["the code that prepares data"]


# ------------------------------------------------------------------------------------------------ writing


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module("conversations", tmp_path, cache="kept", turns="last")
    before = entries(Path("kept"))
    real, written = Column._write, [0]

    def full(self: Column) -> None:
        written[0] += 1
        if written[0] > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self)

    monkeypatch.setattr(Column, "_write", full)
    with pytest.raises(OSError, match=r"could not be written to kept \(No space left on device\).*`data.cache`"):
        module("conversations", tmp_path, cache="kept")
    assert entries(Path("kept")) == before


def test_an_error_while_preparing_leaves_nothing_and_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds the text of the control token"):
        module("conversations", tmp_path, cache="kept", bad_rows="stop", mix=None)
    assert entries(Path("kept")) == []
    module("conversations", tmp_path, cache="kept")
    [entry] = entries(Path("kept"))
    (entry / "prepared.json").unlink()
    (left := Path("kept", f"{entry.name}.part-123")).mkdir()
    (left / "training.tokens").write_bytes(b"half")
    module("conversations", tmp_path, cache="kept")
    assert entries(Path("kept")) == [entry]


def test_of_two_at_once_one_prepares_and_the_other_waits_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", cache_file.logger.name)
    monkeypatch.setattr(cache_file, "_SECONDS_UNSAID", 0.05)
    data = module("conversations", tmp_path)
    prepared: list[int] = []

    def slowly(workshop: Workshop) -> Prepared:
        prepared.append(1)
        time.sleep(0.5)
        return data._prepare(workshop)

    found: list[Prepared] = []

    def get() -> None:
        found.append(PreparedCache(Path("kept"), "key", {}, Lengths()).get(slowly, 1))

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(prepared) == 1
    assert sum("waiting for another process" in line for line in caplog.messages) == 2
    assert len({one.trained_groups for one in found}) == 1


SLOW_RUN = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with Ctrl-C ignored
sys.path.insert(0, {tests!r})
from pathlib import Path
import prepared_data
from lit_align.data.prepared.examples import GrowingExamples
real, count = GrowingExamples.append, [0]
def append(self, one):
    count[0] += 1
    if count[0] == 12:
        print("in the middle", flush=True)
        time.sleep(60)
    return real(self, one)
GrowingExamples.append = append
prepared_data.module("conversations", Path({folder!r}), cache={cache!r}{more})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "more"),
    [(signal.SIGKILL, ""), (signal.SIGKILL, ", processes=2, mix=None"), (signal.SIGINT, ", processes=2, mix=None")],
    ids=["kill", "kill with processes", "Ctrl-C with processes"],
)
def test_a_kill_while_preparing_leaves_nothing_that_is_used_and_no_process(
    sent: signal.Signals, more: str, tmp_path: Path
) -> None:
    expected = everything(module("conversations", tmp_path))
    cache = tmp_path / "kept"
    script = tmp_path / "slow.py"
    code = SLOW_RUN.format(tests=str(Path(__file__).parents[2]), folder=str(tmp_path), cache=str(cache), more=more)
    script.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in code.splitlines()))
    run = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "in the middle\n"
    children = _children(run.pid)
    assert len(children) >= (2 if more else 0)
    if sent == signal.SIGINT:
        os.killpg(run.pid, sent)  # as a terminal does: to all of them
    else:
        run.send_signal(sent)
    run.communicate(timeout=60)
    left = entries(cache)
    assert left == ([] if sent == signal.SIGINT else [path for path in left if ".part-" in path.name])
    limit = time.monotonic() + 20
    while any(map(_runs, children)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(map(_runs, children))
    assert everything(module("conversations", tmp_path, cache=str(cache))) == expected


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def test_a_module_without_a_cache_has_none_by_default() -> None:
    assert SFTDataModule(sources=[TableSkills()]).cache is None

"""``lit-align sample`` as a command: its keys, its configurations, its mistakes, and its end by a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import PATIENCE, ROOT
from in_process import shown_line

from lit_align.cli import main
from lit_align.commands.sample import Sample

CONFIGS = sorted((ROOT / "configs" / "sample").glob("*.yaml"))
SMALL: dict[str, Any] = {
    "source": {"class_path": "TableSkillItems", "init_args": {"skills": ["lookup", "chat"], "n_per_skill": 2}},
    "out": "out.jsonl",
    "k": 2,
    "sampling": {"temperature": 0.8, "top_p": 0.9},
    "max_new_tokens": 8,
    "engine": {
        "class_path": "LocalEngine",
        "init_args": {"base": "tiny-qwen3", "weights": {"dtype": "float32"}, "batch_size": 4, "cpu_threads": 1},
    },
}

every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def run(*words: str, **changes: Any) -> int | str | None:
    """Exit status of the command in this process."""
    Path("sample.yaml").write_text(yaml.safe_dump({**SMALL, **changes}), encoding="utf-8")
    try:
        return main(["sample", "-c", "sample.yaml", *words])
    except SystemExit as leave:
        return leave.code


def built(monkeypatch: pytest.MonkeyPatch, *words: str) -> Sample:
    """What the command would run."""
    found: list[Sample] = []
    with monkeypatch.context() as patch:
        patch.setattr(Sample, "run", lambda self: found.append(self))
        assert main(["sample", *words]) == 0
    return found[0]


def test_the_command_writes_the_file_and_says_what_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    lines = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 8
    shown = capsys.readouterr().err
    assert "4 prompts, 2 completions each" in shown
    assert "unfinished: " in shown
    assert "exact_match: " in shown
    assert "(n = 8)" in shown
    manifest = json.loads(Path("out.manifest.json").read_text(encoding="utf-8"))
    assert manifest["runs"][0]["command"] == "lit-align sample -c sample.yaml"
    assert run() == 0
    assert "all 8 completions are there already" in capsys.readouterr().err
    assert run("--seed=1") == 1
    assert "`seed` was 0 and is 1; name another `out`" in shown_line(capsys)


@every_config
def test_a_configuration_builds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = built(monkeypatch, "-c", str(path))
    assert sample.out == f"samples/{path.stem}.jsonl"
    assert sample.engine.renders
    assert not sample.thinking


@every_config
def test_a_configuration_says_what_it_is_for_and_how_it_is_run(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert any(line == f"#   lit-align sample -c configs/sample/{path.name}" for line in header), header


def test_a_server_takes_the_place_of_the_model_as_the_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = [path for path in CONFIGS if path.stem == "qwen3-1.7b-tatqa"]
    told = path.read_text(encoding="utf-8").splitlines()
    overlay = "\n".join(line.removeprefix("#   ") for line in told if line.startswith(("#   max_p", "#   engine")))
    Path("server.yaml").write_text(overlay, encoding="utf-8")
    sample = built(monkeypatch, "-c", str(path), "-c", "server.yaml")
    assert not sample.engine.renders
    assert sample.max_prompt_length == 0


def test_the_command_line_wins_over_files_and_later_files_over_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    Path("b.yaml").write_text("k: 3\nsampling: {top_p: 0.5}\n", encoding="utf-8")
    sample = built(monkeypatch, "-c", "a.yaml", "-c", "b.yaml", "--sampling.top_k=7", "--limit=1")
    assert (sample.k, sample.sampling.temperature, sample.sampling.top_p, sample.sampling.top_k) == (3, 0.8, 0.5, 7)
    assert sample.limit == 1


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--kk=2", "unknown key `kk`"),
        ("--max_new_token=2", "unknown key `max_new_token`; did you mean `max_new_tokens`?"),
        ("--sampling.temprature=1", "unknown key `sampling.temprature`; did you mean `sampling.temperature`?"),
        ("--engine.batchsize=2", "unknown key `engine.batchsize`; did you mean `batch_size`?"),
        ("--source.n_per_skil=2", "unknown key `source.n_per_skil`; did you mean `n_per_skill`?"),
        ("--engine=LocalEngin", "`engine`: `LocalEngin` is no Engine; did you mean `LocalEngine`?"),
        ("--source=TableSkillItms", "`source`: `TableSkillItms` is no PromptSource; did you mean `TableSkillItems`?"),
        ("--engine=EndpointEngine", "`engine`: EndpointEngine needs `url`, `model`"),
        ("--k=many", "`k`: must be int, got 'many'"),
        ("--k=0", "`k` must be at least 1, got 0"),
        ("--sampling.temperature=-1", "sampling.temperature must be finite and >= 0, got -1.0"),
        ("--sampling.top_p=0", "sampling.top_p must be in (0, 1], got 0.0"),
        ("--sampling.top_p=1.5", "sampling.top_p must be in (0, 1], got 1.5"),
        ("--engine.batch_size=0", "`engine.batch_size` must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_answered_in_one_line_that_names_the_key(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(word) == 2
    assert said in shown_line(capsys)
    assert not Path("out.jsonl.part").exists()


def test_the_command_alone_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sample"])
    assert "`engine` and `out` and `source` not set; name a file with -c" in shown_line(capsys)


def test_the_configuration_is_printed_without_running(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--print_config") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["max_prompt_length"] == 0
    assert printed["engine"]["init_args"]["batch_size"] == 4
    assert not Path("out.jsonl").exists()


LONGER = {
    "source": {"class_path": "TableSkillItems", "init_args": {"skills": ["lookup", "chat"], "n_per_skill": 12}},
    "k": 4,
    "max_new_tokens": 24,
}


@contextmanager
def process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process, on work that takes some seconds."""
    (folder / "sample.yaml").write_text(yaml.safe_dump({**SMALL, **LONGER}), encoding="utf-8")
    words = [sys.executable, "-m", "lit_align", "sample", "-c", "sample.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # Where the tests run in the background, Ctrl-C is ignored, which a child would inherit; a handler it does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (folder / "stderr.txt").open("wb") as log:
        started = subprocess.Popen(words, cwd=folder, env=environment, stderr=log, stdout=subprocess.DEVNULL)
        signal.signal(signal.SIGINT, before)
        try:
            yield started
        finally:
            started.kill()
            started.wait()


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(path: Path, number: int, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while lines_in(path) < number:
        assert started.poll() is None, (path.parent / "stderr.txt").read_text(encoding="utf-8")
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_runs_go_on_to_the_bytes_of_an_unbroken_one(tmp_path: Path) -> None:
    assert run(**LONGER, out="whole.jsonl") == 0
    part = tmp_path / "out.jsonl.part"
    for number in (1, 40):
        with process(tmp_path) as started:
            wait_for_lines(part, number, started)
            os.kill(started.pid, signal.SIGKILL)
            assert started.wait(PATIENCE) == -9
        assert number <= lines_in(part) < 96
        assert not (tmp_path / "out.jsonl").exists()
    assert run(**LONGER) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith((".part", ".lock", ".new"))]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_there_and_says_how_to_go_on(tmp_path: Path) -> None:
    with process(tmp_path) as started:
        wait_for_lines(tmp_path / "out.jsonl.part", 1, started)
        started.send_signal(signal.SIGINT)
        assert started.wait(PATIENCE) == 1
    told = (tmp_path / "stderr.txt").read_text(encoding="utf-8")
    assert f"{lines_in(tmp_path / 'out.jsonl.part')} of 96 completions are saved in out.jsonl.part" in told
    assert "Traceback" not in told

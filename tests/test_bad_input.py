"""What a user sees for bad data, settings and checkpoints, through the command itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from in_process import fit, shown_line

from lit_align.cli import main
from lit_align.modules.startup import refuse_absent_devices, refuse_trainer_settings
from lit_align.tokenizer import resolve_base

GOOD = {"question": "What is 2 + 2?", "answer": "Four."}
COLUMNS = {"class_path": "PromptCompletionFile", "init_args": {"path": "d.jsonl", "prompt": ["question"]}}
COLUMNS["init_args"]["completion"] = "answer"  # type: ignore[index]
MESSAGES = {"class_path": "MessagesFile", "init_args": {"path": "d.jsonl"}}


def _lines(*rows: object) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _fit(
    rows: bytes | None, *words: str, source: object = COLUMNS, callbacks: Sequence[object] = (), **data: Any
) -> int | str | None:
    """Exit status of a run of at most four windows on the given rows."""
    if rows is not None:
        Path("d.jsonl").write_bytes(rows)
    config = {
        "cpu_threads": 1,
        "model": {"class_path": "SFTModule", "init_args": {"weights": {"dtype": "float32"}}},
        "data": {"class_path": "SFTDataModule", "init_args": {"sources": [source], "window": 2, **data}},
        "trainer": {"accelerator": "cpu", "max_steps": 4, "enable_progress_bar": False, "callbacks": [*callbacks]},
    }
    return fit(config, *words)


_MESSAGE = {"role": "assistant", "content": "b"}
_LONG = {"question": "w " * 300, "answer": "b"}
_CUT_OFF = b'{"question": "a", "answer": "b"}\n{"question": "a", \n'
_LATIN = '{"question": "a", "answer": "b"}\n{"question": "\xe9", "answer": "b"}\n'.encode("latin-1")


@pytest.mark.parametrize(
    ("rows", "source", "data", "says"),
    [
        (None, COLUMNS, {}, ["d.jsonl", "no such file"]),
        (b"", COLUMNS, {}, ["d.jsonl: holds no row"]),
        (_lines({"queston": "a", "answer": "b"}), COLUMNS, {}, ["d.jsonl:1", "'question'", "did you mean 'queston'?"]),
        (_lines(GOOD, {"question": "a"}), COLUMNS, {}, ["d.jsonl:2", "no column 'answer'", "has: question"]),
        (_lines(GOOD, {"question": "a", "answer": 4}), COLUMNS, {}, ["d.jsonl:2: answer", "text", "a number (4)"]),
        (_lines(GOOD, {"question": "a", "answer": " "}), COLUMNS, {}, ["d.jsonl:2: answer", "blank", "' '"]),
        (_lines(GOOD, {"question": " ", "answer": "a"}), COLUMNS, {}, ["d.jsonl:2: question", "blank"]),
        (_CUT_OFF, COLUMNS, {}, ["d.jsonl, line 2, column 18: broken JSON"]),
        (_LATIN, COLUMNS, {}, ["d.jsonl, line 2: not UTF-8", "0xe9", "iconv -f LATIN1"]),
        (
            _lines({"messages": [{"role": "usr", "content": "a"}, _MESSAGE]}),
            MESSAGES, {}, ["d.jsonl:1: messages[0].role", "system, user, assistant", "usr"],
        ),
        (
            _lines({"messages": [{"role": "user", "content": "a"}, {**_MESSAGE, "content": ""}]}),
            MESSAGES, {}, ["d.jsonl:1: messages[1].content", "blank"],
        ),
        (
            _lines({"messages": [{"role": "user", "content": "a"}]}),
            MESSAGES, {}, ["d.jsonl:1", "no assistant turn", "nothing to train"],
        ),
        (_lines({"question": "a<|im_end|>", "answer": "b"}), COLUMNS, {}, ["d.jsonl:1", "control token <|im_end|>"]),
        (_lines(GOOD), COLUMNS, {"lengths": {"max_length": 8}},
         ["no example is left for training: of 1 answers 1 prompt too long", "raise `data.lengths.max_length`"]),
        (
            _lines(_LONG), COLUMNS, {"lengths": {"max_length": 400, "max_prompt_length": 50}},
            ["no example is left for training", "max_prompt_length=50"],
        ),
        (_lines(GOOD, _LONG), COLUMNS, {"token_budget": 100}, ["d.jsonl:2", "tokens", "`data.token_budget` = 100"]),
        (_lines(GOOD), COLUMNS, {"val_fraction": 0.01}, ["`data.val_fraction` = 0.01", "none of 1"]),
    ],
    ids=[
        "missing file", "empty file", "wrong column", "missing column", "number for text", "blank answer",
        "blank question", "broken JSON", "Latin-1", "unknown role", "empty answer", "nothing to train",
        "control token", "nothing fits", "prompt over-long", "budget", "nothing held out",
    ],
)  # fmt: skip
def test_bad_data_are_answered_with_file_row_and_rule_before_a_folder_is_made(
    rows: bytes | None, source: object, data: dict[str, Any], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(rows, source=source, **data) == 1
    told = shown_line(capsys)
    assert all(part in told for part in says), told
    assert not Path("lightning_logs").exists()


_QUESTION = {"question_id": 1, "category": "math", "turns": ["1 + 1?", "And 2?"], "reference": ["2", "4"]}
_SCORER = {"class_path": "ReferenceScorer"}
_ASKED = {"class_path": "MTBenchBenchmark", "init_args": {"scorer": _SCORER, "path": "q.jsonl"}}
_TRAINED = {
    "class_path": "ScoredAnswersBenchmark", "init_args": {"scorer": _SCORER, "val_fraction": 1.0, "source": COLUMNS},
}  # fmt: skip


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    ("question", "benchmark", "says"),
    [
        ({**_QUESTION, "turns": ["1 + 1?"]}, _ASKED, ["q.jsonl:1: turns", "list of 2 texts"]),
        ({**_QUESTION, "reference": ["2", ""]}, _ASKED, ["1/2: has no reference answer"]),
        (_QUESTION, _TRAINED, ["benchmark 'scored-answers': training sees 1 of its groups", "`val_fraction` = 0.0"]),
    ],
    ids=["one turn", "no reference", "trained items"],
)
def test_bad_benchmarks_are_answered_before_the_base_is_read_and_a_folder_is_made(
    question: object, benchmark: object, says: list[str], early: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("q.jsonl").write_bytes(_lines(question))
    name, options = ("MTBenchEarlyStopping", {"benchmark": benchmark}) if early else (
        "BenchmarkEvaluation", {"benchmarks": [benchmark]}
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_align.modules.base.AlignModule.configure_model", lambda _: pytest.fail("base was read"))
        assert _fit(_lines(GOOD), callbacks=[{"class_path": name, "init_args": options}]) == 1
    told = shown_line(capsys)
    assert all(part in told for part in says), told
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("--trainer.max_steps=-1", ["no end", "`trainer.max_steps`", "`trainer.max_epochs`"]),
        ("--trainer.precision=16-mixed", ["`trainer.precision` = 16-mixed", "bf16-mixed or 32-true"]),
        ("--trainer.precision=bf16-true", ["`trainer.precision` = bf16-true", "bf16-mixed or 32-true"]),
        ("--trainer.accumulate_grad_batches=4", ["`trainer.accumulate_grad_batches` = 4", "`data.window`"]),
        ("--trainer.gradient_clip_val=1.0", ["`trainer.gradient_clip_val` = 1.0", "`model.max_grad_norm`"]),
        ("--model.lora.rank=-1", ["`lora.rank` must be > 0, got -1"]),
        ("--data.token_budget=0", ["`data.token_budget` must be > 0, got 0"]),
        ("--data.replay_share=0.5", ["`data.replay`", "`data.replay_share` (0.5)"]),
        ("--data.lengths.max_length=1", ["`data.lengths.max_length` must be > 1, got 1"]),
        ("--model.max_grad_norm=-1", ["`max_grad_norm` must be >= 0, got -1"]),
    ],
)
def test_bad_settings_are_answered_with_key_value_and_rule_before_a_folder_is_made(
    word: str, says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(_lines(GOOD), word) == 2
    told = shown_line(capsys)
    assert all(part in told for part in says), told
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(("content", "says"), [(None, "no such file"), (b"", "(0 bytes) is cut short")])
def test_a_bad_checkpoint_is_answered_with_its_name_before_a_folder_is_made(
    content: bytes | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("last.ckpt").write_bytes(content)
    assert _fit(_lines(GOOD), "--ckpt_path=last.ckpt") == 1
    told = shown_line(capsys)
    assert "last.ckpt" in told
    assert says in told
    assert not Path("lightning_logs").exists()


def test_a_checkpoint_that_is_cut_short_is_answered_with_its_name_and_leaves_no_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _fit(_lines(GOOD), "--trainer.max_steps=1") == 0
    whole = Path("lightning_logs/lit_align/version_0/checkpoints/last.ckpt").read_bytes()
    Path("cut.ckpt").write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert _fit(_lines(GOOD), "--trainer.max_steps=1", "--ckpt_path=cut.ckpt") == 1
    told = shown_line(capsys)
    assert f"cut.ckpt ({len(whole) // 2} bytes) is cut short" in told
    assert [path.name for path in Path("lightning_logs/lit_align").iterdir()] == ["version_0"]


def test_a_base_that_is_not_there_is_answered_with_the_forms_that_a_base_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _fit(_lines(GOOD), "--model.base=no_such_base") == 1
    told = shown_line(capsys)
    assert "base 'no_such_base': no such file or folder" in told
    assert "tiny-qwen3" in told
    assert not Path("lightning_logs").exists()


def test_a_base_without_chat_template_is_refused_before_a_folder_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(resolve_base("tiny-qwen3").path, "plain", ignore=shutil.ignore_patterns("*.jinja"))
    settings = json.loads(Path("plain/tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("chat_template", None)
    Path("plain/tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert _fit(_lines(GOOD), "--model.base=plain") == 1
    told = shown_line(capsys)
    assert "base 'plain': its tokenizer has no chat template" in told
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize("rate", [".inf", "1.0e+30"])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_window_examples_and_saved_state(
    rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(_lines(*[GOOD] * 8), f"--model.optimizer.lr={rate}") == 1
    told = shown_line(capsys)
    assert "window 1: loss is not finite; examples: d.jsonl:" in told
    run = Path("lightning_logs/lit_align/version_0")
    saved = run / "checkpoints" / "nonfinite-step-000001.ckpt"
    assert str(saved) in told
    assert saved.is_file()
    assert {"config.yaml", "environment.json"} <= {path.name for path in run.iterdir()}
    assert not (run / "adapter").exists(), "a broken run must not look like a finished one"


def test_rows_that_do_not_fit_are_counted_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    limits = {"max_length": 400, "max_prompt_length": 50}
    assert _fit(_lines(GOOD, _LONG, GOOD), "--trainer.fast_dev_run=true", lengths=limits) == 0
    assert "training: d.jsonl: 3 answers: 2 kept, 1 prompt too long" in capsys.readouterr().err


_BLANK = {"messages": [{"role": "user", "content": "a"}, {**_MESSAGE, "content": " "}]}
_TOOL = {"messages": [{"role": "tool", "content": "a"}, _MESSAGE]}
_NULL = {"messages": [{"role": "user", "content": None}, _MESSAGE]}
_TALK = {"messages": [{"role": "user", "content": "a"}, _MESSAGE]}


@pytest.mark.parametrize(
    ("source", "column", "rows"),
    [
        ({"class_path": "MessagesFile", "init_args": {"path": "d.jsonl"}}, {}, [_BLANK, _TOOL, _NULL, _TALK, _TALK]),
        (
            {"class_path": "TWix", "init_args": {"path": "d.jsonl"}}, {"subset": "general"},
            [_BLANK, _TOOL, _NULL, _TALK, _TALK],
        ),
        (COLUMNS, {}, [{**GOOD, "answer": " "}, {"question": "a"}, {**GOOD, "question": 1}, GOOD, GOOD]),
    ],
    ids=["messages", "T-Wix", "columns"],
)  # fmt: skip
def test_rows_that_a_source_cannot_read_stop_the_run_or_are_counted_and_left_out(
    source: object, column: dict[str, str], rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _lines(*({**row, **column} for row in rows))
    assert _fit(lines, source=source) == 1
    assert "d.jsonl:1" in shown_line(capsys)
    limit = {"max_dropped": 0.7}
    assert _fit(lines, "--trainer.fast_dev_run=true", source=source, bad_rows="drop", lengths=limit) == 0
    told = capsys.readouterr().err
    assert "5 answers: 2 kept, 3 refused; first refusal: d.jsonl:1" in told


def test_a_source_of_which_most_rows_are_refused_stops_with_the_first_refusal_and_no_talk_of_lengths(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = {"question": "a<|im_end|>", "answer": "b"}
    assert _fit(_lines(bad, bad, GOOD), bad_rows="drop") == 1
    told = shown_line(capsys)
    assert "2 of 3 answers (67%) would be dropped" in told
    assert "mend what is refused (d.jsonl:1" in told
    assert "max_length`" not in told
    assert _fit(_lines(bad, bad), bad_rows="drop") == 1
    assert "of 2 answers 2 refused" in shown_line(capsys)


def test_prompts_that_are_too_long_are_answered_with_their_own_lengths_and_limit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    limits = {"max_length": 400, "max_prompt_length": 50, "overlong": "cut"}
    assert _fit(_lines(GOOD, _LONG, _LONG), lengths=limits) == 1
    shown = capsys.readouterr().err
    assert "tokens of the prompts, against a limit of 50" in shown
    assert "raise `data.lengths.max_prompt_length`" in shown
    assert "overlong: cut`" not in shown


@pytest.mark.parametrize(("model", "data"), [("SFTModule", "PreferenceDataModule"), ("DPOModule", "SFTDataModule")])
def test_data_of_another_objective_are_refused(model: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("d.jsonl").write_bytes(_lines({"prompt": "a", "chosen": "b", "rejected": "c", "completion": "b"}))
    source = {"SFTDataModule": "PromptCompletionFile", "PreferenceDataModule": "PreferenceFile"}[data]
    words = ["--model", model, "--data", data, f"--data.sources+={source}", "--data.sources.path=d.jsonl"]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *words, "--trainer.max_steps=1", "--trainer.accelerator=cpu"])
    told = shown_line(capsys)
    assert f"`data` {data} holds" in told
    assert "DPOModule with PreferenceDataModule" in told
    assert not Path("lightning_logs").exists()


def test_a_limit_that_drops_most_rows_stops_with_a_line_for_each_range_of_lengths(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _fit(_lines(GOOD, _LONG, _LONG), lengths={"max_length": 100}) == 1
    shown = capsys.readouterr().err
    [_, told] = shown.split("lit-align: ")
    assert "2 of 3 answers (67%) would be dropped" in told
    bars = [line.partition("|")[2] for line in shown.splitlines() if "|" in line and "%" not in line]
    assert [bar for bar in bars if "#" in bar] == ["########## 1", "#" * 20 + " 2 over"], shown


def test_a_sampler_that_would_share_the_windows_out_again_is_refused_on_several_ranks() -> None:
    settings = {"precision": "32-true", "accumulate_grad_batches": 1, "gradient_clip_val": None, "world_size": 2}
    trainer: Any = SimpleNamespace(**settings, _accelerator_connector=SimpleNamespace(use_distributed_sampler=True))
    with pytest.raises(ValueError, match=r"`trainer.use_distributed_sampler` = True .* 2 ranks"):
        refuse_trainer_settings(trainer)
    trainer.world_size = 1
    refuse_trainer_settings(trainer)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
@pytest.mark.parametrize(
    ("build", "visible", "says"),
    [
        (
            None, None,
            ["is built without CUDA", "pip install --force-reinstall torch==", "download.pytorch.org/whl/cu130"],
        ),
        ("13.0", None, ["sees no device", "`nvidia-smi`", "CUDA_VISIBLE_DEVICES is not set"]),
        ("13.0", "", ["sees no device", "CUDA_VISIBLE_DEVICES = ''"]),
    ],
    ids=["CPU build", "no driver", "hidden"],
)  # fmt: skip
def test_a_gpu_that_is_not_there_is_answered_with_the_cause_and_the_next_step(
    accelerator: str, build: str | None, visible: str | None, says: list[str],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _plant_devices(monkeypatch, 0, build, visible)
    assert _fit(None, f"--trainer.accelerator={accelerator}") == 2  # before the data, which are not there either
    told = shown_line(capsys)
    assert told.startswith(f"lit-align: `trainer.accelerator` = {accelerator}: torch {torch.__version__} is built")
    assert told.endswith("--trainer.accelerator cpu")
    assert all(part in told for part in says), told
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(
    ("devices", "absent", "there"),
    [("4", "2, 3", 2), ("[0, 2]", "2", 2), ("1,5", "5", 2), ("2", "1", 1)],
)
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_more_devices_than_there_are_are_answered_with_those_that_there_are(
    accelerator: str, devices: str, absent: str, there: int,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _plant_devices(monkeypatch, there, "13.0", None)
    assert _fit(None, f"--trainer.accelerator={accelerator}", f"--trainer.devices={devices}") == 2
    told = shown_line(capsys)
    assert told.startswith("lit-align: `trainer.devices` = ")
    assert f"asks for CUDA device {absent}, but only {'0' if there == 1 else '0, 1'}" in told
    assert told.endswith(f"set --trainer.devices {there} or less")
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(
    ("accelerator", "devices", "there"),
    [
        ("cpu", 4, 0), ("auto", 4, 0), ("auto", "auto", 0), ("mps", 1, 0), ("gpu", "auto", 1), ("cuda", 2, 2),
        ("gpu", -1, 1), ("gpu", "-1", 1), ("gpu", [1], 2), ("gpu", "1", 1), ("gpu", "0,1", 2), ("auto", 1, 1),
    ],
)  # fmt: skip
def test_devices_that_are_there_or_not_of_cuda_are_accepted(
    accelerator: str, devices: object, there: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant_devices(monkeypatch, there, "13.0", None)
    try:
        refuse_absent_devices(accelerator, devices)
    except ValueError as refusal:
        pytest.fail(f"{accelerator}, {devices}, {there} there: {refusal}")


def _plant_devices(monkeypatch: pytest.MonkeyPatch, there: int, build: str | None, visible: str | None) -> None:
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr("sys.platform", "linux")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

"""What the command answers to help, versions, mistakes in the arguments, and errors of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from parsing import parsed

from lit_align import __version__, cli
from lit_align.cli_answers import COMMANDS, QUICK, read_given

ROOT = Path(__file__).parent.parent
QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")
PLAIN = yaml.safe_load(Path(QUICKSTART).read_text(encoding="utf-8"))


def _answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int | str | None, str]:
    """Exit status, and the one line that is shown."""
    try:
        status: int | str | None = cli.main(words)
    except SystemExit as leave:
        status = leave.code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    assert shown.err.startswith("lit-align: ")
    return status, shown.err.removeprefix("lit-align: ").rstrip("\n")


def _file(name: str, key: str, value: object) -> list[str]:
    """Arguments with the quickstart in a file, one of its values changed; `__` parts keys and list indices."""
    config = deepcopy(PLAIN)
    *parents, last = [int(part) if part.isdigit() else part for part in key.split("__")]
    place: Any = config
    for part in parents:
        place = place[part]
    place[last] = value
    Path(name).write_text(yaml.safe_dump(config), encoding="utf-8")
    return ["fit", "-c", name]


_SOURCE = "data__init_args__sources__0"
_BENCHMARK = "trainer__callbacks__0__init_args__benchmarks__0"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sed_everything", 1, "unknown key `sed_everything` in x.yaml; did you mean `seed_everything`?"),
        ("trainr", {"max_steps": 1}, "unknown key `trainr.max_steps` in x.yaml; did you mean `trainer.max_steps`?"),
        ("trainer__max_step", 1, "unknown key `trainer.max_step` in x.yaml; did you mean `trainer.max_steps`?"),
        (
            "model__init_args__achor", {"coef": 1},
            "unknown key `model.achor.coef` in x.yaml; did you mean `anchor.coef`?",
        ),
        ("model__init_args__lora__rnk", 1, "unknown key `model.lora.rnk` in x.yaml; did you mean `lora.rank`?"),
        (
            "model__init_args__schedule__init_args__warmup_step", 1,
            "unknown key `model.schedule.warmup_step` in x.yaml; did you mean `warmup_steps`?",
        ),
        (
            "model__init_args__optimizer__init_args__lrr", 1,
            "unknown key `model.optimizer.lrr` in x.yaml; did you mean `lr`?",
        ),
        (
            f"{_SOURCE}__init_args__skils", ["scale"],
            "unknown key `data.sources[0].skils` in x.yaml; did you mean `skills`?",
        ),
        (
            f"{_BENCHMARK}__init_args__items__init_args__n_per_skil", 1,
            "unknown key `trainer.callbacks[0].benchmarks[0].items.n_per_skil` in x.yaml; did you mean `n_per_skill`?",
        ),
        (f"{_SOURCE}__init_args__n", "many", "`data.sources[0].n` in x.yaml: must be int, got 'many'"),
        (
            "model__init_args__weights__dtype", "float16",
            "`model.weights.dtype` in x.yaml: must be one of 'bfloat16', 'float32', got 'float16'",
        ),
        (
            "model__class_path", "SFTModul",
            "`model` in x.yaml: `SFTModul` is no LightningModule; did you mean `SFTModule`?",
        ),
        (
            "data__class_path", "SFTDataModul",
            "`data` in x.yaml: `SFTDataModul` is no LightningDataModule; did you mean `SFTDataModule`?",
        ),
        (
            f"{_SOURCE}__class_path", "TableSkils",
            "`data.sources[0]` in x.yaml: `TableSkils` is no ConversationSource; did you mean `TableSkills`?",
        ),
        (
            f"{_SOURCE}__class_path", "lit_align.nowhere.TableSkils",
            "`data.sources[0]` in x.yaml: `lit_align.nowhere.TableSkils` is no ConversationSource; did you mean "
            "`TableSkills`?",
        ),
        (
            f"{_BENCHMARK}__class_path", "ExactMatchBenchmrk",
            "`trainer.callbacks[0].benchmarks[0]` in x.yaml: `ExactMatchBenchmrk` is no Benchmark; did you mean "
            "`ExactMatchBenchmark`?",
        ),
        (
            f"{_BENCHMARK}__init_args__items__class_path", "TableSkillItms",
            "`trainer.callbacks[0].benchmarks[0].items` in x.yaml: `TableSkillItms` is no EvalSource; did you mean "
            "`TableSkillItems`?",
        ),
        (
            "trainer__callbacks__0__class_path", "BenchmarkEvaluatio",
            "`trainer.callbacks[0]` in x.yaml: `BenchmarkEvaluatio` is no Callback; did you mean "
            "`BenchmarkEvaluation`?",
        ),
        (
            "model__init_args__schedule__class_path", "CosinSchedule",
            "`model.schedule` in x.yaml: `CosinSchedule` is no Schedule; did you mean `CosineSchedule`?",
        ),
        (
            "model__init_args__optimizer__class_path", "torch.optim.AdmW",
            "`model.optimizer` in x.yaml: `torch.optim.AdmW` is no Optimizer; did you mean `torch.optim.AdamW`?",
        ),
        ("data__init_args__window", 0, "`data.window` must be > 0, got 0"),
        (
            "model__init_args__schedule__init_args__warmup_steps", -3,
            "`schedule.warmup_steps` must be >= 0, got -3",
        ),
        (
            "data__init_args__base", "x",
            "`data.base` in x.yaml: the data module takes its base from the model; set `model.base`",
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_answered_with_its_place_and_the_nearest_right_one(
    key: str, value: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _answer(_file("x.yaml", key, value), capsys) == (2, said)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--model.lora.rank=-1", "`lora.rank` must be > 0, got -1"),
        ("--model.lora.rnk=1", "unknown key `model.lora.rnk`; did you mean `lora.rank`?"),
        (
            "--model.anchor.divergence=ReversKL",
            "`model.anchor.divergence`: `ReversKL` is no Divergence; did you mean `ReverseKL`?",
        ),
        ("--model=SFTModul", "`model`: `SFTModul` is no LightningModule; did you mean `SFTModule`?"),
        ("--model.optimizer.lr=fast", "`model.optimizer.lr`: must be float, got 'fast'"),
        ("--model.lora.target_modules=3", "`model.lora.target_modules`: must be one of 'all-linear' or list, got '3'"),
        ("--data.window=many", "`data.window`: must be int, got 'many'"),
        ("--data.turns=firsts", "`data.turns`: must be one of 'all', 'last', got 'firsts'"),
        ("--data.sources.skils=[scale]", "unknown key `data.sources.skils`; did you mean `skills`?"),
        ("--data.sources=[{class_path: MessagesFile}]", "`data.sources[0]`: MessagesFile needs `path`"),
        ("--trainer.max_step=2", "unknown key `trainer.max_step`; did you mean `trainer.max_steps`?"),
        (
            "--checkpoint.every=2",
            "unknown key `checkpoint.every`; did you mean `checkpoint.every_n_windows`?",
        ),
        ("stray", "unexpected argument `stray`; values are given as --key=value"),
    ],
)
def test_a_mistake_on_the_command_line_is_answered_with_the_nearest_right_one(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _answer(["fit", "-c", QUICKSTART, word], capsys) == (2, said)


def test_a_class_of_another_type_is_answered_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "-c", QUICKSTART, "--data.sources=[{class_path: CosineSchedule}]"]
    status, told = _answer(words, capsys)
    assert status == 2
    assert told.startswith("`data.sources[0]`: `CosineSchedule` is no ConversationSource; there are ")
    assert {"MessagesFile", "PromptCompletionFile", "TableSkills"} <= set(told.partition("there are ")[2].split(", "))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model:\n  class_path: A\n init_args: {}\n", "x.yaml, line 3, column 2: broken YAML: "),
        ("model:\n\tx: 1\n", "x.yaml, line 2, column 1: broken YAML: found character '\\t'"),
        ("- a\n- b\n", "x.yaml: must hold keys such as `model:`, holds list"),
        ("", "x.yaml: must hold keys such as `model:`, holds NoneType"),
        (None, "-c x.yaml: no such file (looked at "),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    text: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path("x.yaml").write_text(text, encoding="utf-8")
    status, told = _answer(["fit", "-c", QUICKSTART, "-c", "x.yaml"], capsys)
    assert status == 2
    assert told.startswith(said)


@pytest.mark.parametrize(
    "words",
    [
        ["--data.base=x"],
        ["--data.base", "x"],
        ["--data.init_args.base=x"],
        ["--data.init_args={base: x}"],
        ["--data={class_path: SFTDataModule, init_args: {base: x}}"],
        ["-c", "overlay.yaml"],
        ["--config=overlay.yaml"],
        ["-c", "{data: {base: x}}"],
        ["--data=data.yaml"],
    ],
    ids=" ".join,
)
def test_the_base_of_the_data_cannot_be_set_whatever_the_way(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("overlay.yaml").write_text("data: {init_args: {base: x}}\n", encoding="utf-8")
    Path("data.yaml").write_text("class_path: SFTDataModule\ninit_args: {base: x}\n", encoding="utf-8")
    status, told = _answer(["fit", "-c", QUICKSTART, *words], capsys)
    assert status == 2
    assert told.startswith("`data.base`")
    assert "set `model.base`" in told


def test_the_base_of_the_data_is_that_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parsed(["fit", "-c", QUICKSTART, "--model.base=elsewhere"], monkeypatch)
    assert config["data"]["init_args"]["base"] == "elsewhere"


def test_values_are_found_in_the_order_in_which_they_apply() -> None:
    Path("a.yaml").write_text("model: {init_args: {lora: {rank: 1}}}\n", encoding="utf-8")
    given = read_given(["fit", "-c", "a.yaml", "--model.lora.rank=2"])
    assert [(one.file, one.value) for one in given if one.path == "model.lora.rank"] == [("a.yaml", 1), ("", 2)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fitt"], "unknown command `fitt`; did you mean `fit`?"),
        (["vlaidate", "-c", "x"], "unknown command `vlaidate`; did you mean `validate`?"),
        (["train"], f"unknown command `train`; commands are {', '.join(COMMANDS)}"),
        (["-c", "x"], f"`-c` stands before the command; commands are {', '.join(COMMANDS)}"),
        (["fit"], "`data` and `model` not set; name a file with -c"),
    ],
)
def test_a_wrong_command_is_answered_with_the_nearest_right_one(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _answer(words, capsys) == (2, said)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=" ".join)
def test_the_short_help_names_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    assert set(COMMANDS) == {*cli.AlignCLI.subcommands(), *cli.COMMAND_CLASSES, *QUICK, "audit"}


def test_the_help_of_a_command_says_what_our_options_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["fit", "--help"])
    shown = capsys.readouterr().out
    assert "Optimizer steps between checkpoints, > 0." in shown
    assert "--trainer.max_steps" in shown


def _raising(error: BaseException) -> Callable[..., None]:
    def run(*_: object) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    "error", [ValueError("first\n  second"), RuntimeError("first second"), OSError("first second")]
)
def test_an_error_of_a_run_is_one_line_without_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_run", _raising(error))
    status, told = _answer(["fit"], capsys)
    assert status == 1
    assert told.startswith("first second (")
    assert told.endswith("--traceback shows more)")


def test_the_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_run", _raising(ValueError("wrong")))
    with pytest.raises(ValueError, match="wrong"):
        cli.main(["fit", "--traceback"])


def test_ctrl_c_before_the_run_leaves_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_run", _raising(KeyboardInterrupt()))
    assert cli.main(["fit"]) == 1
    assert capsys.readouterr() == ("", "")


def _process(code: str, *words: str, folder: Path | None = None) -> tuple[subprocess.CompletedProcess[str], float]:
    start = time.perf_counter()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder or Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, cwd=folder
    )
    return done, time.perf_counter() - start


_LEFT_LOADED = """
import json, sys
from lit_align.__main__ import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)))
"""
_HEAVY = {"peft", "bitsandbytes", "datasets", "transformers.modeling_utils"}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--version"], 0, f"lit-align {__version__}"),
        (["--help"], 0, "usage:"),
        ([], 0, "usage:"),
        (["fitt"], 2, "`fit`"),
        (["cache", "ls"], 0, "no reference cache in lightning_logs"),
        (["cache", "lss"], 2, "did you mean `ls`?"),
    ],
    ids=["--version", "--help", "nothing", "fitt", "cache ls", "cache lss"],
)
def test_an_answer_that_needs_no_parser_comes_without_torch(words: list[str], status: int, said: str) -> None:
    done, seconds = _process(_LEFT_LOADED, *words)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert not {"torch", "lightning", "jsonargparse", "yaml"} & set(json.loads(done.stdout.splitlines()[-1]))
    assert seconds < 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status"),
    [(["fit", "--help"], 0), (["fit", "-c", QUICKSTART, "--model.lora.rnk=1"], 2)],
    ids=["help", "typo"],
)
def test_the_parser_answers_without_the_heavy_libraries(words: list[str], status: int) -> None:
    done, seconds = _process(_LEFT_LOADED, *words)
    assert done.returncode == status, done.stderr
    assert not _HEAVY & set(json.loads(done.stdout.splitlines()[-1]))
    assert seconds < 30  # 4 alone; the machine may be busy


_OURS = (
    "loading ",
    "checking the start",
    "reading conversations",
    "training: ",
    "replay: ",
    "validation: ",
    "adapter: ",
    "curves: ",
)


@pytest.mark.slow
def test_a_normal_run_shows_our_lines_and_progress_bars_alone(tmp_path: Path) -> None:
    code = "from lit_align.__main__ import main; main()"
    words = ["fit", "-c", QUICKSTART, "--trainer.max_steps=2", "--trainer.callbacks=[]"]
    done, _ = _process(code, *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in (done.stdout + done.stderr).replace("\r", "\n").splitlines() if line.strip()]
    strange = [line for line in lines if not line.startswith(_OURS) and "/2 " not in line]
    assert not strange, strange
    assert any(line.startswith("curves: ") for line in lines)


def test_the_saved_configuration_of_a_run_can_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "--trainer.max_steps=1", "--trainer.callbacks=[]", "--data.sources.n=8", "--data.window=2", "--data.replay.n=8",
        "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    assert cli.main(["fit", "-c", QUICKSTART, *words]) == 0
    saved = "lightning_logs/quickstart/version_0/config.yaml"
    assert Path(saved).is_file()
    again = parsed(["fit", "-c", saved], monkeypatch)
    assert {**again, "config": None} == {**parsed(["fit", "-c", QUICKSTART, *words], monkeypatch), "config": None}


def test_a_class_that_is_there_is_not_said_to_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "-c", str(ROOT / "configs" / "quickstart-dpo.yaml"), "--data.sources+=TWix"]
    status, told = _answer(words, capsys)
    assert status == 2
    assert "`TWix` does not fit here, or the options given for it do not" in told

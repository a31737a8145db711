"""What a user sees for bad pairs, references and losses, through the command itself."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import contents
from in_process import fit, shown_line
from safetensors.torch import load_file, save_file
from tat_qa_tables import table_of
from torch import Tensor

from lit_align.checkpoint import write_adapter
from lit_align.forest import TokenForest
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, Reference
from lit_align.tokenizer import resolve_base

GOOD = {"prompt": "Give profit 2019 .", "chosen": "47 in million.", "rejected": "47."}
LONG = {**GOOD, "prompt": "w " * 300}
PAIRS = {"class_path": "PreferenceFile", "init_args": {"path": "d.jsonl"}}
TABLES = {"class_path": "TATQA", "init_args": {"path": "tatqa_dataset_test.json"}}
RUN = Path("lightning_logs/lit_align/version_0")


def _lines(*rows: object) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _fit(
    rows: bytes | None, *words: str, source: object = PAIRS, model: dict[str, Any] | None = None, **data: Any
) -> int | str | None:
    """Exit status of a run of at most two windows on the given rows."""
    if rows is not None:
        Path("d.jsonl").write_bytes(rows)
    options = {"weights": {"dtype": "float32"}, "lora": {"rank": 4, "alpha": 8}, **(model or {})}
    config = {
        "cpu_threads": 1,
        "model": {"class_path": "DPOModule", "init_args": options},
        "data": {"class_path": "PreferenceDataModule", "init_args": {"sources": [source], "window": 2, **data}},
        "trainer": {"accelerator": "cpu", "max_steps": 2, "enable_progress_bar": False},
    }
    return fit(config, *words)


@pytest.mark.parametrize(
    ("rows", "data", "says"),
    [
        (None, {}, ["d.jsonl", "no such file"]),
        (b"", {}, ["d.jsonl: holds no row"]),
        (_lines(GOOD) + b'{"prompt": "a", \n', {}, ["d.jsonl, line 2, column 16: broken JSON"]),
        (
            _lines({"prompt": "a", "choosen": "b", "rejected": "c"}), {},
            ["d.jsonl:1: no column 'chosen'; did you mean 'choosen'?", "the row has: prompt, choosen, rejected"],
        ),
        (
            _lines(GOOD, {**GOOD, "rejected": 47}), {},
            ["d.jsonl:2: rejected: must be text or turns, not a number (47)"],
        ),
        (_lines(GOOD, {**GOOD, "chosen": ""}), {}, ["d.jsonl:2: chosen: the answer is blank ('')", "drop the row"]),
        (_lines(GOOD, {**GOOD, "prompt": " "}), {}, ["d.jsonl:2: prompt: the prompt is blank; drop the row"]),
        (
            _lines(GOOD, {**GOOD, "rejected": " 47 in million. "}), {},
            ["d.jsonl:2: chosen and rejected are equal ('47 in million.')", "drop the row"],
        ),
        (_lines({**GOOD, "chosen": "a<|im_end|>"}), {}, ["d.jsonl:1 chosen", "control token <|im_end|>"]),
        (
            _lines(LONG), {"lengths": {"max_length": 400, "max_prompt_length": 50}},
            ["no example is left for training: of 1 pairs 1 prompt too long", "max_prompt_length=50",
             "raise `data.lengths.max_prompt_length`"],
        ),
        (
            _lines(GOOD, LONG), {"token_budget": 100},
            ["d.jsonl:2 chosen: the", "tokens of its pair are over `data.token_budget` = 100; raise the budget"],
        ),
        (_lines(GOOD), {"val_fraction": 0.01}, ["`data.val_fraction` = 0.01 holds out none of 1 pairs"]),
    ],
    ids=[
        "missing file", "empty file", "broken JSON", "wrong column", "number for text", "empty answer", "blank prompt",
        "equal answers", "control token", "prompt over-long", "prompt over the budget", "nothing held out",
    ],
)  # fmt: skip
def test_bad_pairs_are_answered_with_file_row_and_rule_before_a_folder_is_made(
    rows: bytes | None, data: dict[str, Any], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(rows, **data) == 1
    told = shown_line(capsys)
    assert all(part in told for part in says), told
    assert not Path("lightning_logs").exists()


def test_bad_pairs_are_counted_and_left_out_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    bad = [{"prompt": "a"}, {**GOOD, "chosen": " "}, {**GOOD, "rejected": GOOD["chosen"]}, LONG]
    limits = {"max_length": 400, "max_prompt_length": 50, "max_dropped": 0.8}
    assert _fit(_lines(*bad, GOOD, GOOD), "--trainer.fast_dev_run=true", bad_rows="drop", lengths=limits) == 0
    told = capsys.readouterr().err
    assert "training: d.jsonl: 6 pairs: 2 kept, 1 prompt too long, 3 refused; first refusal: " in told
    assert "d.jsonl:1: no column 'chosen'; the row has: prompt" in told


def test_a_group_larger_than_a_window_is_split_and_the_log_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**GOOD, "prompt": f"Give profit {year} .", "table": "t"} for year in range(2015, 2020)]
    source = {"class_path": "PreferenceFile", "init_args": {"path": "d.jsonl", "group": "table"}}
    assert _fit(_lines(*rows), "--trainer.fast_dev_run=true", source=source) == 0
    told = capsys.readouterr().err
    assert "training: 1 of 1 groups hold more pairs than `data.window` = 2 or more tokens than" in told
    assert "and are split" in told
    assert "training: 5 pairs in 3 groups; 2 windows an epoch, of 2 to 3 pairs (asked for: 2)" in told


def test_a_file_of_tat_qa_without_answers_is_refused_and_names_the_one_with_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = table_of(0)
    for question in table["questions"]:
        del question["answer"]
    Path("tatqa_dataset_test.json").write_text(json.dumps([table]), encoding="utf-8")
    assert _fit(None, source=TABLES) == 1
    told = shown_line(capsys)
    assert "tatqa_dataset_test.json:1 (table " in told
    assert "no key 'answer': this file holds questions without answers" in told
    assert "use tatqa_dataset_test_gold.json" in told
    assert not Path("lightning_logs").exists()


# ---------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model.loss=SigmoidLoss", "--model.loss.beta=-1"], ["`model.loss.beta`", "finite and > 0, got -1"]),
        (["--model.loss=SigmoidLoss", "--model.loss.beta=.nan"], ["`model.loss.beta`", "finite and > 0, got nan"]),
        (["--model.loss=SigmoidLoss", "--model.loss.label_smoothing=0.5"], ["label_smoothing", "[0, 0.5), got 0.5"]),
        (["--model.loss=SigmoidLoss", "--model.loss.bta=1"], ["`model.loss.bta`", "did you mean `beta`?"]),
        (["--model.loss=SigmoidLoss", "--model.loss.beta=big"], ["`model.loss.beta`", "float", "'big'"]),
        (["--model.loss.beta=-1"], ["`model.loss.beta`: whose option is it? set `model.loss` first", "SigmoidLoss"]),
        (["--model.reference.path=x"], ["`model.reference.path`", "to one of FrozenAdapterReference"]),
        (["--model.loss.bta=1"], ["`model.loss.bta`: no PreferenceLoss has this option; there are AOTLoss"]),
        (["--model.loss=SigmodLoss"], ["`model.loss`: `SigmodLoss` is no PreferenceLoss; did you mean `SigmoidLoss`?"]),
        (["--model.reference=FrozenAdapterRefrence"], ["`model.reference`", "did you mean `FrozenAdapterReference`?"]),
        (["--model.reference=FrozenAdapterReference"], ["`model.reference`: FrozenAdapterReference needs `path`"]),
        (
            ["--model.reference=FrozenAdapterReference", "--model.reference.path=x", "--model.reference.init=fresh"],
            ["`model.reference.init`", "one of 'stack', 'continue'", "'fresh'"],
        ),
        (["--model.reference=EMAReference", "--model.reference.alpha=0"], ["`model.reference.alpha`", "(0, 1], got 0"]),
        (["--model.reference=EMAReference", "--model.reference.alpha=1.5"], ["`model.reference.alpha`", "got 1.5"]),
        (
            ["--model.reference=EMAReference", "--model.reference.every_n_windows=0"],
            ["`model.reference.every_n_windows`", "must be at least 1, got 0"],
        ),
        (
            ["--model.reference=EMAReference", "--model.reference.start=EMAReference"],
            ["`model.reference.start`", "must be a BaseReference or a FrozenAdapterReference"],
        ),
        (["--model.loss=AOTLoss", "--model.lora.dropout=0.1"], ["`lora.dropout` = 0.1", "AOTLoss", "set it to 0"]),
    ],
    ids=lambda value: value[-1] if isinstance(value[0], str) and value[0].startswith("--") else "",
)
def test_bad_losses_and_references_are_answered_with_key_value_and_rule_before_a_folder_is_made(
    words: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(_lines(GOOD), *words) == 2
    told = shown_line(capsys)
    assert all(part in told for part in says), told
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize("loss", [{"beta": 0.2}, {"init_args": {"beta": 0.2}}], ids=str)
def test_loss_options_without_a_class_in_a_file_ask_for_it(
    loss: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(_lines(GOOD), model={"loss": loss}) == 2
    told = shown_line(capsys)
    assert "`model.loss.beta` in run.yaml: whose option is it? set `model.loss` first, to one of AOTLoss" in told
    assert "SimPOLoss" in told


def test_a_loss_option_outside_its_range_names_the_file_that_it_stands_in(capsys: pytest.CaptureFixture[str]) -> None:
    loss = {"class_path": "WeightedSum", "init_args": {"weights": [1.0], "losses": []}}
    loss["init_args"]["losses"] = [{"class_path": "IPOLoss", "init_args": {"beta": 0}}]  # type: ignore[index]
    assert _fit(_lines(GOOD), model={"loss": loss}) == 2
    told = shown_line(capsys)
    assert "`model.loss.losses[0].beta` in run.yaml: must be finite and > 0, got 0.0" in told
    assert not Path("lightning_logs").exists()


# ---------------------------------------------------------------------- references


def _spy(monkeypatch: pytest.MonkeyPatch) -> list[Reference]:
    """The references that windows run; the checks at the start run one in any case."""
    seen: list[Reference] = []
    own = Reference.target_logps

    def counted(reference: Reference, policy: Policy, forest: TokenForest) -> Tensor:
        seen.append(reference)
        return own(reference, policy, forest)

    monkeypatch.setattr(Reference, "target_logps", counted)
    return seen


def test_no_reference_given_is_the_bare_base_for_a_loss_that_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _spy(monkeypatch)
    assert _fit(_lines(GOOD), "--model.reference=null") == 0
    assert _fit(_lines(GOOD), "--model.reference=BaseReference") == 0
    assert seen == [BaseReference()] * 6  # two windows and the trial of the largest forest, twice
    first, second = (RUN.with_name(f"version_{i}") / "adapter/adapter_model.safetensors" for i in (0, 1))
    assert first.read_bytes() == second.read_bytes()
    assert float(_logged(RUN, "train/rewards/margins")[-1]) > 0


def test_a_loss_that_needs_no_reference_runs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _spy(monkeypatch)
    assert _fit(_lines(GOOD), "--model.loss=SimPOLoss") == 0
    assert seen == []
    assert _logged(RUN, "train/logps/chosen")


def _logged(run: Path, key: str) -> list[str]:
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return [row[key] for row in csv.DictReader(file) if row[key]]


def _frozen(folder: str, **options: str) -> dict[str, Any]:
    return {"reference": {"class_path": "FrozenAdapterReference", "init_args": {"path": folder, **options}}}


@pytest.fixture
def adapter() -> Path:
    """An adapter of the bundled base, in PEFT's format."""
    return _adapter_of("tiny-qwen3")


def _adapter_of(base: str) -> Path:
    policy = Policy(base, Weights(dtype="float32"), LoRA(rank=2), "tree_sdpa")
    write_adapter(Path("earlier"), policy.adapter_parameters(), policy.adapter_config())
    return Path("earlier")


def test_an_adapter_that_fits_is_trained_upon(adapter: Path) -> None:
    assert _fit(_lines(GOOD), model=_frozen(str(adapter))) == 0
    assert (RUN / "adapter").is_dir()


def test_an_adapter_of_the_same_shape_is_continued_and_left_as_it_is(adapter: Path) -> None:
    before = contents(adapter)
    shape = {"lora": {"rank": 2, "alpha": 32, "dropout": 0.1}}
    assert _fit(_lines(GOOD), model={**_frozen(str(adapter), init="continue"), **shape}) == 0
    assert contents(adapter) == before
    own = {
        name: json.loads((folder / "adapter_config.json").read_text())
        for name, folder in (("a", RUN / "adapter"), ("b", adapter))
    }
    assert own["a"]["target_modules"] == own["b"]["target_modules"]
    assert (
        load_file(RUN / "adapter/adapter_model.safetensors").keys()
        == load_file(adapter / "adapter_model.safetensors").keys()
    )


@pytest.mark.parametrize("average", [False, True], ids=["frozen", "average"])
def test_an_adapter_of_another_rank_is_not_continued(
    adapter: Path, average: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _frozen(str(adapter), init="continue")
    if average:
        model = {"reference": {"class_path": "EMAReference", "init_args": {"start": model["reference"]}}}
    assert _fit(None, model=model) == 1  # the data are not there
    told = shown_line(capsys)
    assert "adapter earlier cannot be continued: its rank is 2, and that of `model.lora` 4; set " in told
    assert "`model.lora.rank: 2`, or `init: stack` for a new adapter on top of it" in told
    assert not Path("lightning_logs").exists()


def test_an_average_is_logged_when_it_moves_and_then_alone() -> None:
    words = ["--model.reference=EMAReference", "--model.reference.every_n_windows=2", "--trainer.max_steps=5"]
    assert _fit(_lines(*[{**GOOD, "prompt": f"Give profit {year} ."} for year in range(12)]), *words) == 0
    assert _logged(RUN, "train/reference/updates") == ["1.0", "2.0"]
    assert all(0 < float(gap) < 1 for gap in _logged(RUN, "train/reference/ema_gap"))
    with (RUN / "metrics.csv").open(encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["train/reference/updates"]] == ["1", "3"]


def test_an_adapter_of_another_base_is_refused_before_the_data_are_read(
    random_qwen3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(None, model=_frozen(str(_adapter_of(random_qwen3)))) == 1
    told = shown_line(capsys)
    assert "adapter earlier does not fit this base: `base_model.model.model.layers.0.mlp.down_proj.lora_A" in told
    assert "is [2, 48] in the adapter, and this base has [2, 384] there" in told
    assert "the base must be the one that it was trained on" in told
    assert not Path("lightning_logs").exists()


def test_an_adapter_of_layers_that_the_base_has_not_is_refused(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["c_attn"]}))
    assert _fit(None, model=_frozen(str(adapter))) == 1
    told = shown_line(capsys)
    assert "adapter earlier does not fit this base: " in told
    assert "c_attn" in told
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: shutil.rmtree(folder), ["no file adapter_config.json there", "`adapter/` of a finished run"]),
        (lambda folder: (folder / "adapter_config.json").unlink(), ["no file adapter_config.json there"]),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), ["no file adapter_model.safetensors there"]),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), ["adapter_config.json is not one of PEFT's"]),
        (
            lambda folder: (folder / "adapter_config.json").write_text("{}"),
            ["is no plain LoRA adapter"],
        ),
        (
            lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0"),
            ["adapter_model.safetensors (4 bytes) is cut short", "copy the folder again"],
        ),
        (
            lambda folder: _with_nan(folder / "adapter_model.safetensors"),
            ["`base_model.model.model.layers.0.", "holds nan or inf", "take another adapter"],
        ),
    ],
    ids=["folder", "config", "weights", "broken config", "empty config", "cut weights", "nan"],
)  # fmt: skip
def test_a_broken_adapter_is_refused_before_the_data_are_read(
    adapter: Path, harm: Callable[[Path], object], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    harm(adapter)
    assert _fit(None, model=_frozen(str(adapter))) == 1  # the data are not there either
    told = shown_line(capsys)
    assert told.startswith("lit-align: adapter earlier: ")
    assert all(part in told for part in says), told
    assert not Path("lightning_logs").exists()


def _with_nan(file: Path) -> None:
    tensors = load_file(file)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, file)


# ---------------------------------------------------------------------- numbers that are none


def test_a_base_of_nan_stops_before_the_first_step_and_names_the_tensor(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(resolve_base("tiny-qwen3").path, "broken")
    [file] = Path("broken").glob("*.safetensors")
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    assert _fit(_lines(GOOD), "--model.base=broken") == 1
    told = shown_line(capsys)
    assert "before the first step the hidden states of broken are not finite" in told
    assert "model.norm.weight` holds nan or inf" in told
    assert not (RUN / "checkpoints").exists()
    assert not (RUN / "adapter").exists()


def test_log_ratios_of_nan_stop_the_run_and_overwrite_no_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"schedule": {"class_path": "ConstantSchedule"}}
    assert _fit(_lines(GOOD), "--trainer.max_steps=1", model=settings) == 0
    before = contents(RUN)
    capsys.readouterr()
    calls: list[int] = []
    own = Reference.target_logps

    def nan_in_the_second_window(reference: Reference, policy: Policy, forest: TokenForest) -> Tensor:
        logps = own(reference, policy, forest)
        calls.append(len(logps))
        return logps if len(calls) < 3 else logps * float("nan")  # the trial and the first window

    monkeypatch.setattr(Reference, "target_logps", nan_in_the_second_window)
    words = [f"--ckpt_path={RUN}/checkpoints/last.ckpt", "--trainer.max_steps=4", "--checkpoint.every_n_windows=1"]
    assert _fit(_lines(GOOD), *words, model=settings) == 1
    told = shown_line(capsys)
    resumed = RUN.with_name("version_1") / "checkpoints"
    assert "window 2: loss is not finite; examples: d.jsonl:1 chosen, d.jsonl:1 rejected" in told
    assert f"State before the window: {resumed}/nonfinite-step-000002.ckpt" in told
    assert contents(RUN) == before
    kept = torch.load(resumed / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in kept["state_dict"].values())
    assert not (resumed.parent / "adapter").exists(), "a broken run must not look like a finished one"

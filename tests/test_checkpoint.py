"""Checkpoints are whole or not there, open in PEFT, and are refused where they do not belong."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Settings, adapter, arguments, complete, life, newest_checkpoint, small, versions
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import lit_align
from lit_align.checkpoint import AdapterCheckpointIO
from lit_align.cli import main
from lit_align.forest import TokenClass, TokenForest, TokenPath
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy

# The command runs in this process, where warnings of its libraries would otherwise be errors.
pytestmark = pytest.mark.filterwarnings("default")

BASE = Path(lit_align.__file__).parent / "assets" / "tiny_qwen3"


# ---------------------------------------------------------------- files


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    tensors = {"policy.peft.a.lora_A.default.weight": torch.arange(4096.0)}
    own = {"adapter_config": {"r": 1}}
    AdapterCheckpointIO().save_checkpoint({"state_dict": tensors, "lit_align": own, "global_step": 3}, path)
    return path


def test_a_checkpoint_comes_back(saved: Path) -> None:
    loaded = AdapterCheckpointIO().load_checkpoint(saved)
    assert loaded["global_step"] == 3
    assert torch.equal(loaded["state_dict"]["policy.peft.a.lora_A.default.weight"], torch.arange(4096.0))
    assert sorted(path.name for path in saved.parent.rglob("*")) == [
        "adapter_config.json", "adapter_model.safetensors", "last", "last.ckpt",
    ]  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused_by_name(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"last\.ckpt \(\d+ bytes\) is cut short"):
        AdapterCheckpointIO().load_checkpoint(saved)


def test_a_flipped_bit_is_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 4
    saved.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged"):
        AdapterCheckpointIO().load_checkpoint(saved)


@pytest.mark.parametrize("text", ["seed: 0\n", "b" * 100, "(", "}q\x00(X\n", "no checkpoint"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml .* no lit_align checkpoint"):
        AdapterCheckpointIO().load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ckpt"):
        AdapterCheckpointIO().load_checkpoint(tmp_path / "nowhere.ckpt")


class _Planted:
    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, ("planted",)


def test_a_checkpoint_executes_nothing(tmp_path: Path) -> None:
    torch.save({"state_dict": _Planted()}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"evil\.ckpt"):
        AdapterCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt")
    assert not Path("planted").exists()


def test_removal_takes_the_peft_folder_along(saved: Path) -> None:
    AdapterCheckpointIO().remove_checkpoint(saved)
    assert list(saved.parent.iterdir()) == []


def test_a_failed_write_leaves_the_previous_checkpoint_and_no_part(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match=r"last\.ckpt could not be written \(No space left on device\).*free space"):
        AdapterCheckpointIO().save_checkpoint({"state_dict": {}}, saved)
    assert saved.read_bytes() == before
    assert not list(saved.parent.rglob("*.part"))


def test_the_peft_folder_opens_over_the_base_and_answers_as_the_policy(tmp_path: Path) -> None:
    policy = Policy("tiny-qwen3", Weights(dtype="float32"), LoRA(rank=4, alpha=8), "tree_sdpa").eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.adapter_parameters().values():
        parameter.data.normal_(std=0.05, generator=generator)
    state = {f"policy.{name}": tensor.detach() for name, tensor in policy.adapter_parameters().items()}
    own = {"adapter_config": policy.adapter_config()}
    AdapterCheckpointIO().save_checkpoint({"state_dict": state, "lit_align": own}, tmp_path / "last.ckpt")
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    tokens = np.arange(5, 29, dtype=np.int32)
    forest = TokenForest.build([[TokenPath(tokens, np.full(24, TokenClass.ANSWER, np.uint8), "x")]])
    rows = torch.from_numpy(tokens.astype(np.int64))[None]
    with torch.no_grad():
        plain = base(rows).logits[0]
        opened = PeftModel.from_pretrained(base, tmp_path / "last").eval()(rows).logits[0]
        ours = policy.hidden(forest) @ policy.causal_lm.get_output_embeddings().weight.T
    assert (plain - ours).abs().max() > 0.1, "the adapter must change something"
    torch.testing.assert_close(opened, ours, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- a full disk


def _interesting(errors: str) -> str:
    return errors[errors.rfind("lit-align:") :]


@pytest.mark.slow
def test_a_save_that_fails_in_the_command_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    settings = small(trainer={"max_steps": 1000}, checkpoint={"every_n_windows": 3})
    with life(tmp_path, settings) as process:
        assert process.saves(1), process.errors
        time.sleep(0.02)  # the PEFT folder follows
        checkpoint = process.checkpoint
        assert checkpoint is not None
        limit = checkpoint.stat().st_size // 2
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        before = checkpoint.read_bytes()
        assert process.wait() == 1, process.errors
        told = _interesting(process.errors)
    assert checkpoint.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
    assert str(checkpoint.relative_to(tmp_path)) in told
    assert "resume from it" in told
    assert AdapterCheckpointIO().load_checkpoint(checkpoint)["global_step"] % 3 == 0


@pytest.mark.slow
def test_a_run_on_a_full_disk_keeps_its_checkpoint_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root")
    settings = small(trainer={"max_steps": 8})
    expected = adapter(complete(tmp_path / "elsewhere", settings))
    size = sum(path.stat().st_size for path in (tmp_path / "elsewhere").rglob("*") if path.is_file())
    whole = next((tmp_path / "elsewhere").rglob("last.ckpt")).stat().st_size
    # Room for one checkpoint and what stands beside it, but not for a second one beside the first.
    room = size + whole // 2
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with life(disk, settings) as process:
            assert process.wait() == 1, process.errors
            assert "No space left on device" in _interesting(process.errors)
        checkpoint = newest_checkpoint(disk)
        assert checkpoint is not None
        assert AdapterCheckpointIO().load_checkpoint(checkpoint)["global_step"] == 2
        assert not list(disk.rglob("*.part"))
        subprocess.run(["mount", "-o", f"remount,size={10 * room}", str(disk)], check=True)
        assert adapter(complete(disk, settings, checkpoint)) == expected
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


# ---------------------------------------------------------------- the same run, or none


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    """A finished short run and its last checkpoint before the end."""
    folder = tmp_path_factory.mktemp("run")
    settings = _short()
    with pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.setattr("sys.argv", ["lit-align"])
        assert main(arguments(folder, settings)) == 0
    return settings, versions(folder)[0] / "checkpoints" / "step-000002.ckpt"


def _short(**changes: Any) -> Settings:
    settings = small(
        data={"val_fraction": 0.0, "window": 2},
        trainer={"max_steps": 4},
        checkpoint={"every_n_windows": 2, "keep": "all"},
    )
    for key, value in changes.items():
        at: Any = settings
        *way, last = key.split("__")
        for part in way:
            at = at[part]
        at[last] = value
    return settings


def _other_base(folder: Path) -> str:
    shutil.copytree(BASE, folder / "base")
    weights = load_file(folder / "base" / "model.safetensors")
    name = next(name for name in sorted(weights) if "mlp" in name)
    weights[name].view(-1)[17] += 0.01
    save_file(weights, folder / "base" / "model.safetensors", metadata={"format": "pt"})
    return str(folder / "base")


def _fit(settings: Settings, resume: Path | None = None) -> int:
    return main(arguments(Path.cwd(), settings, resume))


SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 3e-3}}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "model__init_args__lora",
            {"rank": 2, "alpha": 8, "dropout": 0.1},
            r"lora: .*rank=4.* in the checkpoint, .*rank=2.* now",
        ),
        ("model__init_args__lora", {"rank": 4, "alpha": 16, "dropout": 0.1}, r"lora: .*alpha=8.*alpha=16"),
        ("model__init_args__lora", {"rank": 4, "alpha": 8}, r"lora: .*dropout=0\.1.*dropout=0\.0"),
        ("model__init_args__optimizer__init_args__lr", 1e-3, r"optimizer\.lr: 0\.003 in the checkpoint, 0\.001 now"),
        ("model__init_args__optimizer", SGD, r"optimizer: AdamW in the checkpoint, SGD now"),
        ("model__init_args__schedule__init_args__floor", 0.2, r"schedule: .*0\.1.*0\.2"),
        ("model__init_args__anchor__coef", 0.5, r"1\.0.*0\.5"),
        ("model__init_args__max_grad_norm", 0.5, r"max_grad_norm: .* in the checkpoint, 0\.5 now"),
        ("data__init_args__seed", 5, r"data\.seed: 0 in the checkpoint, 5 now"),
        ("data__init_args__window", 3, r"data\.window: 2 in the checkpoint, 3 now"),
        ("data__init_args__token_budget", 600, r"data\.token_budget: 512 in the checkpoint, 600 now"),
        ("data__init_args__replay_share", 1.0, r"data\.replay_share: 0\.5 in the checkpoint, 1\.0 now"),
        ("data__init_args__lengths", {"max_length": 64}, r"data: \w+ in the checkpoint, \w+ now"),
        ("trainer__max_steps", 9, r"total steps: 4 in the checkpoint, 9 now"),
        ("trainer__precision", "bf16-mixed", r"precision: 32-true in the checkpoint, bf16-mixed now"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_with_the_difference(
    run: tuple[Settings, Path], capsys: pytest.CaptureFixture[str], key: str, value: object, said: str
) -> None:
    assert _fit(_short(**{key: value}), run[1]) == 1
    told = _interesting(capsys.readouterr().err)
    assert re.search(said, told), told
    assert not list(Path.cwd().rglob("*.ckpt"))


def test_a_checkpoint_of_other_data_is_refused(run: tuple[Settings, Path], capsys: pytest.CaptureFixture[str]) -> None:
    settings = _short()
    settings["data"]["init_args"]["sources"][0]["init_args"]["seed"] = 9
    assert _fit(settings, run[1]) == 1
    told = _interesting(capsys.readouterr().err)
    assert "data: " in told
    assert "lora" not in told, "only what differs is named"


def test_a_checkpoint_of_another_base_is_refused(
    run: tuple[Settings, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _fit(_short(model__init_args__base=_other_base(tmp_path)), run[1]) == 1
    assert "base weights: " in _interesting(capsys.readouterr().err)


@pytest.mark.parametrize("what", ["missing", "text", "foreign"])
def test_what_is_no_checkpoint_of_ours_is_refused_by_the_command(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "last.ckpt"
    if what == "text":
        path.write_text("no checkpoint\n", encoding="utf-8")
    elif what == "foreign":
        torch.save({"weight": torch.zeros(3)}, path)
    assert _fit(_short(), path) == 1
    told = _interesting(capsys.readouterr().err)
    assert "last.ckpt" in told, told


def test_a_resume_with_unchanged_settings_ends_with_the_same_bytes(run: tuple[Settings, Path], tmp_path: Path) -> None:
    assert _fit(run[0], run[1]) == 0
    assert adapter(versions(tmp_path)[0]) == adapter(run[1].parent.parent)
    record = json.loads((versions(tmp_path)[0] / "environment.json").read_text(encoding="utf-8"))
    assert record["resumed_from"] == str(run[1])


def test_the_seed_of_the_process_does_not_matter_to_a_resume(run: tuple[Settings, Path], tmp_path: Path) -> None:
    assert _fit(_short(seed_everything=77), run[1]) == 0
    assert adapter(versions(tmp_path)[0]) == adapter(run[1].parent.parent)


@pytest.mark.slow
def test_a_run_under_a_constant_schedule_may_grow(tmp_path: Path) -> None:
    constant = {"model__init_args__schedule": {"class_path": "ConstantSchedule"}}
    assert _fit(_short(**constant, trainer__max_steps=6)) == 0
    assert _fit(_short(**constant, trainer__max_steps=2)) == 0
    long, short = versions(tmp_path)
    assert _fit(_short(**constant, trainer__max_steps=6), short / "checkpoints" / "last.ckpt") == 0
    assert adapter(versions(tmp_path)[2]) == adapter(long)


@pytest.mark.slow
def test_a_resume_keeps_the_baseline_of_the_benchmarks(tmp_path: Path) -> None:
    items = {"class_path": "TableSkillItems", "init_args": {"skills": ["scale"], "n_per_skill": 4, "seed": 3}}
    benchmark = {"class_path": "ExactMatchBenchmark", "init_args": {"name": "skill", "items": items}}
    callbacks = [{"class_path": "BenchmarkEvaluation", "init_args": {"benchmarks": [benchmark]}}]
    settings = _short(trainer__callbacks=callbacks)
    assert _fit(settings) == 0
    first = versions(tmp_path)[0]
    assert _fit(settings, first / "checkpoints" / "step-000002.ckpt") == 0
    second = versions(tmp_path)[1]
    for name in ("benchmarks.jsonl", "benchmarks.md"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    lines = [json.loads(line) for line in (second / "benchmarks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if line["phase"] == "before"] == [0] * 4
    assert adapter(second) == adapter(first)

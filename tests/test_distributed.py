"""Two processes do what one does, whatever part of a window each of them has; spawned workers too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command import ROOT, Settings, adapter, complete, life, small
from safetensors.torch import load
from staged_runs import progressive, transition
from torch.utils.data import DataLoader

from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.table_skills import TableSkills
from lit_align.forest import TokenForest, Window

pytestmark = pytest.mark.slow

TWO = {"strategy": "ddp", "devices": 2, "max_steps": 5}


def _plain(data: Settings, trainer: Settings) -> Settings:
    # Gradient descent: Adam would turn a gradient's rounding around zero into steps of full size.
    return small(
        model={
            "lora": {"rank": 4, "alpha": 8},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.3}},
            "schedule": {"class_path": "ConstantSchedule"},
        },
        data={"val_fraction": 0.0, **data},
        trainer={"max_steps": 5, **trainer},
    )


def _difference(one: dict[str, bytes], two: dict[str, bytes]) -> float:
    """Largest relative difference of a tensor, in the maximum norm."""
    first, second = load(one["adapter_model.safetensors"]), load(two["adapter_model.safetensors"])
    assert first.keys() == second.keys()
    return max(float((first[k] - second[k]).abs().max() / first[k].abs().max()) for k in first)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        # Seven conversations and three replayed in forests of one or two: ranks hold different numbers of them.
        ("uneven forests", {"window": 7, "token_budget": 160, "replay_share": 0.5}),
        ("a rank without a forest", {"window": 1, "replay": [], "replay_share": 0.0}),
    ],
)
def test_two_ranks_train_as_one(tmp_path: Path, name: str, data: Settings) -> None:
    model: dict[str, Any] = {} if "replay" not in data else {"anchor": {"coef": 1.0, "text": "trained"}}
    settings = [_plain(data, trainer) for trainer in ({"devices": 1}, TWO)]
    for one in settings:
        one["model"]["init_args"].update(model)
    alone = adapter(complete(tmp_path / "one", settings[0]))
    together = adapter(complete(tmp_path / "two", settings[1]))
    tensors = load(alone["adapter_model.safetensors"])
    moved = max(float(tensor.abs().max()) for name, tensor in tensors.items() if "lora_B" in name)
    difference = _difference(alone, together)
    print(f"{name}: relative difference {difference:.1e}, largest B {moved:.1e}")  # noqa: T201  the measured number, shown with -s
    assert moved > 1e-3
    assert difference < 1e-5
    assert together["adapter_config.json"] == alone["adapter_config.json"]


def test_two_ranks_average_as_one(tmp_path: Path) -> None:
    reference = {"class_path": "EMAReference", "init_args": {"every_n_windows": 2}}
    states = []
    for name, trainer in (("one", {"devices": 1}), ("two", TWO)):
        settings = _plain({"window": 7, "token_budget": 160, "replay_share": 0.5}, trainer)
        settings["model"]["init_args"]["reference"] = reference
        run = complete(tmp_path / name, settings)
        states.append(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["lit_align"]["reference"])
    alone, together = (state["weights"] for state in states)
    assert [state["updates"] for state in states] == [2, 2]
    assert max(float(tensor.abs().max()) for name, tensor in alone.items() if "lora_B" in name) > 1e-3
    assert max(float((alone[k] - together[k]).abs().max() / alone[k].abs().max()) for k in alone) < 1e-5


def test_two_ranks_measure_each_item_once_and_as_one(tmp_path: Path) -> None:
    items = {"class_path": "TableSkillItems", "init_args": {"skills": ["scale", "lookup"], "n_per_skill": 7}}
    pairs = {"class_path": "ScalePairs", "init_args": {"split": "eval", "n": 7}}
    exact = {"items": items, "generation": {"max_new_tokens": 16, "batch_size": 4}}
    callback = {
        "class_path": "BenchmarkEvaluation",
        "init_args": {
            "benchmarks": [
                {"class_path": "ExactMatchBenchmark", "init_args": exact},
                {"class_path": "PairAccuracyBenchmark", "init_args": {"source": pairs, "val_fraction": 1.0}},
            ]
        },
    }
    measured = []
    for name, trainer in (("one", {"devices": 1}), ("two", TWO)):
        run = complete(tmp_path / name, _plain({}, {**trainer, "max_steps": 1, "callbacks": [callback]}))
        rows = [json.loads(line) for line in (run / "benchmarks.jsonl").read_text(encoding="utf-8").splitlines()]
        assert len(rows) == 2 * (14 + 7)
        measured.append([row for row in rows if row["phase"] == "before"])
        assert "difference" in (run / "benchmarks.md").read_text(encoding="utf-8")
    for one, two in zip(*measured, strict=True):
        assert one.pop("scores") == pytest.approx(two.pop("scores"), rel=1e-5)
        assert one == two


def test_a_run_of_two_ranks_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    # With dropout: each rank has random numbers of its own, at another place after forests of other sizes.
    settings = small(data={"token_budget": 160, "window": 7}, trainer={**TWO, "max_steps": 8})
    expected = adapter(complete(tmp_path / "undisturbed", settings))
    folder = tmp_path / "killed"
    with life(folder, settings) as process:
        assert process.saves(1), process.errors
        saved = process.checkpoint
        assert saved is not None
    assert not (saved.parent.parent / "adapter").exists(), "it was to be killed before its end"
    assert adapter(complete(folder, settings, saved)) == expected


def test_two_ranks_train_the_adapter_of_a_later_stage_as_one_with_equal_gradients(tmp_path: Path) -> None:
    found = []
    for name, trainer in (("one", {"devices": 1}), ("two", {"strategy": "ddp", "devices": 2})):
        (tmp_path / name).mkdir()
        probe = {"class_path": "staged_runs.Probe", "init_args": {"gradients": str(tmp_path / name)}}
        model = {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.3}}}
        # Windows of six pairs in forests of few: the ranks hold other pairs, so that only an exchange makes them equal.
        settings = progressive(("one", "two"), model, trainer, [probe])
        settings["data"]["init_args"]["token_budget"] = 200
        for stage in transition(settings):
            stage |= {"lr": 0.3, "loss": None}
            stage["lora"].pop("dropout")  # each rank draws its own
        found.append(complete(tmp_path / name, settings))
    for step in range(6):
        first, second = (torch.load(tmp_path / "two" / f"gradients-{step}-{rank}.pt") for rank in (0, 1))
        assert first.keys() == second.keys()
        assert any(bool(value.any()) for value in first.values())
        assert all(torch.equal(first[name], second[name]) for name in first), f"window {step}"
        alone = torch.load(tmp_path / "one" / f"gradients-{step}-0.pt")
        assert all(torch.allclose(first[name], alone[name], rtol=1e-3, atol=1e-6) for name in first), f"window {step}"
    for name in ("adapter-one", "adapter-two"):
        one, two = (load((run / name / "adapter_model.safetensors").read_bytes()) for run in found)
        assert max(float((one[key] - two[key]).abs().max() / one[key].abs().max()) for key in one) < 1e-4


def test_ranks_that_are_interrupted_stop_in_the_same_window(tmp_path: Path) -> None:
    settings = small(
        data={"token_budget": 160, "window": 7, "workers": 1},
        trainer={**TWO, "max_steps": 10_000},
        checkpoint={"every_n_windows": 1},
    )
    with life(tmp_path, settings) as process:
        assert process.saves(1), process.errors
        time.sleep(0.05)
        process.interrupt()
        assert process.wait() == 1, process.errors
        assert "--ckpt_path" in process.errors


def _plain_types(value: object) -> object:
    """Something that compares by value."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.tolist())
    if isinstance(value, Window | TokenForest):
        return {key: _plain_types(part) for key, part in vars(value).items()}
    return tuple(map(_plain_types, value)) if isinstance(value, tuple) else value


def _loader_of(data: SFTDataModule) -> DataLoader[Window]:
    data.trainer = SimpleNamespace(global_step=0, global_rank=0, world_size=1)  # type: ignore[assignment]
    data.setup("fit")
    return data.train_dataloader()


def test_spawned_workers_build_the_windows_of_the_main_process() -> None:
    options: Settings = {"sources": [TableSkills(n=30)], "window": 4, "token_budget": 300}
    alone = list(_loader_of(SFTDataModule(**options)))
    loader = _loader_of(SFTDataModule(**options, workers=2))
    loader.multiprocessing_context = "spawn"
    assert [_plain_types(window) for window in loader] == [_plain_types(window) for window in alone]
    assert len(alone) == 8


_MANY_FORESTS = """
import resource
from types import SimpleNamespace
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.table_skills import TableSkills
data = SFTDataModule(sources=[TableSkills(n=240)], window=60, token_budget=130, workers=2)
data.trainer = SimpleNamespace(global_step=0, global_rank=0, world_size=1)
data.setup("fit")
print([len(window.forests) >= 30 for window in data.train_dataloader()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of open files is a matter of Unix")
def test_windows_of_many_forests_come_from_workers_under_a_small_limit_of_open_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MANY_FORESTS], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == str([True] * 4), done.stderr

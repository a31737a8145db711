"""Optimizers by name compute what their names say, decay matrices alone, and are resumed to the bit."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812  the name that its users know
import pytest
import torch
import yaml
from parsing import parsed
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from lit_align import cli
from lit_align.checkpoint import AdapterCheckpointIO
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.table_skills import TableSkills
from lit_align.models.loading import LoRA, Weights
from lit_align.modules.optimizer import (
    AdamW8bit,
    LowMemoryAdamW,
    OptimizerFactory,
    PagedAdamW8bit,
    PagedAdamW32bit,
    decay_groups,
    optimizer_identity,
)
from lit_align.modules.sft import SFTModule
from lit_align.schedule import ConstantSchedule, CosineSchedule

ROOT = Path(__file__).parent.parent.parent
LOW_MEMORY: list[type[LowMemoryAdamW]] = [AdamW8bit, PagedAdamW8bit, PagedAdamW32bit]

# ---------------------------------------------------------------------- which parameters decay


def test_a_step_without_gradient_shrinks_a_matrix_by_its_decay_and_leaves_a_bias_alone() -> None:
    matrix, bias = nn.Parameter(torch.tensor([[1.0, -2.0], [3.0, 0.7]])), nn.Parameter(torch.tensor([0.3, -0.9]))
    optimizer = AdamW(decay_groups({"matrix": matrix, "bias": bias}), lr=0.5, weight_decay=0.25)
    matrix.grad, bias.grad = torch.zeros(2, 2), torch.zeros(2)
    before = matrix.detach().clone()
    optimizer.step()
    assert torch.equal(matrix, before * (1 - 0.5 * 0.25))
    assert matrix[0, 0] == 0.875
    assert bias.tolist() == torch.tensor([0.3, -0.9]).tolist()


@pytest.mark.parametrize("kind", LOW_MEMORY)
def test_those_of_bitsandbytes_decay_likewise(kind: type[LowMemoryAdamW]) -> None:
    matrix, bias = nn.Parameter(torch.full((64, 128), 2.0)), nn.Parameter(torch.full((8192,), 2.0))
    optimizer = kind(lr=0.5, weight_decay=0.25)(decay_groups({"matrix": matrix, "bias": bias}))
    matrix.grad, bias.grad = torch.zeros_like(matrix), torch.zeros_like(bias)
    optimizer.step()
    assert matrix.unique().tolist() == [1.75]
    assert bias.unique().tolist() == [2.0]


def test_every_parameter_is_in_one_group_in_its_order_and_no_group_is_empty() -> None:
    a, b, c, d = (nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (2,), (), (1, 2, 3)))
    assert [group["params"] for group in decay_groups({"a": a, "b": b, "c": c, "d": d})] == [[a, d], [b, c]]
    assert decay_groups({"a": a, "d": d}) == [{"params": [a, d]}]
    assert decay_groups({"b": b}) == [{"params": [b], "weight_decay": 0.0}]


def test_plain_lora_has_matrices_alone_and_no_parameter_of_the_base() -> None:
    module = SFTModule(weights=Weights(dtype="float32"), lora=LoRA(rank=2))
    module.configure_model()
    (group,) = decay_groups(module.policy.adapter_parameters())
    given = {id(parameter) for parameter in group["params"]}
    assert given == {id(p) for name, p in module.policy.named_parameters() if ".lora_" in name}


# ---------------------------------------------------------------------- what they compute


def train(optimizer: Optimizer, parameter: nn.Parameter, steps: Iterable[int]) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 0.1 + 0.05
        optimizer.step()


def start() -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1, 1, 8192).reshape(64, 128))


def naive_adamw(steps: int, lr: float, decay: float) -> Tensor:
    """The paper's Algorithm 2 in float64."""
    weight = start().detach().double()
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(steps):
        grad = (torch.randn(weight.shape, generator=torch.Generator().manual_seed(step)) * 0.1 + 0.05).double()
        mean, square = 0.9 * mean + 0.1 * grad, 0.999 * square + 0.001 * grad**2
        update = (mean / (1 - 0.9 ** (step + 1))) / ((square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        weight = weight * (1 - lr * decay) - lr * update
    return weight


@pytest.mark.parametrize(
    ("factory", "bound"),
    [(PagedAdamW32bit(lr=0.01, weight_decay=0.1), 1e-5), (AdamW8bit(lr=0.01, weight_decay=0.1), 0.05)],
    ids=["32 bits", "8 bits"],
)
def test_steps_are_those_of_adamw_as_near_as_the_state_allows(factory: LowMemoryAdamW, bound: float) -> None:
    parameter, before = start(), start()
    optimizer = factory([{"params": [parameter]}])
    train(optimizer, parameter, range(10))
    expected = naive_adamw(10, lr=0.01, decay=0.1)
    moved = (expected - before.detach()).norm()
    assert 0 < (parameter.detach() - expected).norm() < bound * moved
    state = {value.dtype for value in optimizer.state[parameter].values() if torch.is_tensor(value)}
    assert (torch.uint8 in state) == isinstance(factory, AdamW8bit)


def test_a_paged_one_falls_back_on_a_cpu_with_the_same_bits_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    plain, paged = start(), start()
    train(AdamW8bit(lr=0.01)([{"params": [plain]}]), plain, range(3))
    assert caplog.messages == []
    train(PagedAdamW8bit(lr=0.01)([{"params": [paged]}]), paged, range(3))
    assert torch.equal(plain, paged)
    said = "PagedAdamW8bit: a CPU has no paged memory; AdamW8bit takes its place, with the same numbers"
    assert caplog.messages == [said]


@pytest.mark.parametrize("kind", LOW_MEMORY)
def test_the_state_goes_through_a_file_to_the_bit(kind: type[LowMemoryAdamW]) -> None:
    whole, half = start(), start()
    train(kind(lr=0.01)([{"params": [whole]}]), whole, range(6))
    first = kind(lr=0.01)([{"params": [half]}])
    train(first, half, range(3))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = kind(lr=0.01)([{"params": [half]}])
    second.load_state_dict(torch.load(file, weights_only=True))
    train(second, half, range(3, 6))
    assert torch.equal(whole, half)
    forgotten = start()
    train(kind(lr=0.01)([{"params": [forgotten]}]), forgotten, range(3))
    train(kind(lr=0.01)([{"params": [forgotten]}]), forgotten, range(3, 6))
    assert not torch.equal(whole, forgotten)  # a state that is lost is seen


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"lr": -1.0}, "`optimizer.lr` must be >= 0, got -1.0"),
        ({"lr": float("nan")}, "`optimizer.lr` must be >= 0, got nan"),
        ({"eps": -1e-8}, "`optimizer.eps` must be >= 0, got -1e-08"),
        ({"weight_decay": -0.1}, "`optimizer.weight_decay` must be >= 0, got -0.1"),
        ({"betas": (0.9, 1.0)}, r"`optimizer.betas` must be in \[0, 1\), got \(0.9, 1.0\)"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        PagedAdamW8bit(**options)


# ---------------------------------------------------------------------- names, and a resumed run


def _words(optimizer: object) -> list[str]:
    Path("x.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"optimizer": optimizer}}}), encoding="utf-8")
    return ["fit", "-c", str(ROOT / "configs" / "quickstart.yaml"), "-c", "x.yaml"]


@pytest.mark.parametrize("kind", LOW_MEMORY)
def test_a_short_name_is_parsed_without_importing_bitsandbytes(
    kind: type[LowMemoryAdamW], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"class_path": kind.__name__, "init_args": {"lr": 1e-5, "weight_decay": 0.01}}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "bitsandbytes", None)  # an import would raise
        optimizer = parsed(_words(given), monkeypatch)["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == f"lit_align.modules.optimizer.{kind.__name__}"
    assert optimizer["init_args"] == {"lr": 1e-5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}


def test_a_short_name_is_ours_also_where_bitsandbytes_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes

    assert bitsandbytes.optim.PagedAdamW8bit.__name__ == "PagedAdamW8bit"
    words = ["fit", "-c", str(ROOT / "configs" / "quickstart.yaml"), "--model.optimizer=PagedAdamW8bit"]
    optimizer = parsed([*words, "--model.optimizer.lr=2e-5"], monkeypatch)["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "lit_align.modules.optimizer.PagedAdamW8bit"
    assert optimizer["init_args"]["lr"] == 2e-5


def test_a_class_path_of_torch_is_made_from_the_parameters_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5, "momentum": 0.9}}
    optimizer = parsed(_words(given), monkeypatch)["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    assert (optimizer["init_args"]["lr"], optimizer["init_args"]["momentum"]) == (0.5, 0.9)


@pytest.mark.slow
def test_a_process_that_parses_a_short_name_has_not_loaded_bitsandbytes() -> None:
    code = (
        "import json, sys\nfrom lit_align.__main__ import main\n"
        "try:\n    main()\nfinally:\n    print(json.dumps(sorted(sys.modules)))"
    )
    words = [*_words({"class_path": "PagedAdamW8bit", "init_args": {"lr": 1e-5}}), "--print_config"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "class_path: lit_align.modules.optimizer.PagedAdamW8bit" in done.stdout
    assert not {"bitsandbytes", "peft", "datasets"} & set(json.loads(done.stdout.splitlines()[-1]))


def test_an_identity_tells_optimizers_and_each_setting_apart_without_making_one_of_ours(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # an import would raise
    changes: list[dict[str, Any]] = [{}, {"lr": 0.5}, {"betas": (0.8, 0.9)}, {"eps": 1e-6}, {"weight_decay": 0.5}]
    ours = [optimizer_identity(kind(**change)) for kind in LOW_MEMORY for change in changes]
    others = [optimizer_identity(lambda groups: AdamW(groups)), optimizer_identity(lambda groups: SGD(groups, lr=1.0))]
    assert len({json.dumps(one, sort_keys=True) for one in ours + others}) == len(ours + others)
    assert ours[1] == {
        "optimizer": "AdamW8bit", "optimizer.lr": "0.5", "optimizer.betas": "(0.9, 0.999)",
        "optimizer.eps": "1e-08", "optimizer.weight_decay": "0.01",
    }  # fmt: skip
    assert caplog.messages == []


class Watch(L.Callback):
    """Keeps the gradients that the optimizer is given, and saves after two windows."""

    def __init__(self, save: Path | None = None) -> None:
        self.save = save
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        squares = [p.grad.double().square().sum() for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack(squares).sum().sqrt()))

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self.save is not None and trainer.global_step == 2:
            trainer.save_checkpoint(self.save)


def run(
    optimizer: OptimizerFactory, watch: Watch, ckpt: Path | None = None, steps: int = 4, **options: Any
) -> tuple[SFTModule, L.Trainer]:
    module = SFTModule(
        weights=Weights(dtype="float32"),
        lora=LoRA(rank=32, dropout=0.1),  # matrices of 4,096 numbers and more, whose state has 8 bits
        optimizer=optimizer,
        **{"schedule": ConstantSchedule(), **options},
    )
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[watch], plugins=[AdapterCheckpointIO()],
    )  # fmt: skip
    data = SFTDataModule(sources=[TableSkills(skills=["scale"], n=8, seed=1)], window=2)
    trainer.fit(module, datamodule=data, ckpt_path=None if ckpt is None else str(ckpt), weights_only=True)
    return module, trainer


def test_a_run_with_eight_bits_is_resumed_to_the_bit_and_by_the_same_optimizer_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    saved = tmp_path / "two.ckpt"
    whole, trainer = run(PagedAdamW8bit(lr=3e-3), Watch(saved))
    assert sum("paged memory" in line for line in caplog.messages) == 1  # also with a checkpoint and its identity
    states = trainer.optimizers[0].state.values()
    assert any(state["state1"].dtype == torch.uint8 for state in states)
    resumed, _ = run(PagedAdamW8bit(lr=3e-3), Watch(), saved)
    pairs = zip(whole.policy.adapter_parameters().values(), resumed.policy.adapter_parameters().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    with pytest.raises(ValueError, match="optimizer: PagedAdamW8bit in the checkpoint, AdamW8bit now"):
        run(AdamW8bit(lr=3e-3), Watch(), saved)


def test_the_command_runs_with_a_short_name_and_says_once_that_a_cpu_has_no_paged_memory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = _words({"class_path": "PagedAdamW32bit", "init_args": {"lr": 1e-3}})
    small = ["--data.sources.n=4", "--data.replay.n=4", "--data.window=2", "--data.replay_share=0.5"]
    quiet = ["--trainer.callbacks=[]", "--trainer.max_steps=2", "--trainer.enable_progress_bar=false"]
    assert cli.main([*words, *small, *quiet, "--checkpoint.every_n_windows=1"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("AdamW32bit takes its place") == 1
    assert "kernels" not in shown.err + shown.out  # bitsandbytes' own line on a CPU
    assert Path("lightning_logs/quickstart/version_0/adapter").is_dir()


# ---------------------------------------------------------------------- what is logged of a step


class Log(L.Callback):
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.seen.append({key: float(trainer.callback_metrics[f"train/{key}"]) for key in ("grad_norm", "lr")})


def logged(make: Callable[[Any], Optimizer], **options: Any) -> tuple[list[dict[str, float]], list[float]]:
    watch, log = Watch(), Log()
    watch.on_train_batch_end = log.on_train_batch_end  # type: ignore[method-assign]
    run(make, watch, **options)
    return log.seen, watch.norms


def test_norm_and_rate_are_logged_as_by_hand_the_norm_before_it_is_scaled_down() -> None:
    schedule = CosineSchedule(warmup_steps=2)
    free, norms = logged(lambda groups: SGD(groups, lr=1e-4), max_grad_norm=0.0, schedule=schedule)
    assert [window["grad_norm"] for window in free] == pytest.approx(norms, rel=1e-5)
    assert [window["lr"] for window in free] == pytest.approx([5e-5, 1e-4, 1e-4, 5e-5])
    limit = norms[0] / 3
    scaled, after = logged(lambda groups: SGD(groups, lr=1e-4), max_grad_norm=limit, steps=1)
    assert scaled[0]["grad_norm"] == pytest.approx(norms[0], rel=1e-5)
    assert after == pytest.approx([limit], rel=1e-4)

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast
from unittest.mock import MagicMock, PropertyMock

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn

from lit_align.callbacks.benchmark import BenchmarkEvaluation
from lit_align.data.chat import ChatFormat
from lit_align.evals.benchmark import SHARE, Benchmark, Bounds, ItemResult
from lit_align.evals.generate import generate
from lit_align.models.policy import Policy as RealPolicy
from lit_align.types import Message

pytestmark = [
    # Lightning advises on machines and data sizes; the tests mean their tiny loaders and runs.
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging interval"),
    # Lightning 2.6 flattens its loaders through a name that torch 2.13 deprecates.
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
]

QUESTIONS = [[1, 2, 3], [4], [5, 6], [9, 8, 7, 6]]


class Policy(nn.Module):
    def __init__(self, folder: str) -> None:
        super().__init__()
        from transformers import Qwen3ForCausalLM

        self.model = Qwen3ForCausalLM.from_pretrained(folder)
        self.model.train()

    @property
    def causal_lm(self) -> Any:
        return self.model


class Module(pl.LightningModule):
    def __init__(self, folder: str, fail_at: int | None = None, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.policy = Policy(folder)
        self.fail_at, self.error = fail_at, error

    def training_step(self, batch: Tensor) -> Tensor:
        if self.global_step == self.fail_at:
            raise self.error("planted")
        # Every random source takes part, so that a benchmark which disturbs one changes the weights.
        noise = random.random() + float(np.random.rand()) + torch.rand(())
        logits = self.policy.causal_lm(batch).logits
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()) * noise

    def validation_step(self, batch: Tensor) -> None:
        self.log("val/loss", batch.float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Chat:
    tokenizer: Any = None

    def prompt_ids(self, messages: Sequence[Message], example: str = "prompt") -> list[int]:
        raise AssertionError("the benchmark of these tests asks in token ids")


class Data(pl.LightningDataModule):
    chat: ChatFormat

    def setup(self, stage: str) -> None:
        self.chat = cast(ChatFormat, Chat())

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.arange(16).reshape(2, 8), batch_size=1)

    def val_dataloader(self) -> Any:
        return self.train_dataloader()


@dataclass(frozen=True)
class Asked(Benchmark):
    """Generates with the real model and disturbs every random state; remembers how it found the model."""

    measures: ClassVar[Mapping[str, Bounds]] = {"right": SHARE}

    name: str = "new skill"
    cap: int = 3
    calls: list[dict[str, Any]] = field(default_factory=list, compare=False)

    def conditions(self) -> dict[str, str | int]:
        return {"items": str(QUESTIONS), "max_new_tokens": self.cap}

    def run(self, policy: RealPolicy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        random.random(), np.random.rand(), torch.rand(5)
        weights = torch.cat([parameter.detach().flatten() for parameter in policy.causal_lm.parameters()])
        autocast = torch.is_autocast_enabled("cpu")
        self.calls.append({"weights": weights, "progress": progress, "autocast": autocast, "chat": chat})
        completions = generate(policy.causal_lm, QUESTIONS, max_new_tokens=self.cap, stop_ids=[])
        return [
            ItemResult(
                id=f"q{index}",
                cluster=f"c{index // 2}",
                skill="even" if index % 2 == 0 else "odd",
                prompt=f"вопрос {index}",
                answer=" ".join(map(str, completion.tokens)),
                gold="3",
                scores={"right": float(len(self.calls) > 1 and index < 2)},
                hit_cap=completion.hit_cap,
                new_tokens=len(completion.tokens),
            )
            for index, completion in enumerate(completions)
        ]


def trainer_for(folder: Path, callbacks: Sequence[pl.Callback], **options: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": 3,
        "logger": CSVLogger(folder, name="run"),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 1,
        "callbacks": list(callbacks),
    }
    return pl.Trainer(**{**defaults, **options})


def lines(folder: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "benchmarks.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(module: pl.LightningModule) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_same_code_path_measures_the_start_and_the_end(tmp_path: Path, random_qwen3: str) -> None:
    benchmark, module, data = Asked(), Module(random_qwen3), Data()
    start = weights(module)

    trainer_for(tmp_path, [BenchmarkEvaluation([benchmark])]).fit(module, data)

    assert len(benchmark.calls) == 2
    assert torch.equal(benchmark.calls[0]["weights"], start)
    assert torch.equal(benchmark.calls[1]["weights"], weights(module))
    assert not torch.equal(start, weights(module))
    assert benchmark.calls[0]["chat"] is data.chat
    assert all(submodule.training for submodule in module.modules())


def test_training_is_byte_for_byte_the_same_with_and_without(tmp_path: Path, random_qwen3: str) -> None:
    trained = []
    for callbacks in ([], [BenchmarkEvaluation([Asked()])]):
        pl.seed_everything(5, verbose=False)
        module = Module(random_qwen3)
        trainer_for(tmp_path, callbacks).fit(module, Data())
        trained.append((weights(module), torch.rand(3), np.random.rand(), random.random()))

    assert torch.equal(trained[0][0], trained[1][0])
    assert torch.equal(trained[0][1], trained[1][1])
    assert trained[0][2:] == trained[1][2:]


def test_a_line_an_item_and_phase_and_one_table(
    tmp_path: Path, random_qwen3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trainer_for(tmp_path, [BenchmarkEvaluation([Asked(), Asked(name="old skills")])])
    trainer.fit(Module(random_qwen3), Data())

    records = lines(trainer.log_dir)
    assert [(r["benchmark"], r["phase"], r["step"], r["id"]) for r in records] == [
        (name, phase, step, f"q{index}")
        for phase, step in (("before", 0), ("after", 3))
        for name in ("new skill", "old skills")
        for index in range(4)
    ]
    keys = "benchmark phase step id cluster skill prompt answer gold scores hit_cap new_tokens think_tokens ties"
    assert list(records[0]) == keys.split()
    assert records[1]["prompt"] == "вопрос 1"
    assert "вопрос" in (Path(trainer.log_dir) / "benchmarks.jsonl").read_text(encoding="utf-8")

    printed = capsys.readouterr().out
    table = (Path(trainer.log_dir) / "benchmarks.md").read_text(encoding="utf-8")
    assert printed.count("difference [95% CI]") == 1
    assert table.strip() in printed
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[2:8]]
    assert [row[1] for row in rows] == ["new skill", "– even", "– odd", "old skills", "– even", "– odd"]
    assert [rows[0][column].split()[0] for column in (4, 5, 6)] == ["0.000", "0.500", "+0.500"]
    assert rows[0][9] == "100%"


def test_loggers_receive_means_and_sample_texts(tmp_path: Path, random_qwen3: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = [TensorBoardLogger(tmp_path, name="board"), CSVLogger(tmp_path, name="table")]
    trainer_for(tmp_path, [BenchmarkEvaluation([Asked()])], logger=loggers).fit(Module(random_qwen3), Data())

    events = EventAccumulator(loggers[0].log_dir)
    events.Reload()
    for key, after in (("new skill", 0.5), ("new skill/even", 0.5), ("new skill/odd", 0.5)):
        scalars = events.Scalars(f"val/benchmark/{key}")
        assert [(scalar.step, scalar.value) for scalar in scalars] == [(0, 0.0), (3, after)]
    text = events.Tensors("benchmark/new skill/after/text_summary")[0]
    assert "вопрос 0" in text.tensor_proto.string_val[0].decode()
    assert "val/benchmark/new skill/odd" in (Path(loggers[1].log_dir) / "metrics.csv").read_text()


def test_resumed_run_compares_with_the_start_of_the_run(tmp_path: Path, random_qwen3: str) -> None:
    first = trainer_for(tmp_path, [BenchmarkEvaluation([Asked()])], max_steps=2)
    first.fit(Module(random_qwen3), Data())
    first.save_checkpoint(tmp_path / "half.ckpt")
    written = (Path(first.log_dir) / "benchmarks.jsonl").read_bytes()
    torch.load(tmp_path / "half.ckpt", weights_only=True)

    benchmark = Asked()
    benchmark.calls.append({})  # so that scores are those of a second measurement
    second = trainer_for(tmp_path, [BenchmarkEvaluation([benchmark])], max_steps=4)
    second.fit(Module(random_qwen3), Data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)

    assert len(benchmark.calls) == 2, "one measurement, at the end"
    assert lines(second.log_dir)[:4] == lines(first.log_dir)[:4]
    assert [(record["phase"], record["step"]) for record in lines(second.log_dir)[4:]] == [("after", 4)] * 4
    assert "+0.500" in (Path(second.log_dir) / "benchmarks.md").read_text(encoding="utf-8")
    assert first.log_dir != second.log_dir
    assert (Path(first.log_dir) / "benchmarks.jsonl").read_bytes() == written


def test_resume_in_the_same_folder_repeats_no_line(tmp_path: Path, random_qwen3: str) -> None:
    logger = CSVLogger(tmp_path, name="run", version=0)
    callback, module = BenchmarkEvaluation([Asked()]), Module(random_qwen3)
    trainer = trainer_for(tmp_path, [callback], logger=logger)
    trainer.fit(module, Data())
    trainer.fit_loop.epoch_loop.max_steps = 5

    trainer.fit(module, Data())

    found = [(record["phase"], record["step"]) for record in lines(trainer.log_dir)]
    assert found == [("before", 0)] * 4 + [("after", 3)] * 4 + [("after", 5)] * 4


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (None, [Asked()], "resumes at step 2, and the checkpoint holds no baseline"),
        ([Asked()], [Asked(cap=5)], "max_new_tokens of benchmark 'new skill' was 3 in the run and is now 5"),
        ([Asked()], [Asked(), Asked(name="old")], r"with benchmarks \['new skill'\], but has \['new skill', 'old'\]"),
    ],
)
def test_resume_that_could_not_be_compared_is_refused_before_a_step(
    tmp_path: Path, random_qwen3: str, before: list[Benchmark] | None, after: list[Benchmark], message: str
) -> None:
    callbacks = [] if before is None else [BenchmarkEvaluation(before)]
    first = trainer_for(tmp_path, callbacks, max_steps=2)
    first.fit(Module(random_qwen3), Data())
    first.save_checkpoint(tmp_path / "half.ckpt")
    second = trainer_for(tmp_path, [BenchmarkEvaluation(after)], max_steps=4)

    with pytest.raises(ValueError, match=message):
        second.fit(Module(random_qwen3), Data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)

    assert second.global_step == 2


@pytest.mark.parametrize(("error", "raised"), [(KeyboardInterrupt, SystemExit), (RuntimeError, RuntimeError)])
def test_interrupted_fit_has_no_table(
    tmp_path: Path,
    random_qwen3: str,
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException],
    raised: type[BaseException],
    sigint_handler: None,
) -> None:
    trainer = trainer_for(tmp_path, [BenchmarkEvaluation([Asked()])])
    with pytest.raises(raised):
        trainer.fit(Module(random_qwen3, fail_at=1, error=error), Data())

    assert {record["phase"] for record in lines(trainer.log_dir)} == {"before"}
    assert not (Path(trainer.log_dir) / "benchmarks.md").exists()
    assert "difference" not in capsys.readouterr().out


@pytest.fixture
def sigint_handler() -> Iterator[None]:
    """Lightning ignores further SIGINTs once it was interrupted; later tests should still be interruptible."""
    import signal

    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def test_validate_measures_once_and_prints_one_arm(
    tmp_path: Path, random_qwen3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = Asked()
    trainer = trainer_for(tmp_path, [BenchmarkEvaluation([benchmark])])

    trainer.validate(Module(random_qwen3), Data(), verbose=False)

    assert len(benchmark.calls) == 1
    assert {record["phase"] for record in lines(trainer.log_dir)} == {"validate"}
    printed = capsys.readouterr().out
    assert "score [95% CI]" in printed
    assert "difference" not in printed


def test_mixed_precision_generates_under_autocast(tmp_path: Path, random_qwen3: str) -> None:
    benchmark = Asked()
    trainer = trainer_for(tmp_path, [BenchmarkEvaluation([benchmark])], precision="bf16-mixed", max_steps=1)
    trainer.fit(Module(random_qwen3), Data())

    assert [call["autocast"] for call in benchmark.calls] == [True, True]


def test_fast_dev_run_measures_and_leaves_nothing(tmp_path: Path, random_qwen3: str) -> None:
    benchmark = Asked()
    trainer_for(tmp_path, [BenchmarkEvaluation([benchmark])], fast_dev_run=True).fit(Module(random_qwen3), Data())

    assert len(benchmark.calls) == 2
    assert list(tmp_path.rglob("benchmarks.*")) == []


def test_progress_is_labelled_where_there_is_a_progress_bar(tmp_path: Path, random_qwen3: str) -> None:
    labels = []
    for enabled in (False, True):
        benchmark = Asked()
        trainer = trainer_for(tmp_path, [BenchmarkEvaluation([benchmark])], enable_progress_bar=enabled, max_steps=1)
        trainer.fit(Module(random_qwen3), Data())
        labels.append([call["progress"] for call in benchmark.calls])

    assert labels == [[None, None], ["new skill (before)", "new skill (after)"]]


def test_other_ranks_measure_and_do_not_write(tmp_path: Path) -> None:
    trainer = MagicMock(spec=pl.Trainer, is_global_zero=False, global_step=0, log_dir=str(tmp_path), fast_dev_run=False)
    model = SimpleNamespace(policy=SimpleNamespace(causal_lm=object()), parameters=list)
    trainer.lightning_module, trainer.datamodule, trainer.callbacks = model, SimpleNamespace(chat=Chat()), []
    benchmark = Fixed()
    callback = BenchmarkEvaluation([benchmark])

    callback.on_train_start(trainer, trainer.lightning_module)
    trainer.global_step = 1
    callback.on_train_end(trainer, trainer.lightning_module)

    assert benchmark.calls == 2
    assert list(tmp_path.iterdir()) == []
    assert callback.state_dict()["baseline"]["fixed"][0]["id"] == "a"


def test_ranks_of_a_resumed_run_stay_in_step_whichever_of_them_sees_the_file_first(tmp_path: Path) -> None:
    item = asdict(ItemResult("a", "a", "one", "?", "!", "!", {"right": 1.0}, hit_cap=False, new_tokens=1))
    saved = {"baseline": {"fixed": [item]}, "step": 0, "conditions": {"fixed": {"n": 1}}}
    asked = []
    for rank in (0, 1):
        trainer = MagicMock(spec=pl.Trainer, is_global_zero=rank == 0, global_step=2, fast_dev_run=False, loggers=[])
        type(trainer).log_dir = log_dir = PropertyMock(return_value=str(tmp_path))  # all ranks must ask as often
        trainer.strategy.broadcast = lambda _: False  # rank 0 finds no file; what it writes is there for rank 1
        trainer.datamodule = SimpleNamespace()
        callback = BenchmarkEvaluation([Fixed()])
        callback.load_state_dict(saved)
        callback.on_train_start(trainer, MagicMock())
        assert (tmp_path / "benchmarks.jsonl").exists()
        asked.append(log_dir.call_count)

    assert asked[0] == asked[1]


@dataclass
class Fixed(Benchmark):
    """The same right answer from any model."""

    measures: ClassVar[Mapping[str, Bounds]] = {"right": SHARE}

    name: str = "fixed"
    calls: int = 0

    def conditions(self) -> dict[str, str | int]:
        return {"n": 1}

    def run(self, policy: RealPolicy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        self.calls += 1
        return [ItemResult("a", "a", "one", "?", "!", "!", {"right": 1.0}, hit_cap=False, new_tokens=1)]


def test_measures_in_between_as_often_as_asked_and_the_end_once(tmp_path: Path, random_qwen3: str) -> None:
    trainer = trainer_for(tmp_path, [BenchmarkEvaluation([benchmark := Fixed()], every_n_windows=2)], max_steps=4)
    trainer.fit(Module(random_qwen3), Data())

    found = [(record["phase"], record["step"]) for record in lines(trainer.log_dir)]
    assert found == [("before", 0), ("during", 2), ("during", 4), ("after", 4)]
    assert benchmark.calls == 3, "the policy of step 4 is measured once"


def test_measures_after_each_validation_if_asked(tmp_path: Path, random_qwen3: str) -> None:
    callback = BenchmarkEvaluation([Fixed()], on_validation=True)
    trainer = trainer_for(tmp_path, [callback], max_steps=3, val_check_interval=1)
    trainer.fit(Module(random_qwen3), Data())

    found = [(record["phase"], record["step"]) for record in lines(trainer.log_dir)]
    assert found == [("before", 0), ("during", 1), ("during", 2), ("during", 3), ("after", 3)]


def test_missing_policy_or_chat_is_named_before_the_first_step(tmp_path: Path, random_qwen3: str) -> None:
    class WithoutPolicy(Module):
        def __init__(self, folder: str) -> None:
            super().__init__(folder)
            self.model, self.policy = self.policy, None

    callback, loader = BenchmarkEvaluation([Asked()]), Data().train_dataloader()
    with pytest.raises(TypeError, match=r"need a LightningModule with `policy.causal_lm`"):
        trainer_for(tmp_path, [callback]).fit(WithoutPolicy(random_qwen3), Data())
    with pytest.raises(TypeError, match="need a LightningDataModule with `chat`"):
        trainer_for(tmp_path, [callback]).fit(Module(random_qwen3), loader, loader)


def test_undeclared_measures_are_found_before_the_first_step(tmp_path: Path, random_qwen3: str) -> None:
    @dataclass(frozen=True)
    class Undeclared(Asked):
        measures: ClassVar[Mapping[str, Bounds]] = {"right": SHARE, "nats": (-math.inf, 0.0)}

    trainer = trainer_for(tmp_path, [BenchmarkEvaluation([Undeclared()])])
    with pytest.raises(
        ValueError, match=r"'new skill', item 'q0': measures must be \['right', 'nats'\], got \['right'\]"
    ):
        trainer.fit(Module(random_qwen3), Data())
    assert trainer.global_step == 0


@dataclass(frozen=True)
class Measured(Asked):
    """Each item scored by two measures, one of them without a bound."""

    measures: ClassVar[Mapping[str, Bounds]] = {"right": SHARE, "nats": (-math.inf, 0.0)}

    def run(self, policy: RealPolicy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        items = super().run(policy, chat, progress=progress)
        return [
            replace(item, scores={**item.scores, "nats": np.float64(-index - len(self.calls))})
            for index, item in enumerate(items)
        ]


def test_several_measures_are_logged_told_and_kept_in_checkpoints(tmp_path: Path, random_qwen3: str) -> None:
    first = trainer_for(tmp_path, [BenchmarkEvaluation([Measured()])], max_steps=2)
    first.fit(Module(random_qwen3), Data())
    first.save_checkpoint(tmp_path / "half.ckpt")
    state = torch.load(tmp_path / "half.ckpt", weights_only=True)["callbacks"]["BenchmarkEvaluation"]
    table = (Path(first.log_dir) / "benchmarks.md").read_text(encoding="utf-8")
    second = trainer_for(tmp_path, [BenchmarkEvaluation([Measured()])], max_steps=4)
    second.fit(Module(random_qwen3), Data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)

    assert state["baseline"]["new skill"][1]["scores"] == {"right": 0.0, "nats": -2.0}
    assert lines(first.log_dir)[5]["scores"] == {"right": 1.0, "nats": -3.0}
    written = (Path(first.log_dir) / "metrics.csv").read_text()
    assert "val/benchmark/new skill/right/odd" in written
    assert "val/benchmark/new skill/nats," in written
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if line.startswith("| new skill")]
    assert [row[6].split()[0] for row in rows] == ["+0.500", "-1.0000"]
    assert "nats" in (Path(second.log_dir) / "benchmarks.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Grouped(Asked):
    """Items of two groups of the data."""

    def groups(self) -> frozenset[str]:
        return frozenset({"table 1", "table 2"})


@pytest.mark.parametrize("run", ["fit", "validate"])
def test_items_that_training_sees_are_refused_before_anything_is_measured(
    tmp_path: Path, random_qwen3: str, run: str
) -> None:
    class Split(Data):
        trained_groups = frozenset({"table 2", "table 3"})
        val_fraction, split_seed = 0.1, 7

    class Fails(Module):
        def validation_step(self, batch: Tensor) -> None:
            raise AssertionError("validation data come later")

    benchmark = Grouped()
    trainer = trainer_for(tmp_path, [BenchmarkEvaluation([Asked(name="none of them"), benchmark])])
    message = r"'new skill': training sees 1 of its groups, such as 'table 2'; .*`val_fraction` = 0.1, `split_seed` = 7"
    with pytest.raises(ValueError, match=message):
        getattr(trainer, run)(Fails(random_qwen3) if run == "validate" else Module(random_qwen3), Split())
    assert benchmark.calls == []

    Split.trained_groups = frozenset({"table 3"})
    trainer_for(tmp_path, [BenchmarkEvaluation([benchmark])], max_steps=1).fit(Module(random_qwen3), Split())
    assert len(benchmark.calls) == 2


def test_benchmarks_must_be_some_and_differ_in_name() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        BenchmarkEvaluation([])
    with pytest.raises(ValueError, match=r"unique, got \['new skill', 'new skill'\]"):
        BenchmarkEvaluation([Asked(), Asked()])


def test_benchmarks_are_named_by_class_path() -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_subclass_arguments(BenchmarkEvaluation, "callback")
    benchmark = {"class_path": f"{__name__}.Asked", "init_args": {"name": "geography", "cap": 7}}
    path = f"{BenchmarkEvaluation.__module__}.BenchmarkEvaluation"
    config = parser.parse_object({"callback": {"class_path": path, "init_args": {"benchmarks": [benchmark]}}})

    callback = parser.instantiate(config).callback

    assert callback.benchmarks == [Asked(name="geography", cap=7)]

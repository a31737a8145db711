"""Runs through stages by the command: each starts as the one before ended, and is what it is alone, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command import complete, contents, life, newest_checkpoint
from in_process import fit
from safetensors.torch import load_file
from staged_runs import PROBE, Config, Probe, progressive, transition, weights

RUN = Path("lightning_logs/run/version_0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Probe]:
    """The folder of a whole run, and what was seen in it."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["lit-align"])
        patch.chdir(folder)
        assert fit(progressive(callbacks=[PROBE])) == 0
    return folder / RUN, Probe.last


def test_each_stage_starts_as_the_end_of_the_one_before_to_the_bit(run: tuple[Path, Probe]) -> None:
    _, seen = run
    for step in (3, 6):
        assert torch.equal(seen.starts[step]["policy"], seen.ends[step])
        assert not torch.equal(seen.ends[step], seen.ends[step - 1]), "the last window taught nothing"


def test_the_reference_of_each_stage_is_the_one_asked_for(run: tuple[Path, Probe]) -> None:
    _, seen = run
    base = seen.starts[0]["policy"]
    for step in range(9):
        expected = seen.ends[3] if 3 <= step < 6 else base
        assert torch.equal(seen.starts[step]["reference"], expected), step


def test_what_is_frozen_neither_learns_nor_drops_out(run: tuple[Path, Probe]) -> None:
    _, seen = run
    for step, found in seen.starts.items():
        assert all(".default." in name for name in found["trained"])
        assert found["optimized"] == len(found["trained"])
        assert all(name.endswith(".default") for name in found["drop out"])
        for name, value in found["frozen"].items():
            assert torch.equal(value, seen.starts[8]["frozen"][name]), f"{name} moved after step {step}"
    assert {name.split(".")[-2] for name in seen.starts[8]["frozen"]} == {"stage-one", "stage-two"}


def test_optimizer_schedule_and_loss_start_anew(run: tuple[Path, Probe]) -> None:
    _, seen = run
    cosine = [1.0, 0.75, 0.25]
    rates = [*(5e-3 * x for x in cosine), 3e-3, 3e-3, 3e-3, *(3e-3 * x for x in cosine)]
    assert seen.rates == pytest.approx(rates)
    assert [name.split("(")[0] for name in seen.losses] == ["SigmoidLoss"] * 3 + ["IPOLoss"] * 3 + ["SigmoidLoss"] * 3
    assert [found["optimizer steps"] == 0 for found in seen.starts.values()] == [step % 3 == 0 for step in range(9)]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_kept_adapters_are_opened_by_peft_one_on_another(run: tuple[Path, Probe]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from lit_align.callbacks.stage_record import read_records
    from lit_align.tokenizer import resolve_base

    folder, _ = run
    start, records = read_records(folder)
    assert start == []
    assert [(one.name, one.first_window, one.last_window) for one in records] == [
        ("one", 0, 2), ("two", 3, 5), ("three", 6, 8),
    ]  # fmt: skip
    assert [one.policy for one in records] == [
        ["adapter-one"], ["adapter-one", "adapter-two"], ["adapter-one", "adapter-three"],
    ]  # fmt: skip
    assert [one.reference for one in records] == [[], ["adapter-one"], []]
    assert weights(folder / "adapter") == weights(folder / "adapter-three")
    base = AutoModelForCausalLM.from_pretrained(resolve_base("tiny-qwen3").path, dtype=torch.float32)
    opened = PeftModel.from_pretrained(base, folder / records[-1].policy[0], adapter_name="adapter-one")
    for path in records[-1].policy[1:]:
        opened.load_adapter(folder / path, adapter_name=path)
    opened.base_model.set_adapter(records[-1].policy)
    modules = [part for part in opened.modules() if hasattr(part, "scaling") and hasattr(part, "lora_A")]
    live = load_file(folder / "adapter-three" / "adapter_model.safetensors")
    assert len(modules) == len({name.rpartition(".lora_")[0] for name in live})
    assert {scale for part in modules for scale in part.scaling.values()} == {2.0, 1.0}


def test_loggers_mark_the_stages(run: tuple[Path, Probe]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run[0])).Reload()
    assert [(one.step, one.value) for one in events.Scalars("stage")] == [
        (0, 1), (2, 1), (3, 2), (5, 2), (6, 3), (8, 3),
    ]  # fmt: skip
    assert {f"stage/{name}/text_summary" for name in ("one", "two", "three")} <= set(events.Tags()["tensors"])


@pytest.mark.parametrize(
    ("name", "before", "init", "lora", "reference"),
    [
        # The folders before a stage, how the model starts from them, and the model's own adapter.
        ("two", ["adapter-one"], "stack", {"rank": 1}, "start"),
        pytest.param(
            "three", ["adapter-one", "adapter-two"], "continue", {"rank": 3, "alpha": 3, "dropout": 0.2}, "base",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["stacked", "continued"],
)  # fmt: skip
def test_a_stage_alone_from_the_folders_before_it_ends_as_in_one_fit(
    run: tuple[Path, Probe], name: str, before: list[str], init: str, lora: Config, reference: str
) -> None:
    folder, _ = run
    unchanged = {path: contents(folder / path) for path in before}
    paths = [str(folder / path) for path in before]
    start = {"class_path": "FrozenAdapterReference", "init_args": {"path": paths, "init": init}}
    config = progressive((name,), {"reference": start, "lora": lora})
    transition(config)[0]["reference"] = reference
    assert fit(config) == 0
    assert weights(RUN / f"adapter-{name}") == weights(folder / f"adapter-{name}")
    record = json.loads((RUN / "stages.json").read_text("utf-8"))
    assert record["start"] == paths
    assert record["stages"][0]["reference"] == (paths if reference == "start" else [])
    assert {path: contents(folder / path) for path in before} == unchanged


RESUMED = [4, *(pytest.param(step, marks=pytest.mark.slow) for step in (3, 7, 9))]


@pytest.mark.parametrize("step", RESUMED)
def test_a_run_resumed_inside_of_a_stage_or_between_two_ends_with_the_same_bytes(
    run: tuple[Path, Probe], step: int
) -> None:
    folder, seen = run
    before = contents(folder)
    checkpoint = folder / "checkpoints" / f"step-{step:06d}.ckpt"
    assert fit(progressive(callbacks=[PROBE]), "--ckpt_path", str(checkpoint)) == 0
    for name in ("adapter", "adapter-one", "adapter-two", "adapter-three"):
        assert contents(RUN / name) == contents(folder / name), name
    assert (RUN / "stages.json").read_bytes() == (folder / "stages.json").read_bytes()
    for at, found in Probe.last.starts.items():
        assert torch.equal(found["policy"], seen.starts[at]["policy"])
        assert torch.equal(found["reference"], seen.starts[at]["reference"])
    assert contents(folder) == before


def _shown(capsys: pytest.CaptureFixture[str], config: Config, *words: str) -> str:
    assert fit(config, *words) in (1, 2)
    return capsys.readouterr().err.replace("\n", " ")


def test_stages_that_have_begun_stay_as_they_are_and_later_ones_may_change(
    run: tuple[Path, Probe], capsys: pytest.CaptureFixture[str]
) -> None:
    inside_two = ("--ckpt_path", str(run[0] / "checkpoints" / "step-000004.ckpt"))

    config = progressive(("one", "three"))
    told = _shown(capsys, config, *inside_two)
    assert "has begun the stages one, two, and `stages` are now one, three: those that have begun stay" in told

    config = progressive()
    transition(config)[0]["lr"] = 1e-3
    transition(config)[1]["reference"] = "base"
    config["data"]["init_args"]["stages"][1]["pairs"] = 24
    told = _shown(capsys, config, *inside_two)
    for key in ("stages.one.lr: 0.005 in the checkpoint, 0.001 now", "stages.two.reference", "data.stages.two"):
        assert key in told
    assert "data.stages.one" not in told

    config = progressive()
    transition(config)[2] |= {"name": "other", "lr": 1e-3}
    config["data"]["init_args"]["stages"][2] |= {"name": "other", "windows": 1}
    assert fit(config, *inside_two) == 0
    folder = sorted(Path("lightning_logs/run").iterdir())[-1]
    assert [one["name"] for one in json.loads((folder / "stages.json").read_text("utf-8"))["stages"]][2:] == ["other"]
    assert weights(folder / "adapter-two") == weights(run[0] / "adapter-two")


@pytest.mark.slow
def test_a_run_that_has_ended_takes_no_further_stage_and_no_run_without_stages(
    run: tuple[Path, Probe], capsys: pytest.CaptureFixture[str]
) -> None:
    ended = ("--ckpt_path", str(run[0] / "checkpoints" / "last.ckpt"))
    config = progressive()
    transition(config).append({"name": "four", "reference": "base"})
    config["data"]["init_args"]["stages"].append({**config["data"]["init_args"]["stages"][0], "name": "four"})
    assert "has ended with its stage 'three', and `stages` go on with 'four'" in _shown(capsys, config, *ended)

    config = progressive()
    config["data"] = {
        "class_path": "PreferenceDataModule",
        "init_args": {"sources": config["data"]["init_args"]["stages"][0]["sources"], "window": 6},
    }
    del config["trainer"]["callbacks"]
    assert "is of a run with stages: keep StageTransition" in _shown(capsys, config, *ended)


@pytest.mark.slow
def test_validate_measures_the_policy_and_the_reference_of_the_stage(run: tuple[Path, Probe], tmp_path: Path) -> None:
    from lit_align.cli import main

    folder, _ = run
    values = []
    for step in (6, 9):
        config = progressive()
        config["data"]["init_args"]["val_fraction"] = 0.5
        Path("validate.yaml").write_text(json.dumps({k: v for k, v in config.items() if k != "checkpoint"}), "utf-8")
        checkpoint = folder / "checkpoints" / f"step-{step:06d}.ckpt"
        assert main(["validate", "-c", "validate.yaml", "--ckpt_path", str(checkpoint)]) == 0
        metrics = Path(f"lightning_logs/run/version_{len(values)}/metrics.csv").read_text("utf-8").splitlines()
        values.append(dict(zip(metrics[0].split(","), metrics[1].split(","), strict=True)))
    assert {"val/by_source/one/scale_answers/loss", "val/by_source/three/skill_pairs/rise/loss"} <= values[0].keys()
    assert float(values[1]["val/kl"]) > float(values[0]["val/kl"]) > 0


@pytest.mark.slow
def test_a_run_killed_inside_of_the_second_stage_ends_with_the_same_bytes(tmp_path: Path) -> None:
    settings = progressive()
    settings["checkpoint"] = {"every_n_windows": 1}
    expected = complete(tmp_path / "undisturbed", settings)
    folder = tmp_path / "killed"
    for saves in (4, 1):  # inside of the second stage, then at its end or in the third
        with life(folder, settings, newest_checkpoint(folder)) as process:
            assert process.saves(saves), process.errors
            process.kill()
    last = complete(folder, settings, newest_checkpoint(folder))
    assert len(list((folder / "lightning_logs" / "run").iterdir())) == 3
    for name in ("adapter", "adapter-one", "adapter-two", "adapter-three"):
        assert contents(last / name) == contents(expected / name)
    assert (last / "stages.json").read_bytes() == (expected / "stages.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_all_stages_lie_on_one_base_in_one_number_format(quantization: str) -> None:
    config = progressive(callbacks=[PROBE], model={"weights": {"dtype": "bfloat16", "quantization": quantization}})
    assert fit(config) == 0
    seen = Probe.last
    assert {tuple(found["base"]) for found in seen.starts.values()} == {
        ("Linear4bit",) if quantization == "nf4" else ("Linear",)
    }
    for step in (3, 6):
        assert torch.equal(seen.starts[step]["policy"], seen.ends[step])

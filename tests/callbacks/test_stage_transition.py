"""What does not go together is refused before anything is read, and gates that fail do what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from in_process import fit, shown_line
from staged_runs import PROBE, Config, Probe, progressive, transition, weights

RUN = Path("lightning_logs/run/version_0")
MEASURED: Config = {
    "class_path": "BenchmarkEvaluation",
    "init_args": {
        "benchmarks": [
            {
                "class_path": "PairAccuracyBenchmark",
                "init_args": {
                    "name": "pairs", "val_fraction": 1.0,
                    "source": {"class_path": "ScalePairs", "init_args": {"split": "eval", "n": 20, "seed": 3}},
                },
            }
        ]
    },
}  # fmt: skip


def gate(on_failure: str, **options: Any) -> Config:
    return {
        "metric": "pairs/accuracy", "against": "base", "min_difference": 1.0, "on_failure": on_failure, **options
    }  # fmt: skip


def _changed(path: str, value: Any) -> Config:
    """The run, with one thing changed."""
    config = progressive(callbacks=[MEASURED])
    *keys, last = path.split(".")
    part: Any = {**config, "stages": transition(config), "pairs": config["data"]["init_args"]["stages"]}
    for key in keys:
        part = part[int(key) if key.isdecimal() else key]
    part[int(last) if last.isdecimal() else last] = value
    return config


BAD = [
    ("stages.0.gates", [gate("stop", metric="pairs/acuracy")], "no benchmark measures its gate's 'pairs/acuracy'"),
    ("stages.1.name", "one", "2 stages are named 'one'"),
    ("pairs.1.name", "one", "2 stages are named 'one'"),
    ("stages.1.name", "second", "has the stages one, second, three, and `data` StagedPreferences one, two, three"),
    ("stages.0.reference", "previous", "stage 'one' is the first and has no stage before it"),
    ("pairs.1.sources", [], "stage 'two': `sources` is empty"),
    ("trainer.max_epochs", 2, "all stages together are one epoch, set it to 1"),
    ("trainer.callbacks", [], "has stages, and `trainer.callbacks` 0 StageTransition"),
    ("model.init_args.reference", {"class_path": "EMAReference"}, "EMAReference cannot be the start of stages"),
    ("stages.1.loss", {"class_path": "AOTLoss"}, "AOTLoss couples the pairs of a window"),
    ("trainer.callbacks.0", {"class_path": "MTBenchEarlyStopping", "init_args": {"benchmark": MEASURED["init_args"][
        "benchmarks"][0]}}, "MTBenchEarlyStopping restores the best adapter"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "told"), BAD, ids=[f"{path} {str(value)[:20]}" for path, value, _ in BAD])
def test_what_does_not_go_together_is_told_in_one_line(
    path: str, value: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(_changed(path, value)) in (1, 2)
    assert told in shown_line(capsys)
    assert not Path("lightning_logs").exists()


def test_sft_has_no_stages(capsys: pytest.CaptureFixture[str]) -> None:
    config = progressive()
    config["model"]["class_path"] = "SFTModule"
    assert fit(config) in (1, 2)
    assert "holds pairs, but `model` SFTModule trains on conversations" in shown_line(capsys)


def test_an_adapter_of_another_base_is_refused_before_the_data_are_read(
    random_qwen3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lit_align.checkpoint import write_adapter
    from lit_align.models.loading import LoRA, Weights
    from lit_align.models.policy import Policy

    policy = Policy(random_qwen3, Weights("float32"), LoRA(rank=2), "tree_sdpa")
    write_adapter(tmp_path / "other", policy.adapter_parameters(), policy.adapter_config())
    start = {"class_path": "FrozenAdapterReference", "init_args": {"path": [str(tmp_path / "other")]}}
    assert fit(progressive(model={"reference": start})) in (1, 2)
    told = shown_line(capsys)
    assert str(tmp_path / "other") in told
    assert "does not fit this base" in told
    assert not Path("lightning_logs").exists()


def _records() -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((RUN / "stages.json").read_text("utf-8"))["stages"]
    return records


@pytest.mark.slow
def test_a_gate_that_fails_stops_the_run_in_good_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(progressive(callbacks=[MEASURED, PROBE], gates={"two": [gate("stop")]})) == 0
    assert max(Probe.last.ends) == 6
    told = capsys.readouterr().err
    assert "stage two ended with window 5: pairs/accuracy" in told
    assert "against base, at least 1 asked for: failed; stopped (its adapter is in adapter-two)" in told
    assert [one["outcome"] for one in _records()] == ["passed", "stop"]
    assert weights(RUN / "adapter") == weights(RUN / "adapter-two")
    assert not (RUN / "adapter-three").exists()
    steps = {json.loads(line)["step"] for line in (RUN / "benchmarks.jsonl").read_text("utf-8").splitlines()}
    assert steps == {0, 3, 6}
    # It stays so, when it is resumed where it had stopped.
    assert fit(
        progressive(callbacks=[MEASURED, PROBE], gates={"two": [gate("stop")]}),
        "--ckpt_path", str(RUN / "checkpoints" / "last.ckpt"),
    ) == 0  # fmt: skip
    assert not Probe.last.ends
    assert weights(RUN.with_name("version_1") / "adapter") == weights(RUN / "adapter-two")


@pytest.mark.slow
def test_a_gate_that_fails_goes_back_to_the_start_of_its_stage(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    gates = {"two": [gate("back", against="previous")], "three": [gate("back")]}
    assert fit(progressive(callbacks=[MEASURED, PROBE], gates=gates)) == 0
    seen = Probe.last
    assert torch.equal(seen.starts[6]["policy"], seen.starts[3]["policy"])
    assert not torch.equal(seen.ends[6], seen.starts[3]["policy"])
    told = capsys.readouterr().err
    assert told.count("failed; went back to its start") == 2
    records = _records()
    assert [one["outcome"] for one in records] == ["passed", "back", "back"]
    assert [one["policy"] for one in records] == [["adapter-one"]] * 3
    assert records[2]["below"] == [], "it went on with the adapter of stage one"
    assert weights(RUN / "adapter") == weights(RUN / "adapter-one") != weights(RUN / "adapter-three")
    matrix = json.loads((RUN / "matrix.json").read_text("utf-8"))
    assert matrix["policies"] == ["base", "one", "two", "three"]
    assert matrix["outcomes"] == {"two": "went back", "three": "went back"}
    [moved] = ([cell["score"] for cell in line["cells"]] for line in matrix["lines"] if line["measure"] == "kl")
    assert moved[0] != moved[1] == moved[2] == moved[3]
    # Resumed inside of the stage after.
    checkpoint = RUN / "checkpoints" / "step-000007.ckpt"
    assert fit(progressive(callbacks=[MEASURED, PROBE], gates=gates), "--ckpt_path", str(checkpoint)) == 0
    again = RUN.with_name("version_1")
    for name in ("adapter", "adapter-one", "adapter-two", "adapter-three"):
        assert weights(again / name) == weights(RUN / name)
    for name in ("stages.json", "matrix.json", "matrix.md"):
        assert (again / name).read_bytes() == (RUN / name).read_bytes()
    assert {"matrix.png", "learning-vs-kl.png"} <= {path.name for path in again.iterdir()}


@pytest.mark.slow
def test_where_nothing_is_left_to_go_on_with_a_new_adapter_of_the_same_shape_is_trained() -> None:
    gates = {name: [gate("back")] for name in ("one", "two")}
    assert fit(progressive(callbacks=[MEASURED, PROBE], gates=gates)) == 0
    records = _records()
    assert [(one["below"], one["policy"]) for one in records] == [([], []), ([], []), ([], ["adapter-three"])]
    config = json.loads((RUN / "adapter-three" / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["lora_alpha"]) == (3, 3)


@pytest.mark.slow
def test_the_base_is_measured_where_the_fit_does_not_start_from_it() -> None:
    start = {
        "class_path": "FrozenAdapterReference",
        "init_args": {"path": "package:lit_align/assets/tiny_qwen3_undecided"},
    }
    gates = {"one": [gate("go_on", min_difference=-1.0), gate("go_on", against="start", min_difference=-1.0)]}
    assert fit(progressive(("one",), {"reference": start}, callbacks=[MEASURED], gates=gates)) == 0
    [record] = _records()
    assert record["outcome"] == "passed"
    assert record["below"] == ["package:lit_align/assets/tiny_qwen3_undecided"]
    rows = [json.loads(line) for line in (RUN / "benchmarks.jsonl").read_text("utf-8").splitlines()]
    means = {
        phase: sum(row["scores"]["accuracy"] for row in rows if row["phase"] == phase) / 20
        for phase in ("base", "before", "stage")
    }
    assert means["base"] < 0.2 < means["before"]
    matrix = json.loads((RUN / "matrix.json").read_text("utf-8"))
    assert matrix["policies"] == ["base", "start", "one"]
    [line] = (line for line in matrix["lines"] if line["main"])
    assert [cell["score"]["mean"] for cell in line["cells"]] == pytest.approx([*means.values()])
    against = {one["against"]: one["difference"] for one in record["gates"]}
    assert against["base"] == pytest.approx(means["stage"] - means["base"])
    assert against["start"] == pytest.approx(means["stage"] - means["before"])

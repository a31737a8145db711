"""The arms differ in what they are to differ in, and the tables say what planted runs hold."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.__main__ import main as benchmarks_main
from benchmarks.progressive.fit import COST
from benchmarks.progressive.measured import MEASURES, Measured, measured
from benchmarks.progressive.report import Comparison, differences_table, stages_table, transfer_table, verdict
from benchmarks.progressive.runs import QUICKSTART, Config, Run, compared_with_base, joint, run_of, stages_of

STAGES = ("general", "finance", "social")


@pytest.fixture
def quickstart() -> Config:
    config: Config = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    return config


# ---------------------------------------------------------------------- arms


def test_the_joint_run_has_the_stages_pairs_at_their_shares_and_is_as_long(quickstart: Config) -> None:
    found = joint(quickstart)
    data = found["data"]["init_args"]
    assert data["mix"]["size"] == 320 + 480 + 25 * 16 == 75 * data["window"]
    assert data["mix"]["weights"] == pytest.approx(
        {"ending_pairs/chat": 320 / 1200, "ending_pairs/rise": (480 + 160) / 1200, "ending_pairs/compare": 240 / 1200}
    )
    assert [source["init_args"]["skill"] for source in data["sources"]] == ["chat", "rise", "compare"]
    assert found["model"]["init_args"]["lora"] == {"rank": 8 + 12 + 16, "alpha": 2 * (8 + 12 + 16)}
    assert [one["class_path"] for one in found["trainer"]["callbacks"]] == ["BenchmarkEvaluation"]
    assert found["trainer"]["callbacks"][0] == quickstart["trainer"]["callbacks"][0]


def test_the_other_reference_is_all_that_differs(quickstart: Config) -> None:
    before = deepcopy(quickstart)
    found = compared_with_base(quickstart)
    assert quickstart == before
    assert [stage["reference"] for stage in stages_of(found)] == ["base"] * 3
    for stage, own in zip(stages_of(found), stages_of(quickstart), strict=True):
        stage["reference"] = own["reference"]
    assert found == quickstart


def test_other_settings_have_another_folder(quickstart: Config, tmp_path: Path) -> None:
    run = run_of("previous", 1, tmp_path, quickstart)
    assert run.config["seed_everything"] == run.config["data"]["init_args"]["seed"] == 1
    assert "seed" not in quickstart["data"]["init_args"]
    assert run_of("previous", 1, tmp_path, quickstart).folder == run.folder
    stages_of(quickstart)[0]["lr"] = 1e-3
    assert run_of("previous", 1, tmp_path, quickstart).folder != run.folder


# ---------------------------------------------------------------------- what a run has measured


def plant(run: Run, right: dict[str, list[int]], outcomes: list[str], items: int = 20) -> None:
    """A finished run that has ``right`` items right, by domain: before, then after each of its stages or at the end."""
    record = run.folder / "lightning_logs" / "run" / "version_0"
    record.mkdir(parents=True)
    joint = run.arm == "joint"
    moments = [("before", 0), *([("after", 6)] if joint else [("stage", 2 * n + 2) for n in range(len(outcomes))])]
    lines = [
        json.dumps({
            "benchmark": domain, "phase": phase, "step": step, "id": f"{domain} {item}", "cluster": f"{item // 2}",
            "scores": dict.fromkeys(MEASURES, float(item < counts[number])),
        })
        for number, (phase, step) in enumerate(moments) for domain, counts in right.items() for item in range(items)
    ]  # fmt: skip
    (record / "benchmarks.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (run.folder / COST).write_text(json.dumps({"cpu_s": 60.0, "wall_s": 90.0}), encoding="utf-8")
    if not joint:
        stages = [
            {"name": name, "last_window": 2 * n + 1, "outcome": outcome}
            for n, (name, outcome) in enumerate(zip(STAGES, outcomes, strict=False))
        ]
        (record / "stages.json").write_text(json.dumps({"stages": stages}), encoding="utf-8")


RIGHT = {"general": [2, 12, 14, 10], "finance": [0, 4, 20, 18], "social": [10, 10, 12, 20]}


def _accuracy(found: Measured, domain: str) -> dict[str, float]:
    return {policy: float(scores[domain]["accuracy"].mean()) for policy, scores in found.policies.items()}


@pytest.mark.parametrize(
    ("outcomes", "general"),
    [
        (["passed", "go_on", "passed"], [0.1, 0.6, 0.7, 0.5]),
        (["passed", "back", "passed"], [0.1, 0.6, 0.6, 0.5]),
        (["back", "passed", "passed"], [0.1, 0.1, 0.7, 0.5]),
        (["passed", "passed", "back"], [0.1, 0.6, 0.7, 0.7]),
        (["stop"], [0.1, 0.6, 0.6, 0.6]),
    ],
    ids=str,
)
def test_a_stage_leaves_what_its_gates_let_it_leave(
    outcomes: list[str], general: list[float], quickstart: Config, tmp_path: Path
) -> None:
    run = run_of("previous", 0, tmp_path, quickstart)
    plant(run, RIGHT, outcomes)
    found = measured(run)
    assert list(_accuracy(found, "general").values()) == pytest.approx(general)
    assert list(found.policies) == ["base", *STAGES]
    assert list(found.outcomes.values()) == [*outcomes, *["not reached"] * (3 - len(outcomes))]


def test_items_that_have_changed_are_refused(quickstart: Config, tmp_path: Path) -> None:
    run = run_of("joint", 0, tmp_path, quickstart)
    plant(run, RIGHT, [])
    assert _accuracy(measured(run), "finance") == {"base": 0.0, "end": 0.2}
    path = run.record / "benchmarks.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('6, "id": "social 3"', '6, "id": "other"'), "utf-8")
    with pytest.raises(ValueError, match="items of 'social' differ between step 0 and 'after' of step 6"):
        measured(run)


# ---------------------------------------------------------------------- tables


def arm(shares: dict[str, list[list[float]]], stages: tuple[str, ...], steps: int = 6, n: int = 100) -> list[Measured]:
    """Runs of exact accuracy: by domain and seed, for the base and each later policy."""
    names = ["base", *(stages or ("end",))]
    runs = []
    for seed in range(len(next(iter(shares.values())))):
        policies: dict[str, Any] = {}
        for at, name in enumerate(names):
            policies[name] = {
                domain: {measure: (np.arange(n) < round(own[seed][at] * n)).astype(float) for measure in MEASURES}
                for domain, own in shares.items()
            }
        clusters = {domain: list(map(str, range(n))) for domain in shares}
        runs.append(Measured(steps, clusters, policies, dict.fromkeys(stages, "passed")))
    return runs


TWO = ("general", "finance")
STAGED = {"general": [[0.2, 0.9, 0.6], [0.2, 0.8, 0.7]], "finance": [[0.5, 0.5, 1.0], [0.5, 0.4, 1.0]]}
OTHER = {"general": [[0.2, 0.9, 0.1], [0.2, 0.9, 0.1]], "finance": [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]}
JOINT = {"general": [[0.2, 0.9], [0.2, 0.8]], "finance": [[0.5, 0.9], [0.5, 0.9]]}


def comparison() -> Comparison:
    return Comparison({"previous": arm(STAGED, TWO), "base": arm(OTHER, TWO), "joint": arm(JOINT, ())})


def test_means_are_over_seeds_and_differences_are_paired_by_seed() -> None:
    found = comparison()
    score = found.score("previous", "finance", "general")
    assert score.interval.mean == pytest.approx(0.65)
    assert score.by_seed == pytest.approx([0.6, 0.7])
    assert score.interval.low < 0.6 < 0.7 < score.interval.high
    less = found.difference(found.end_of("previous"), found.end_of("joint"), "general")
    assert less.interval.mean == pytest.approx(-0.2)
    assert less.by_seed == pytest.approx([-0.3, -0.1])
    assert "-0.200 [" in differences_table(found, ["previous", "base", "joint"]).splitlines()[2]
    assert found.end_of("joint") == ("joint", "end")


def test_backward_transfer_is_the_end_less_the_stage_itself() -> None:
    three = {"general": [[0, 0.9, 0.6, 0.5]] * 2, "finance": [[0, 0, 1.0, 0.8]] * 2, "social": [[0, 0, 0, 1.0]] * 2}
    found = Comparison({"previous": arm(three, STAGES), "joint": arm({k: [[0, 1]] * 2 for k in three}, ())})
    lines = transfer_table(found, ["previous", "joint"]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["general", "finance", "mean"]
    assert [float(line.split("|")[2].split("[")[0]) for line in lines[2:]] == pytest.approx([-0.4, -0.2, -0.3])
    low, high = map(float, lines[4].split("[")[1].split("]")[0].split(","))
    assert -0.4 < low < -0.3 < high < -0.2, "the mean of two is surer than each"
    assert lines[0].count("|") == 3, "a joint run has no stages"
    assert "| gates | – | passed | passed | passed |" in stages_table(found, ["previous", "joint"])


def test_better_and_worse_are_said_of_intervals_without_0_alone() -> None:
    told = verdict(comparison(), ["previous", "base", "joint"]).splitlines()
    assert told[0].endswith("against the base: better: general, finance.")
    assert told[1].endswith("against the base: worse: general; not told apart: finance.")


def test_unequal_lengths_and_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match=r"equally long, and have trained \[5, 6\] windows"):
        Comparison({"previous": arm(STAGED, TWO), "joint": arm(JOINT, (), steps=5)})
    with pytest.raises(ValueError, match="not measured on the same items"):
        Comparison({"previous": arm(STAGED, TWO), "joint": arm(JOINT, (), n=90)})


# ---------------------------------------------------------------------- the command


def test_finished_runs_are_not_repeated(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = []

    def fit(run: Run) -> None:
        fitted.append((run.arm, run.seed))
        right = {domain: [own[0], own[-1]] for domain, own in RIGHT.items()} if run.arm == "joint" else RIGHT
        plant(run, right, ["passed"] * 3)

    monkeypatch.setattr(Run, "fit", fit)
    words = ["progressive", "--folder", "runs", "--out", "out", "--seeds"]
    benchmarks_main([*words, "0"])
    assert fitted == [("previous", 0), ("base", 0), ("joint", 0)]
    benchmarks_main([*words, "0", "4"])
    assert fitted[3:] == [("previous", 4), ("base", 4), ("joint", 4)]
    text = Path("out/progressive.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert "`python -m benchmarks progressive --folder runs --out out --seeds 0 4`" in text
    for part in ("| general | 0.100", "rank 36", "| 60 | 60 | 60 |"):
        assert part in text
    with pytest.raises(SystemExit):
        benchmarks_main([*words, "0", "0"])


@pytest.mark.slow
def test_the_command_trains_all_arms_and_reports_them(quickstart: Config) -> None:
    data = quickstart["data"]["init_args"]
    data["window"] = 4
    for stage in data["stages"]:
        stage.pop("pairs", None)
        stage["windows"] = 2
        for source in stage["sources"]:
            source["init_args"]["n"] = 16
    for benchmark in quickstart["trainer"]["callbacks"][0]["init_args"]["benchmarks"]:
        benchmark["init_args"]["source"]["init_args"]["n"] = 8
    for stage in stages_of(quickstart):
        stage["gates"] = []
    Path("small.yaml").write_text(yaml.safe_dump(quickstart), encoding="utf-8")
    benchmarks_main(["progressive", "--config", "small.yaml", "--folder", "runs", "--out", "out", "--seeds", "0"])
    text = Path("out/progressive.md").read_text(encoding="utf-8")
    assert "6 windows of 4 pairs in each arm" in text
    assert len(list(Path("runs").glob(f"*/{COST}"))) == 3

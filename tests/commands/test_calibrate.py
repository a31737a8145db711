"""Calibration as a command: from answers of known quality to a file that scores by it, and what it refuses."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import shown_line
from reward_models import save_reward_model

from lit_align.cli import main
from lit_align.commands.calibrate import Calibrate
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.evals.judge import CalibratedMap, LegacyMap, RewardModelScorer
from lit_align.evals.judge.known_quality import PreferredAnswers, RatedFile

ANSWERS = ["4", "It is four.", "no", "the cat sat on the mat", "", "да", "7 7 7", "five?", "2 + 2 = 4", "who knows"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RewardModelScorer:
    return RewardModelScorer(save_reward_model(tmp_path_factory.mktemp("reward")), dtype="float32")


def write(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return name


@pytest.fixture
def ranked(model: RewardModelScorer) -> list[tuple[float, str]]:
    """Rewards and answers to one question, worst first."""
    path = write(
        "probe.jsonl", [{"prompt": "2 + 2?", "answer": one, "rating": 1 + i % 2} for i, one in enumerate(ANSWERS)]
    )
    known = RatedFile(path).read()
    return sorted(zip([one["reward"] for one in model.scores(known.judged, CPU)], ANSWERS, strict=True))


@pytest.fixture
def pairs(ranked: list[tuple[float, str]]) -> PreferredAnswers:
    """Ten pairs, nine of which the model orders as they are given."""
    texts = [text for _, text in ranked if text]
    rows = [{"prompt": "2 + 2?", "chosen": texts[i + 4], "rejected": texts[i % 4]} for i in range(5)]
    rows += [{"prompt": "2 + 2?", "chosen": texts[8 - i], "rejected": texts[i]} for i in range(4)]
    rows.append({"prompt": "2 + 2?", "chosen": texts[0], "rejected": texts[8]})
    path = write("pairs.jsonl", [{**row, "group": str(i)} for i, row in enumerate(rows)])
    return PreferredAnswers(PreferenceFile(path, group="group"))


def held(path: str = "c.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return found


def test_pairs_give_a_file_that_says_how_well_they_are_told_apart(
    model: RewardModelScorer, pairs: PreferredAnswers
) -> None:
    Calibrate(model, pairs, "c.json", "cpu").run()
    told = held()
    assert told["n"] == 20
    assert told["reward_model"] == {"path": model.path, "fingerprint": model.identity()["fingerprint"]}
    accuracy = told["separation"]["pair_accuracy"]
    assert (accuracy["mean"], accuracy["n"], accuracy["n_clusters"]) == (0.9, 10, 10)
    assert accuracy["low"] < 0.9 < accuracy["high"]
    assert 0.5 < told["separation"]["concordance"]["mean"] < 1
    mapped = replace(model, score_map=CalibratedMap(str(Path("c.json").absolute())))
    mapped.check()
    known = pairs.read()
    scores = [one["score"] for one in mapped.scores(known.judged, CPU)]
    assert sum(scores) / 20 == pytest.approx(5.5), "the mean score is that of as many 10 as 1"
    assert sum(scores[0::2]) > sum(scores[1::2])


def test_ratings_are_met_on_average(model: RewardModelScorer, ranked: list[tuple[float, str]]) -> None:
    rows = [{"prompt": "2 + 2?", "answer": text, "rating": 2 + 0.5 * i} for i, (_, text) in enumerate(ranked)]
    quality = RatedFile(write("rated.jsonl", rows))
    Calibrate(model, quality, "c.json", "cpu").run()
    mapped = replace(model, score_map=CalibratedMap(str(Path("c.json").absolute())))
    scores = [one["score"] for one in mapped.scores(quality.read().judged, CPU)]
    shares = [(10 * (row["rating"] - 1) / 9 + 1) / 12 for row in rows]
    assert sum(scores) / 10 == pytest.approx(1 + 9 * sum(shares) / 10)
    assert set(held()["separation"]) == {"concordance"}
    assert held()["separation"]["concordance"]["mean"] == 1.0
    assert held()["separation"]["concordance"]["low"] < 1.0


def test_the_same_command_writes_the_same_file(model: RewardModelScorer, pairs: PreferredAnswers) -> None:
    for name in ("a.json", "b.json"):
        Calibrate(model, pairs, name, "cpu").run()
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()


def test_a_model_that_prefers_the_worse_answers_is_refused_and_nothing_is_written(
    model: RewardModelScorer, ranked: list[tuple[float, str]]
) -> None:
    rows = [{"prompt": "2 + 2?", "answer": text, "rating": 10 - i / 2} for i, (_, text) in enumerate(ranked)]
    with pytest.raises(ValueError, match=r"better answers do not get larger rewards \(slope -"):
        Calibrate(model, RatedFile(write("rated.jsonl", rows)), "c.json", "cpu").run()
    assert not Path("c.json").exists()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"prompt": "Q", "answer": "a", "rating": 11},
            r"rated\.jsonl:2: rating: must be a number from 1 to 10, not .*11",
        ),
        ({"prompt": "Q", "answer": "a", "rating": "5"}, r"rating: must be a number from 1 to 10"),
        ({"prompt": "Q", "answer": "a"}, r"rated\.jsonl:2: .*rating"),
        ({"prompt": " ", "answer": "a", "rating": 5}, r"rated\.jsonl:2: prompt: is blank"),
        ({"prompt": "Q", "answer": 5, "rating": 5}, r"rated\.jsonl:2: answer"),
    ],
    ids=str,
)
def test_a_bad_row_is_an_error_that_names_it(row: dict[str, Any], said: str) -> None:
    path = write("rated.jsonl", [{"prompt": "Q", "answer": "a", "rating": 5}, row])
    with pytest.raises(ValueError, match=said):
        RatedFile(path).read()


@pytest.mark.parametrize("told_apart", [True, False])
def test_it_is_said_when_the_answers_show_nothing(
    model: RewardModelScorer, ranked: list[tuple[float, str]], told_apart: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    order = range(10) if told_apart else (4, 0, 6, 2, 8, 3, 1, 7, 9, 5)
    rows = [
        {"prompt": text, "answer": text, "rating": 1 + i} for i, (_, text) in zip(order, ranked, strict=True) if text
    ]
    Calibrate(model, RatedFile(write("rated.jsonl", rows)), "c.json", "cpu").run()
    assert ("its interval reaches 0.5: 9 answers do not show" in caplog.text) == (not told_apart)


def test_answers_that_are_all_equally_good_are_refused(model: RewardModelScorer) -> None:
    path = write("rated.jsonl", [{"prompt": "Q", "answer": str(i), "rating": 5} for i in range(3)])
    with pytest.raises(ValueError, match="3 answers, none better than another"):
        Calibrate(model, RatedFile(path), "c.json", "cpu").run()


def test_a_map_a_wrong_name_and_an_absent_folder_are_refused(model: RewardModelScorer, pairs: PreferredAnswers) -> None:
    with pytest.raises(ValueError, match=r"`reward_model\.score_map` must be null"):
        Calibrate(replace(model, score_map=LegacyMap()), pairs, "c.json")
    with pytest.raises(ValueError, match=r"`out` must be a name\.json, got 'c\.txt'"):
        Calibrate(model, pairs, "c.txt")
    with pytest.raises(ValueError, match="`device` must be auto, cpu"):
        Calibrate(model, pairs, "c.json", "gpu")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Calibrate(model, pairs, "nowhere/c.json", "cpu").run()


def test_the_command_line_calibrates(
    model: RewardModelScorer, pairs: PreferredAnswers, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--reward_model.path", model.path, "--reward_model.dtype=float32", "--quality=PreferredAnswers"]
    words += ["--quality.source=PreferenceFile", "--quality.source.path=pairs.jsonl", "--quality.source.group=group"]
    assert main(["calibrate", *words, "--out=c.json", "--device=cpu"]) == 0
    shown = capsys.readouterr().err
    assert "pair_accuracy: 0.900 [" in shown
    assert "c.json: mu = " in shown
    assert math.isfinite(held()["mu"])
    with pytest.raises(SystemExit) as leave:
        main(["calibrate", *words, "--out=c.txt"])
    assert leave.value.code == 2
    assert "`out` must be a name.json" in shown_line(capsys)

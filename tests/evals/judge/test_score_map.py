"""From rewards to scores, and the two numbers that place them: fitted, written, read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_align.evals.judge import CalibratedMap
from lit_align.evals.judge.calibration import fit, read_calibration
from lit_align.evals.judge.score_map import legacy_map

# reference/recipes.md, section 2.5
LEGACY = {
    -7: 1.0, -5: 1.0, -3: 2.8, -1: 4.6, -0.01: 5.49, 0: 1.0, 0.25: 3.25, 0.5: 5.5, 0.9: 9.1, 1.0: 10.0, 1.01: 2.82,
    1.5: 3.7, 2: 4.6, 3: 6.4, 4: 8.2, 5: 10.0, 9: 10.0,
}  # fmt: skip


@pytest.mark.parametrize(("reward", "score"), LEGACY.items())
def test_the_original_s_map_gives_its_table(reward: float, score: float) -> None:
    assert round(legacy_map(reward), 2) == score


def written(path: Path, **changes: Any) -> str:
    held = {"format": 1, "mu": 1.0, "s": 0.5, "reward_model": {"path": "m", "fingerprint": "f"}, **changes}
    path.write_text(json.dumps(held), encoding="utf-8")
    return str(path)


def test_the_calibrated_map_is_increasing_within_1_and_10_and_in_the_middle_at_mu(tmp_path: Path) -> None:
    one = CalibratedMap(written(tmp_path / "c.json"))
    scores = [one.score(reward) for reward in (-1e6, -3, 0.9, 1.0, 1.1, 3, 1e6)]
    assert scores == sorted(scores)
    assert (scores[0], scores[3], scores[-1]) == (1.0, 5.5, 10.0)
    assert one.score(1.5) == pytest.approx(1 + 9 / (1 + math.exp(-1)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "is no calibration of format 1"),
        ({"s": 0}, "s: must be > 0, got 0"),
        ({"mu": "1"}, "mu: must be a finite number, got '1'"),
        ({"mu": True}, "mu: must be a finite number, got True"),
        ({"s": math.inf}, "s: must be a finite number, got inf"),
    ],
    ids=str,
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = written(tmp_path / "c.json", **changes)
    with pytest.raises(ValueError, match=r"c\.json") as told:
        CalibratedMap(path).check("f")
    assert said in str(told.value)


def test_an_absent_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such calibration; `lit-align calibrate` writes one"):
        read_calibration(str(tmp_path / "none.json"))
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        read_calibration(str(tmp_path / "c.json"))


def test_the_fit_finds_the_numbers_that_ratings_were_made_with() -> None:
    random = np.random.default_rng(0)
    rewards = random.normal(3.0, 4.0, 20_000)
    shares = random.random(20_000) < 1 / (1 + np.exp(-(rewards - 2.0) / 1.5))
    mu, s = fit(rewards, shares)
    assert mu == pytest.approx(2.0, abs=0.1)
    assert s == pytest.approx(1.5, abs=0.1)


def test_at_the_fit_the_mean_score_is_the_mean_rating_and_no_other_numbers_fit_better() -> None:
    random = np.random.default_rng(1)
    rewards = random.normal(size=60)
    shares = np.clip((rewards + random.normal(size=60) + 2) / 4, 0, 1)
    mu, s = fit(rewards, shares)
    drawn_in = (60 * shares + 1) / 62

    def loss(mu: float, s: float) -> float:
        p = 1 / (1 + np.exp(-(rewards - mu) / s))
        return -float((drawn_in * np.log(p) + (1 - drawn_in) * np.log(1 - p)).sum())

    assert np.mean(1 / (1 + np.exp(-(rewards - mu) / s))) == pytest.approx(drawn_in.mean(), abs=1e-9)
    assert all(
        loss(mu, s) < loss(mu + dm, s * ds) for dm in (-0.01, 0, 0.01) for ds in (0.99, 1, 1.01) if (dm, ds) != (0, 1)
    )


def test_moving_and_stretching_the_rewards_moves_and_stretches_the_fit() -> None:
    rewards, shares = np.array([-1.0, 0.0, 1.0, 2.0, 5.0]), [0.0, 0.3, 0.2, 0.9, 1.0]
    mu, s = fit(rewards, shares)
    assert fit(1e3 * rewards - 70, shares) == pytest.approx((1e3 * mu - 70, 1e3 * s))


def test_answers_that_are_separated_without_overlap_have_a_finite_scale() -> None:
    mu, s = fit([0.0, 0.1, 5.0, 5.1], [0, 0, 1, 1])
    assert mu == pytest.approx(2.55)
    # Drawn in to 1/6 and 5/6: logits of about 1.6 lie 2.5 from the middle.
    assert s == pytest.approx(2.5 / math.log(5), rel=0.01)


@pytest.mark.parametrize(
    ("rewards", "shares", "said"),
    [
        ([1.0, 1.0], [0, 1], "must|needs rewards and known qualities that differ"),
        ([1.0, 2.0], [1, 1], "that differ"),
        ([1.0, 2.0, 3.0], [1, 0.5, 0], r"better answers do not get larger rewards \(slope -"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(rewards: list[float], shares: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit(rewards, shares)

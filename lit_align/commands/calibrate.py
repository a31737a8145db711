"""``lit-align calibrate``: where a reward model's rewards lie on the scale of 1 to 10, into a file."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_align.checkpoint import write_whole
from lit_align.commands.device import device_of, refuse_absent_device, refuse_no_device
from lit_align.evals.judge.calibration import FORMAT, fit
from lit_align.evals.judge.known_quality import KnownAnswers, KnownQuality
from lit_align.evals.judge.reward_model import RewardModelScorer
from lit_align.metrics.concordance import concordance
from lit_align.metrics.win_rate import win_rate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibrate:
    """Calibrate a reward model by answers of known quality, and write what ``CalibratedMap`` reads.

    The file holds mu and s of ``score = 1 + 9 · sigmoid((reward − mu) / s)``, what they were made of, and how well the
    reward tells better answers from worse ones: the share of pairs in the right order, and over all answers the
    concordance (AUC where they are good or bad), each with a 95 % interval. With preference pairs the score is
    1 + 9 P(good): 10 means as good as chosen answers are, 1 as bad as rejected ones; only ratings make it a rating.
    The same command writes the same file again.

    Args:
        reward_model: The reward model, without a map.
        quality: Answers of known quality: ``PreferredAnswers`` or ``RatedFile``; none that the model was trained on.
        out: The file, ``NAME.json``; one that is there is replaced.
        device: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is CUDA where there is some.

    Raises:
        ValueError: A value is out of its range, or the reward model has a map.
    """

    reward_model: RewardModelScorer
    quality: KnownQuality
    out: str
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.out.endswith(".json") or len(Path(self.out).name) <= len(".json"):
            raise ValueError(f"`out` must be a name.json, got {self.out!r}")
        refuse_no_device(self.device, "device")
        if self.reward_model.score_map is not None:
            raise ValueError("`reward_model.score_map` must be null: a calibration is what makes one")

    def run(self) -> None:
        """Score the answers, fit, and write the file.

        Raises:
            FileNotFoundError: A file or model is not there.
            ValueError: The model or an answer breaks a rule, or the model does not tell better answers from worse.
            OSError: ``out`` cannot be written.
        """
        refuse_absent_device(self.device, "device")
        if not Path(self.out).absolute().parent.is_dir():
            raise FileNotFoundError(f"`out` {self.out}: no such folder")
        self.reward_model.check()
        known = self.quality.read()
        if len({*known.shares}) < 2:
            raise ValueError(f"`quality` {self.quality!r}: {len(known.shares)} answers, none better than another")
        scores = self.reward_model.scores(known.judged, device_of(self.device), progress="rewards")
        rewards = [one["reward"] for one in scores]
        mu, s = fit(rewards, known.shares)
        separation = _separation(known, rewards)
        identity = self.reward_model.identity()
        held = {
            "format": FORMAT,
            "mu": mu,
            "s": s,
            "n": len(rewards),
            "reward_model": {"path": self.reward_model.path, "fingerprint": identity["fingerprint"]},
            "settings": {name: identity[name] for name in ("dtype", "max_length", "overlong")},
            "quality": {"source": repr(self.quality), "fingerprint": _fingerprint(known)},
            "cut": int(sum(one.get("cut", 0.0) for one in scores)),
            "separation": separation,
        }
        write_whole(Path(self.out), [(json.dumps(held, indent=2, ensure_ascii=False) + "\n").encode()])
        for name, told in separation.items():
            logger.info(f"{name}: {told['mean']:.3f} [{told['low']:.3f}, {told['high']:.3f}] (n = {told['n']})")
        if separation["concordance"]["low"] <= 0.5:
            logger.info(
                f"its interval reaches 0.5: {len(rewards)} answers do not show that {self.reward_model.path} tells "
                "better ones from worse, and a score of it would say little"
            )
        logger.info(f"{self.out}: mu = {mu:.4f}, s = {s:.4f} from {len(rewards)} answers")


def _separation(known: KnownAnswers, rewards: list[float]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    if known.pairs:
        better, worse = zip(*known.pairs, strict=True)
        accuracy = win_rate(
            [rewards[place] for place in worse],
            [rewards[place] for place in better],
            [known.clusters[place] for place in better],
        )
        clusters = len({known.clusters[place] for place in better})
        found["pair_accuracy"] = {**asdict(accuracy.rate), "n": accuracy.n, "n_clusters": clusters}
    overall = concordance(rewards, known.shares, known.clusters)
    found["concordance"] = {**asdict(overall), "n": len(rewards), "n_clusters": len({*known.clusters})}
    return found


def _fingerprint(known: KnownAnswers) -> str:
    rows = [
        [[[turn.role, turn.content] for turn in one.prompt], one.answer, share]
        for one, share in zip(known.judged, known.shares, strict=True)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

"""What gives an answer a score: a reward model, likeness to reference answers, or a judge at an endpoint.

One file a scorer; configurations name it by ``class_path``.
"""

from lit_align.evals.judge.contract import Judged, Scorer
from lit_align.evals.judge.endpoint import EndpointJudge
from lit_align.evals.judge.reference import ReferenceScorer
from lit_align.evals.judge.reward_model import RewardModelScorer
from lit_align.evals.judge.score_map import CalibratedMap, LegacyMap, ScoreMap

__all__ = [
    "CalibratedMap", "EndpointJudge", "Judged", "LegacyMap", "ReferenceScorer", "RewardModelScorer", "ScoreMap",
    "Scorer",
]  # fmt: skip

"""What gives an answer a score: a reward model, likeness to reference answers, or a judge at an endpoint.

One file a scorer; configurations name it by ``class_path``.
"""

from lit_align.evals.judge.contract import Judged, Scorer

__all__ = ["Judged", "Scorer"]

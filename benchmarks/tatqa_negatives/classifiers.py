"""Classifiers of pairs that never see a question: of the answers alone, or of the answers and their table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """The answers of all pairs as classifiers read them.

    Attributes:
        chosen: The texts of the chosen answers.
        rejected: The texts of the rejected ones.
        better: Features of the chosen answers.
        worse: Features of the rejected ones.
    """

    chosen: Sequence[str]
    rejected: Sequence[str]
    better: Floats
    worse: Floats


Classifier = Callable[[Measured, Rows, Rows], Floats]
"""Learns from the first rows; gives for each of the second 1 where it names the chosen answer, 0.5 for a tie."""


def _right(of_better: Floats, of_worse: Floats) -> Floats:
    right: Floats = (of_better > of_worse) + 0.5 * (of_better == of_worse)
    return right


def _labels(n: int) -> Floats:
    return np.concatenate([np.ones(n), np.zeros(n)])


def _single(build: Callable[[], Any]) -> Classifier:
    """Is this answer a chosen one? The answer that looks more like one is taken."""

    def classify(answers: Measured, train: Rows, test: Rows) -> Floats:
        model = build()
        model.fit(np.concatenate([answers.better[train], answers.worse[train]]), _labels(int(train.sum())))
        one, two = (model.predict_proba(side[test])[:, 1] for side in (answers.better, answers.worse))
        return _right(one, two)

    return classify


def _paired(build: Callable[[], Any]) -> Classifier:
    """Which of the two is chosen? Sees both and their difference, in both orders."""

    def both(one: Floats, two: Floats) -> Floats:
        return np.concatenate([one - two, one, two], axis=1)

    def classify(answers: Measured, train: Rows, test: Rows) -> Floats:
        model = build()
        one, two = answers.better, answers.worse
        seen = np.concatenate([both(one[train], two[train]), both(two[train], one[train])])
        model.fit(seen, _labels(int(train.sum())))
        forth = model.predict_proba(both(one[test], two[test]))[:, 1]
        back = model.predict_proba(both(two[test], one[test]))[:, 1]
        return _right(forth, back)

    return classify


def _of_text(shortest: int, longest: int, paired: bool) -> Classifier:
    """Logistic regression on the characters' n-grams, of single answers or of differences."""

    def classify(answers: Measured, train: Rows, test: Rows) -> Floats:
        from scipy.sparse import vstack
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        chosen, rejected = ([f"^{text}$" for text in side] for side in (answers.chosen, answers.rejected))
        grams = TfidfVectorizer(analyzer="char", ngram_range=(shortest, longest), sublinear_tf=True, max_features=20000)
        grams.fit([side[i] for side in (chosen, rejected) for i in np.flatnonzero(train)])
        better, worse = grams.transform(chosen), grams.transform(rejected)
        model = LogisticRegression(C=3, max_iter=300)
        if paired:
            model.fit(vstack([(better - worse)[train], (worse - better)[train]]), _labels(int(train.sum())))
        else:
            model.fit(vstack([better[train], worse[train]]), _labels(int(train.sum())))
        return _right(model.decision_function(better[test]), model.decision_function(worse[test]))

    return classify


def _boosting() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=120, learning_rate=0.06, max_leaf_nodes=15, l2_regularization=1.0)


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=400))


def _forest() -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(200, min_samples_leaf=4, n_jobs=1, random_state=0)


def of_features() -> dict[str, Classifier]:
    """Classifiers of features: boosted trees on single answers and on pairs, linear, a forest on pairs."""
    return {
        "boosting": _single(_boosting),
        "boosting, pairs": _paired(_boosting),
        "linear": _single(_linear),
        "forest, pairs": _paired(_forest),
    }


def of_texts() -> dict[str, Classifier]:
    """Classifiers of the texts themselves."""
    return {
        "characters 1-4": _of_text(1, 4, paired=False),
        "characters 1-4, pairs": _of_text(1, 4, paired=True),
        "characters 2-6": _of_text(2, 6, paired=False),
    }

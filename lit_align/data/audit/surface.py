"""How well chosen and rejected answers can be told apart without their prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lit_align.data.audit.examples import Text
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table
from lit_align.metrics.statistics import mean_interval

_MOST_PAIRS = 2_000  # of a source
_FEWEST_GROUPS = 20
_FOLDS = 5
_ENDS = 80  # characters of an answer's beginning and of its end
_MARKS = ".,:;!?()[]{}\"'`*#-–—/%$€+=<>|\n"


def shape(answer: str) -> list[float]:
    """The form of an answer in numbers: its length, lines, digits, capitals, lists and marks.

    Args:
        answer: Any text.
    """
    size = max(len(answer), 1)
    lines = answer.splitlines() or [""]
    words = answer.split()
    return [
        float(np.log1p(len(answer))),
        float(np.log1p(len(words))),
        float(np.log1p(len(lines))),
        sum(map(len, words)) / max(len(words), 1),
        sum(char.isdigit() for char in answer) / size,
        sum(char.isupper() for char in answer) / size,
        sum(bool(re.match(r"\s*(?:[-*•]|\d+[.)])\s", line)) for line in lines) / len(lines),
        float(answer[:1].isupper()),
        float(answer[-1:] in ".!?…"),
        *(float(np.log1p(answer.count(mark))) for mark in _MARKS),
    ]


def surface_accuracy(texts: Sequence[Text], settings: AuditSettings) -> Measured:
    """Accuracy of a classifier that reads answers alone.

    A logistic regression learns from single answers whether they are chosen ones: from their shape (:func:`shape`),
    their words, and the character 1- to 4-grams of their beginning and end. Groups are dealt to five folds; on each the
    answer of a pair that looks more like a chosen one is taken, by what was learned on the others (half a hit at a
    tie). One half is chance. Below it the rejected answers were chosen jointly, so that the folds mirror one another.
    The interval is over groups.

    Args:
        texts: Examples; those that are no pairs are passed over.
        settings: The limits.
    """
    pairs: dict[str, list[Text]] = {}
    for text in texts:
        if len(text.answers) == 2 and text.example.part == "training":
            pairs.setdefault(text.example.source, []).append(text)
    rows: list[tuple[Cell, ...]] = []
    checks = []
    for source, some in tqdm(pairs.items(), desc="classifying answers", delay=2, leave=False, unit=" sources"):
        some = some[:: -(-len(some) // _MOST_PAIRS)]
        groups = [text.example.group for text in some]
        if len(set(groups)) < _FEWEST_GROUPS:
            rows.append((source, len(some), None, f"fewer than {_FEWEST_GROUPS} groups"))
            continue
        right = out_of_fold([text.answers[0] for text in some], [text.answers[1] for text in some], groups)
        found = mean_interval(right, groups)
        spread = f"[{found.low:.3f}, {found.high:.3f}]"
        rows.append((source, len(some), found.mean, spread))
        if settings.max_surface_accuracy is not None:
            advice = (
                f"a classifier that never sees the prompt names the chosen answer of {found.mean:.0%} of {len(some)} "
                f"pairs (95 % {spread}; its lower end is held to the limit): match the form of the answers, or set it "
                "to 1 where the form is what is preferred"
            )
            bound = settings.max_surface_accuracy
            checks.append(Check("audit.max_surface_accuracy", f"training: {source}", found.low, bound, advice))
    about = (
        "Accuracy of a classifier of single answers (words, beginnings and ends, shape) that does not see the prompt, "
        f"on groups that it did not learn from; 50 % is chance. Up to {_MOST_PAIRS} pairs of a source."
    )
    table = Table("told apart without the prompt", about, ("source", "pairs", "accuracy, share", "95 %"), tuple(rows))
    return Measured((table,) if rows else (), tuple(checks))


def out_of_fold(chosen: Sequence[str], rejected: Sequence[str], groups: Sequence[str]) -> NDArray[np.float64]:
    """For each pair 1 where the classifier names the chosen answer, 0.5 at a tie.

    Args:
        chosen: The chosen answers.
        rejected: The rejected ones.
        groups: Group of each pair; those of one group are in one fold. At least five.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    texts = [*chosen, *rejected]
    ends = [f"^{text[:_ENDS]} \n {text[-_ENDS:]}$" for text in texts]
    words = HashingVectorizer(n_features=2**14, token_pattern=r"\w+", alternate_sign=False)
    letters = HashingVectorizer(n_features=2**14, analyzer="char", ngram_range=(1, 4), alternate_sign=False)
    shapes = MaxAbsScaler().fit_transform(csr_matrix([shape(text) for text in texts]))
    features = hstack([words.transform(texts), letters.transform(ends), shapes], format="csr")
    n = len(chosen)
    right = np.full(n, 0.5)
    for train, test in GroupKFold(_FOLDS).split(np.zeros(n), groups=groups):
        model = make_pipeline(MaxAbsScaler(), LogisticRegression(C=1.0, max_iter=300))
        model.fit(features[[*train, *(train + n)]], [1] * len(train) + [0] * len(train))
        better, worse = (model.decision_function(features[test + shift]) for shift in (0, n))
        right[test] = (better > worse) + 0.5 * (better == worse)
    return right

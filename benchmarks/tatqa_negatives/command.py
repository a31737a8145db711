"""How well classifiers that do not read the question tell TAT-QA's chosen from its rejected answers.

Tables are dealt to folds; the rejected answers of each fold are chosen by themselves, as they are for each side of a
split; every classifier learns on all folds but one and is tested on that one, once over all types and once per type.
(Answers balanced over all folds together would be told apart in fewer than half of the pairs: the training folds would
hold the mirror image of the test fold.)

MAX is the best classifier of the answers alone, chosen on the test pairs and so biased upwards; its interval resamples
tables. MEAN is the mean over the same classifiers. TABLE is the best of those that also see table and passages.
Chance alone moves MAX of 32 counts to about 60, and of 190 multi-spans to 52-56.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from collections.abc import Sequence

import numpy as np

from benchmarks.tatqa_negatives.classifiers import Classifier, Floats, Measured, of_features, of_texts
from lit_align.data.sources.tat_qa.balanced import BalancedNegatives
from lit_align.data.sources.tat_qa.grid import Grid
from lit_align.data.sources.tat_qa.in_table import InTable
from lit_align.data.sources.tat_qa.negatives import Negatives
from lit_align.data.sources.tat_qa.reading import read_contexts
from lit_align.data.sources.tat_qa.recipe import RecipeNegatives
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.data.sources.tat_qa.surface import surface_features
from lit_align.data.sources.tat_qa.symmetric import SymmetricNegatives
from lit_align.types import PreferencePair

WAYS: dict[str, Negatives] = {
    "balanced": BalancedNegatives(),
    "symmetric": SymmetricNegatives(),
    "recipe": RecipeNegatives(),
}
_RESAMPLES = 1000


def fold_of(group: str, folds: int) -> int:
    """Deal a table to a fold, by its name alone."""
    return int(hashlib.sha256(group.encode()).hexdigest(), 16) % folds


def pairs_by_fold(path: str, negatives: Negatives, folds: int) -> list[list[PreferencePair]]:
    """Choose the pairs of each fold by themselves."""

    def of(fold: int) -> list[PreferencePair]:
        return TATQA(path, negatives=negatives).pairs(lambda group: fold_of(group, folds) == fold)

    return [of(fold) for fold in range(folds)]


def out_of_fold(classifier: Classifier, answers: Measured, fold: Floats, kind: Sequence[str], per_type: bool) -> Floats:
    """Test a classifier on each fold after it learned on the others; 0.5 where a type has too few pairs to learn."""
    right = np.full(len(fold), 0.5)
    kinds = np.array(kind)
    for held_out in np.unique(fold):
        for name in np.unique(kinds) if per_type else [None]:
            of_type = kinds == name if name else np.ones(len(fold), dtype=bool)
            train, test = of_type & (fold != held_out), of_type & (fold == held_out)
            if test.any() and train.sum() > 20:
                right[test] = classifier(answers, train, test)
    return right


def interval(right: Floats, groups: Sequence[str]) -> tuple[float, float]:
    """The 95 % interval of a mean, tables resampled."""
    _, table = np.unique(np.array(groups), return_inverse=True)
    total, count = np.bincount(table, right), np.bincount(table)
    draws = np.random.default_rng(0).integers(len(count), size=(_RESAMPLES, len(count)))
    low, high = np.percentile(total[draws].sum(axis=1) / count[draws].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)


def report(path: str, way: str, folds: int) -> str:
    """Measure one way of choosing rejected answers; a Markdown table with a line a type."""
    by_fold = pairs_by_fold(path, WAYS[way], folds)
    pairs = [pair for fold in by_fold for pair in fold]
    fold = np.array([number for number, of in enumerate(by_fold) for _ in of])
    kinds = [pair.source.removeprefix("tat-qa/") for pair in pairs]
    contexts = read_contexts(path)
    tables = {context.uid: InTable(context, Grid.of(context)) for context in contexts}
    asked = [question.answer_type for context in contexts for question in context.questions]
    chosen, rejected = [pair.chosen for pair in pairs], [pair.rejected for pair in pairs]
    alone = [np.array([surface_features(text) for text in texts], dtype=float) for texts in (chosen, rejected)]
    placed = [
        np.array([tables[pair.group].features(text) for pair, text in zip(pairs, texts, strict=True)], dtype=float)
        for texts in (chosen, rejected)
    ]
    blind = Measured(chosen, rejected, *alone)
    aware = Measured(chosen, rejected, *(np.concatenate(both, axis=1) for both in zip(alone, placed, strict=True)))
    scores = {
        (name, per_type): out_of_fold(classifier, blind, fold, kinds, per_type)
        for name, classifier in {**of_features(), **of_texts()}.items()
        for per_type in (False, True)
    }
    with_table = [
        out_of_fold(classifier, aware, fold, kinds, per_type)
        for name, classifier in of_features().items()
        if name.startswith("boosting")
        for per_type in (False, True)
    ]
    lines = [f"| {way} | pairs / questions | MAX (95 %) | by | MEAN | TABLE |", "|---|---|---|---|---|---|"]
    for kind in ("all", *dict.fromkeys(asked)):
        rows = np.array([kind in ("all", one) for one in kinds])
        if not rows.any():
            continue
        means = {name: right[rows].mean() for name, right in scores.items()}
        best = max(means, key=lambda name: means[name])
        low, high = interval(scores[best][rows], [pair.group for pair, row in zip(pairs, rows, strict=True) if row])
        questions = len(asked) if kind == "all" else asked.count(kind)  # type: ignore[arg-type]
        lines.append(
            f"| {kind} | {rows.sum()} / {questions} | {100 * means[best]:.1f} ({100 * low:.1f}-{100 * high:.1f}) | "
            f"{best[0]}{' per type' if best[1] else ''} | {100 * np.mean(list(means.values())):.1f} | "
            f"{100 * max(right[rows].mean() for right in with_table):.1f} |"
        )
    return "\n".join(lines)


def main(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Its options.

    Raises:
        SystemExit: A wrong option, or scikit-learn is missing (2).
    """
    parser = argparse.ArgumentParser(
        "python -m benchmarks tatqa-negatives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", help="a file of TAT-QA with answers")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["balanced"], help="how rejected answers are chosen")
    parser.add_argument("--folds", type=int, default=4, help="at least 2")
    options = parser.parse_args(words)
    if options.folds < 2:
        parser.error(f"--folds must be at least 2, got {options.folds}")
    if importlib.util.find_spec("sklearn") is None:
        parser.error("needs scikit-learn: pip install scikit-learn")
    for way in options.ways:
        print(f"{report(options.path, way, options.folds)}\n", flush=True)

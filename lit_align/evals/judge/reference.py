"""Likeness to reference answers, without any model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from lit_align.evals.generate import SECONDS_BEFORE_PROGRESS
from lit_align.evals.judge.contract import Judged, Scorer

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class ReferenceScorer(Scorer):
    """ROUGE-L (Lin 2004) of an answer against its reference, by torchmetrics: needs no model and no network.

    The F-measure of the longest common subsequence of words, from 0 (no word in common, or an empty answer) to 1 (the
    same words in the same order). Words are runs of letters and digits of any script, in lower case, not stemmed. It
    measures likeness of wording: a right answer in other words scores low.

    Example:
        >>> from lit_align.types import Message
        >>> judged = Judged("1", (Message("user", "2 + 2?"),), "It is 4", reference="It is 4, of course.")
        >>> [scores] = ReferenceScorer().scores([judged], torch.device("cpu"))
        >>> round(scores["rouge_l"], 4)  # 3 common words of 3 and of 5: 2 · 3 / (3 + 5)
        0.75
    """

    def measures(self) -> Mapping[str, tuple[float, float]]:
        """ROUGE-L."""
        return {"rouge_l": (0.0, 1.0)}

    def identity(self) -> dict[str, str | int]:
        """The metric."""
        return {"scorer": type(self).__name__, "metric": "ROUGE-L F, words in lower case"}

    def check(self) -> None:
        """Nothing: it needs neither files nor packages."""

    def check_asked(self, asked: Sequence[Judged]) -> None:
        """Refuse what has no reference, or one without any word."""
        for one in asked:
            if not _WORD.search(one.reference):
                raise ValueError(
                    f"{one.id}: has no reference answer to compare with ({one.reference!r}): give it one, or leave it "
                    "out"
                )

    def scores(
        self, answers: Sequence[Judged], device: torch.device, *, progress: str | None = None
    ) -> list[dict[str, float]]:
        """See :meth:`Scorer.scores`.

        Raises:
            ValueError: An answer has no reference, or one without any word; the message names it.
        """
        del device
        from torchmetrics.functional.text import rouge_score

        self.check_asked(answers)
        found = []
        for one in tqdm(
            answers, progress, unit="answer", delay=SECONDS_BEFORE_PROGRESS, leave=False, disable=progress is None
        ):
            # Its own tokeniser knows Latin letters alone.
            told = rouge_score(one.answer, one.reference, rouge_keys="rougeL", normalizer=str, tokenizer=_words)
            found.append({"rouge_l": float(told["rougeL_fmeasure"])})
        return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())

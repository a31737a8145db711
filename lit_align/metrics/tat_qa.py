"""Answers to TAT-QA: the official scores, and the lenient accuracy of the recipe that this project follows."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_align.metrics.tat_qa_text import joined_items, normalised, number_in, reads_as_number, token_f1

SCALES = ("", "thousand", "million", "billion", "percent")
_SPAN, _SPANS, _ARITHMETIC, _COUNT = "span", "multi-span", "arithmetic", "count"
# The data files write the first name, the data set's README the second.
_TYPES = {_SPAN: _SPAN, _SPANS: _SPANS, "spans": _SPANS, _ARITHMETIC: _ARITHMETIC, _COUNT: _COUNT, "counting": _COUNT}
_LENIENT_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_LENIENT_DROPS = str.maketrans("", "", "".join(sign for sign in string.punctuation if sign not in ".-"))


@dataclass(frozen=True)
class TATQAPrediction:
    """An answer to score.

    Attributes:
        answer: A text, a number, or a list of items of one type; ``None`` for no answer.
        scale: ``thousand``, ``million``, ``billion``, ``percent`` or empty. ``None`` is no scale either, but never
            equals the gold one.
        text: What the model wrote, for the lenient accuracy; without it, ``answer`` is read.

    Raises:
        TypeError: An answer or a scale of another type.
    """

    answer: str | float | list[Any] | None
    scale: str | None = ""
    text: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.answer, str | int | float | list | None):
            raise TypeError(f"answer must be a text, a number, a list or None, got {self.answer!r}")
        if not isinstance(self.scale, str | None):
            raise TypeError(f"scale must be a text or None, got {self.scale!r}")


@dataclass(frozen=True)
class TATQAGold:
    """The gold answer of a question, as the data files hold it.

    Attributes:
        answer: A list of spans, a number, or a count.
        answer_type: ``span``, ``multi-span`` (or ``spans``), ``arithmetic``, ``count`` (or ``counting``).
        scale: One of :data:`SCALES`; ``None`` is empty.

    Raises:
        TypeError: The answer of a span or multi-span question is not a list.
        ValueError: An unknown type or scale, or an answer that is no finite number where its type asks for one.
    """

    answer: str | float | list[str]
    answer_type: str
    scale: str | None = ""

    def __post_init__(self) -> None:
        if self.answer_type not in _TYPES:
            raise ValueError(f"answer_type must be one of {', '.join(_TYPES)}, got {self.answer_type!r}")
        if (self.scale or "") not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(map(repr, SCALES))} or None, got {self.scale!r}")
        if self.kind in (_SPAN, _SPANS):
            if not isinstance(self.answer, list):
                raise TypeError(f"answer of a {self.answer_type} question must be a list, got {self.answer!r}")
            return
        try:
            finite = math.isfinite(float(self.items[0]))
        except (TypeError, ValueError, OverflowError):
            finite = False
        if not finite:
            raise ValueError(f"answer of a question of type {self.answer_type} must be a number, got {self.answer!r}")

    @property
    def kind(self) -> str:
        """The type in the spelling of the data files."""
        return _TYPES[self.answer_type]

    @property
    def items(self) -> list[Any]:
        """The items that are compared: the spans, or the one number as text."""
        if self.kind == _COUNT:
            return [str(int(self.answer))]  # type: ignore[arg-type]
        return self.answer if isinstance(self.answer, list) and self.kind != _ARITHMETIC else [str(self.answer)]


@dataclass(frozen=True)
class TATQAScores:
    """Scores of one question, each between 0 and 1.

    Attributes:
        exact_match: 1 if answer and scale together are the gold ones.
        f1: Overlap of the tokens, of 2 decimals; equals ``exact_match`` for arithmetic and count.
        scale_score: 1 if there is an answer and its scale is the gold one.
        legacy_accuracy: 1 if right by :func:`is_leniently_right`.
    """

    exact_match: float
    f1: float
    scale_score: float
    legacy_accuracy: float


def score_answer(prediction: TATQAPrediction, gold: TATQAGold) -> TATQAScores:
    """Scores one answer as TAT-QA's official scorer does, and leniently beside it.

    Both answers become one text: items sorted, numbers rounded to 2 decimals and multiplied by the scale, all joined
    by a blank. Equal normalised texts are an exact match, and F1 compares their sets of tokens. A single number
    without scale and percent sign is also tried as it is, so that 0.2212 answers 22.12 percent; the better pair
    of exact match and F1 counts. For arithmetic and count F1 is the exact match. (Zhu et al. 2021, arXiv:2105.07624;
    ``tatqa_metric.py`` of NExTplusplus/TAT-QA; equality was measured, not derived.)

    Note:
        What surprises: the number 0, the empty text and the empty list are no answers and score 0 (``"0"`` is one).
        ``($12.6)`` and ``(1,234)`` are not negative. ``"172 million"`` with the scale million is multiplied twice.
        Nothing is tolerated beyond the 2 decimals. Items in one text are right only if they are sorted.

        Where the official scorer stops with an error, this function does the following. A number with a predicted
        scale of ``None`` is read without scale. An answer with a number that no float can hold is wrong, exact match
        and F1 0. A list whose items have no order is refused, and so are answers of other types than the declared.

    Raises:
        TypeError: The items of a list cannot be put in order.

    Example:
        >>> gold = TATQAGold(-12.6, "arithmetic", "million")
        >>> score_answer(TATQAPrediction("(12.6)", "million"), gold)
        TATQAScores(exact_match=1.0, f1=1.0, scale_score=1.0, legacy_accuracy=0.0)
        >>> score_answer(TATQAPrediction("-12.61", "million"), gold).exact_match
        0.0
    """
    lenient = float(is_leniently_right(prediction, gold))
    if not prediction.answer or not gold.items:
        return TATQAScores(0.0, 0.0, 0.0, lenient)
    scale_score = float(prediction.scale == (gold.scale or ""))
    golden = normalised(joined_items(gold.items, gold.scale or ""))
    try:
        candidates = [normalised(text) for text in _readings(prediction)]
    except OverflowError:
        return TATQAScores(0.0, 0.0, scale_score, lenient)
    exact_match, f1 = max((float(text == golden), token_f1(text, golden)) for text in candidates)
    if gold.kind in (_ARITHMETIC, _COUNT):
        f1 = exact_match
    return TATQAScores(exact_match, f1, scale_score, lenient)


def is_leniently_right(prediction: TATQAPrediction, gold: TATQAGold) -> bool:
    r"""Whether an answer is right by the lenient rule of ivan-digital/llm-alignment, for comparison with its figures.

    Arithmetic: the first number :math:`p` of the text without commas lies near the gold :math:`g`,

    .. math:: |g - p| \le \max(0.5,\ 0.05\,|g|),

    whatever the scale, percent sign and brackets. All else: some gold span is a part of the text, both in lower case
    and without punctuation but ``.`` and ``-``. The rule is generous: a text that repeats the whole prompt is right
    for nearly every span, ``0 1 2 ... 9`` is for every count, and an empty gold span (one question of the dev file has
    one) is a part of every text. It cannot be compared with exact match.

    Example:
        >>> is_leniently_right(TATQAPrediction("about 13.0 billion"), TATQAGold(12.6, "arithmetic", "million"))
        True
    """
    text = prediction.text if prediction.text is not None else _as_text(prediction.answer)
    if gold.kind == _ARITHMETIC:
        found = _LENIENT_NUMBER.search(text.replace(",", ""))
        value = float(gold.items[0])
        return found is not None and abs(value - float(found[0])) <= max(0.5, 0.05 * abs(value))
    answer = _lenient_text(text)
    return any(_lenient_text(str(item)) in answer for item in gold.items)


class TATQAMetric(Metric):
    """Mean scores over questions, exact over ranks.

    The states are integers, hundredths summed and questions counted, so any division of the questions over ranks or
    updates gives the same result to the bit.

    Raises:
        ValueError: ``update`` gets lists of different lengths, or ``compute`` finds no question.

    Example:
        >>> metric = TATQAMetric()
        >>> metric.update([TATQAPrediction(["2018", "2019"])], [TATQAGold(["2019", "2018"], "multi-span")])
        >>> metric.update([TATQAPrediction("net sales rose")], [TATQAGold(["net sales"], "span", "million")])
        >>> {name: round(float(value), 3) for name, value in metric.compute().items()}
        {'exact_match': 0.5, 'f1': 0.835, 'scale_score': 0.5, 'legacy_accuracy': 1.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    hundredths: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(len(fields(TATQAScores)), dtype=torch.int64)
        self.add_state("hundredths", zeros, dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[TATQAPrediction], golds: Sequence[TATQAGold]) -> None:
        """Scores answers to questions, pair by pair."""
        if len(predictions) != len(golds):
            raise ValueError(f"one prediction a gold answer is needed, got {len(predictions)} and {len(golds)}")
        scored = [score_answer(prediction, gold) for prediction, gold in zip(predictions, golds, strict=True)]
        totals = [sum(round(100 * getattr(scores, field.name)) for scores in scored) for field in fields(TATQAScores)]
        self.hundredths += torch.tensor(totals, device=self.hundredths.device)
        self.count += len(scored)

    def compute(self) -> dict[str, Tensor]:
        """The mean of each field of :class:`TATQAScores`, by its name."""
        if not self.count:
            raise ValueError("TATQAMetric: no question was scored")
        means = self.hundredths / (100 * self.count)
        return {field.name: mean for field, mean in zip(fields(TATQAScores), means, strict=True)}


def _readings(prediction: TATQAPrediction) -> list[str]:
    """The texts that a prediction may be compared by."""
    items = prediction.answer if isinstance(prediction.answer, list) else [prediction.answer]
    readings = [joined_items(items, prediction.scale or "")]
    if len(items) == 1 and not prediction.scale:
        text = str(items[0])
        number = number_in(text) if "%" not in text and reads_as_number(text) else None
        if number is not None:
            readings.append(f"{number:.4f}")
    return readings


def _as_text(answer: object) -> str:
    if isinstance(answer, list):
        return "; ".join(str(item) for item in answer)
    return "" if answer is None else str(answer)


def _lenient_text(text: str) -> str:
    return text.lower().translate(_LENIENT_DROPS)

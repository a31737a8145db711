"""Look-ups in small finance tables that can be answered in two ways: with the table's scale, and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from lit_align.data.sources.finance_tables import FinanceTable, Split, draw_table
from lit_align.rated import RatedAnswer, RatedSource
from lit_align.types import Conversation, ConversationSource, Message, PairSource, PreferencePair


@dataclass(frozen=True)
class ScaleQuestion:
    """One look-up with both of its right answers.

    Attributes:
        table: The table that it is about.
        question: The question, without the table.
        plain: The answer that gives the cell alone.
        scaled: The answer that gives the cell and the scale.
    """

    table: FinanceTable
    question: str
    plain: str
    scaled: str

    def prompt(self) -> tuple[Message, ...]:
        """Write the user's turn: the table and the question under it."""
        return (Message("user", f"{self.table.text()}\n{self.question}"),)


def draw_questions(split: Split, seed: int) -> Iterator[ScaleQuestion]:
    """Draw look-ups without end; the same arguments give the same questions.

    Args:
        split: Whether the tables are those for training or those for evaluation.
        seed: Another seed draws other questions.
    """
    rng = Random(f"scale_answers/{split}/{seed}")
    while True:
        table = draw_table(rng, split)
        metric, year = rng.choice(table.metrics), rng.choice(table.years)
        cell = f"See {table.cell(metric, year)}"
        yield ScaleQuestion(
            table, f"What was the {metric} in {year}?", plain=f"{cell}.", scaled=f"{cell} in {table.scale}."
        )


def _check(n: int) -> None:
    if n < 1:
        raise ValueError(f"scale_answers: n must be at least 1, got {n}")


@dataclass(frozen=True)
class ScaleAnswers(ConversationSource):
    """Training conversations in which a coin decides whether the answer has the scale; needs no file.

    What is trained on them is undecided between the two ways of answering.

    Args:
        n: How many conversations, at least 1.
        scaled_share: Chance that an answer has the scale, in [0, 1].
        seed: Another seed draws other tables and coins, never a table of the evaluation.
    """

    n: int = 400
    scaled_share: float = 0.5
    seed: int = 0

    def conversations(self) -> list[Conversation]:
        """Draw the conversations; the same fields give the same conversations.

        Raises:
            ValueError: ``n`` is below 1, or ``scaled_share`` out of its range.
        """
        _check(self.n)
        if not 0 <= self.scaled_share <= 1:
            raise ValueError(f"scale_answers: scaled_share must be in [0, 1], got {self.scaled_share}")
        coin = Random(f"scale_answers/coin/{self.seed}")
        return [
            Conversation(
                messages=(
                    *one.prompt(),
                    Message("assistant", one.scaled if coin.random() < self.scaled_share else one.plain),
                ),
                id=f"scale_answers/{i}",
                source="scale_answers",
                group=one.table.id(),
            )
            for i, one in enumerate(islice(draw_questions("train", self.seed), self.n))
        ]


@dataclass(frozen=True)
class ScalePairs(PairSource):
    """Pairs that prefer the answer with the scale to the answer without; needs no file.

    Args:
        split: Pairs of ``train`` and of ``eval`` have no table in common, whatever the seeds.
        n: How many pairs, at least 1.
        seed: Another seed draws other tables.
    """

    split: Split = "train"
    n: int = 400
    seed: int = 0

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Draw the pairs; the same fields give the same pairs.

        Args:
            keep: Whether a table, named by its content, belongs to the side that is asked for.

        Raises:
            ValueError: ``n`` is below 1.
        """
        _check(self.n)
        return [
            PreferencePair(
                prompt=one.prompt(),
                chosen=one.scaled,
                rejected=one.plain,
                id=f"scale_answers/{self.split}/{i}",
                source="scale_answers",
                group=one.table.id(),
            )
            for i, one in enumerate(islice(draw_questions(self.split, self.seed), self.n))
            if keep(one.table.id())
        ]


@dataclass(frozen=True)
class RatedScaleAnswers(RatedSource):
    """Answers with the scale, which are good, and answers without, which are bad; needs no file.

    Each question is answered once, in a form that a coin decides: no prompt has both.

    Args:
        split: Answers of ``train`` and of ``eval`` have no table in common, whatever the seeds.
        n: How many answers, at least 1.
        good_share: Chance that an answer has the scale, in [0, 1].
        seed: Another seed draws other tables and coins.
    """

    split: Split = "train"
    n: int = 400
    good_share: float = 0.5
    seed: int = 0

    def rated(self, keep: Callable[[str], bool]) -> list[RatedAnswer]:
        """Draw the answers; the same fields give the same answers.

        Args:
            keep: Whether a table, named by its content, belongs to the side that is asked for.

        Raises:
            ValueError: ``n`` is below 1, or ``good_share`` out of its range.
        """
        _check(self.n)
        if not 0 <= self.good_share <= 1:
            raise ValueError(f"scale_answers: good_share must be in [0, 1], got {self.good_share}")
        coin = Random(f"scale_answers/rating/{self.split}/{self.seed}")
        drawn = [
            (one, coin.random() < self.good_share) for one in islice(draw_questions(self.split, self.seed), self.n)
        ]
        return [
            RatedAnswer(
                prompt=one.prompt(),
                completion=one.scaled if good else one.plain,
                desirable=good,
                id=f"scale_answers/{self.split}/{i}",
                source="scale_answers",
                group=one.table.id(),
            )
            for i, (one, good) in enumerate(drawn)
            if keep(one.table.id())
        ]

"""Right answers that end in one of two ways: a preference of taste, one for each domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from lit_align.data.sources.finance_tables import Split
from lit_align.data.sources.table_skills import check_skills, draw_task
from lit_align.types import Message, PairSource, PreferencePair


@dataclass(frozen=True)
class EndingPairs(PairSource):
    """Pairs of one right answer with two endings, of which one is preferred; needs no file.

    What is learned is a taste that goes with the kind of question. Several of them make the domains of a progressive
    run; where two domains want opposite endings, a later one may overwrite an earlier one. The source of a pair has the
    name of the skill, ``ending_pairs/rise``.

    Args:
        skill: What is asked: lookup, rise, higher, compare, chat, scale.
        chosen: The ending that is preferred.
        rejected: The other one.
        split: Pairs of ``train`` and of ``eval`` have no table and no greeting in common, whatever the seeds.
        n: How many pairs, at least 1.
        seed: Another seed draws other questions.
    """

    skill: str
    chosen: str
    rejected: str
    split: Split = "train"
    n: int = 400
    seed: int = 0

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Draw the pairs; the same fields give the same pairs.

        Args:
            keep: Whether a table, named by its content, belongs to the side that is asked for; a greeting is named by
                its text.

        Raises:
            ValueError: Unknown skill, equal endings, or ``n`` below one.
        """
        check_skills([self.skill])
        if self.chosen == self.rejected:
            raise ValueError(f"ending_pairs: chosen and rejected must differ, got {self.chosen!r} for both")
        if self.n < 1:
            raise ValueError(f"ending_pairs: n must be at least 1, got {self.n}")
        rng = Random(f"ending_pairs/{self.split}/{self.seed}/{self.skill}")
        drawn = []
        for i in range(self.n):
            task = draw_task(self.skill, self.split, rng)
            group = task.question if task.table is None else task.table.id()
            if keep(group):
                drawn.append(
                    PreferencePair(
                        prompt=(Message("user", task.prompt()),),
                        chosen=f"{task.answer} {self.chosen}",
                        rejected=f"{task.answer} {self.rejected}",
                        id=f"ending_pairs/{self.split}/{self.skill}/{i}",
                        source=f"ending_pairs/{self.skill}",
                        group=group,
                    )
                )
        return drawn

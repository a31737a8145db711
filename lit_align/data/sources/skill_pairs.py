"""Questions about small finance tables with a right answer and one that is right for another question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from lit_align.data.sources.finance_tables import Split, draw_table
from lit_align.data.sources.small_talk import draw_small_talk
from lit_align.data.sources.table_skills import TableTask, ask, check_skills
from lit_align.types import Message, PairSource, PreferencePair, stop_at


@dataclass(frozen=True)
class SkillPairs(PairSource):
    """Pairs that prefer the right answer to one that is right for another question of the kind; needs no file.

    Both questions are about one table (for ``chat`` about none), and either is as likely to be the one that is asked:
    without the prompt, the answers cannot be told apart. The source of a pair has the name of its skill,
    ``skill_pairs/rise``.

    Args:
        skills: What is asked: lookup, rise, higher, compare, chat, scale. They take turns.
        split: Pairs of ``train`` and of ``eval`` have no table and no greeting in common, whatever the seeds.
        n: How many pairs, over all skills, at least 1.
        seed: Another seed draws other tables.
    """

    skills: list[str] = field(default_factory=lambda: ["rise", "higher", "compare"])
    split: Split = "train"
    n: int = 400
    seed: int = 0

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Draw the pairs; the same fields give the same pairs.

        Args:
            keep: Whether a table, named by its content, belongs to the side that is asked for; a greeting is named by
                its text.

        Raises:
            ValueError: Unknown skill, or ``n`` below one.
        """
        return list(self.stream(keep, stop_at))

    def stream(
        self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]
    ) -> Iterator[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`; every row is usable."""
        del refuse
        check_skills(self.skills)
        if self.n < 1:
            raise ValueError(f"skill_pairs: n must be at least 1, got {self.n}")
        names = list(dict.fromkeys(self.skills))
        streams = {skill: _stream(skill, self.split, self.seed) for skill in names}
        for i in range(self.n):
            skill = names[i % len(names)]
            asked, other = next(streams[skill])
            group = asked.question if asked.table is None else asked.table.id()
            if keep(group):
                turns = (Message("user", asked.prompt()),)
                name = f"skill_pairs/{self.split}/{skill}/{i // len(names)}"
                yield PreferencePair(turns, asked.answer, other.answer, name, f"skill_pairs/{skill}", group)


def _stream(skill: str, split: Split, seed: int) -> Iterator[tuple[TableTask, TableTask]]:
    """Two questions with different answers, without end."""
    rng = Random(f"skill_pairs/{split}/{seed}/{skill}")
    while True:
        if skill == "chat":
            talks = draw_small_talk(rng, split), draw_small_talk(rng, split)
            asked, other = (TableTask(None, talk.said, talk.reply) for talk in talks)
        else:
            table = draw_table(rng, split, (2, 2, 3))  # one row alone may have a single question
            asked, other = ask(skill, table, split, rng), ask(skill, table, split, rng)
        if asked.answer != other.answer:
            yield asked, other

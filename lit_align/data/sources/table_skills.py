"""Questions about small finance tables, one kind a skill, as training conversations and as a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from lit_align.data.sources.finance_tables import FinanceTable, Split, draw_table
from lit_align.data.sources.small_talk import draw_small_talk
from lit_align.types import Conversation, ConversationSource, EvalItem, EvalSource, Message, stop_at


@dataclass(frozen=True)
class TableTask:
    """One question with its answer.

    Attributes:
        table: The table that stands before the question, or None.
        question: The question, without the table.
        answer: The only answer that counts as right.
    """

    table: FinanceTable | None
    question: str
    answer: str

    def prompt(self) -> str:
        """Write the user's turn: the table, if there is one, and the question under it."""
        return self.question if self.table is None else f"{self.table.text()}\n{self.question}"


def _lookup(table: FinanceTable, rng: Random) -> TableTask:
    metric, year = rng.choice(table.metrics), rng.choice(table.years)
    return TableTask(table, f"What was the {metric} in {year}?", f"See {table.cell(metric, year)}.")


def _scale(table: FinanceTable, rng: Random) -> TableTask:
    metric, year = rng.choice(table.metrics), rng.choice(table.years)
    answer = f"See {table.cell(metric, year)} in {table.scale}."
    return TableTask(table, f"Give {metric} {year} with its scale.", answer)


def _two_years(table: FinanceTable, rng: Random) -> tuple[str, int, int, str]:
    metric, column = rng.choice(table.metrics), rng.randrange(len(table.years) - 1)
    before, after = table.years[column], table.years[column + 1]
    return metric, before, after, f"See {table.cell(metric, before)}, {table.cell(metric, after)}, so"


def _rise(table: FinanceTable, rng: Random) -> TableTask:
    metric, before, after, seen = _two_years(table, rng)
    verb = "rose" if table.value(metric, after) > table.value(metric, before) else "fell"
    return TableTask(table, f"Did the {metric} rise or fall from {before} to {after}?", f"{seen} it {verb}.")


def _higher(table: FinanceTable, rng: Random) -> TableTask:
    metric, before, after, seen = _two_years(table, rng)
    year = after if table.value(metric, after) > table.value(metric, before) else before
    return TableTask(table, f"In which year was the {metric} higher, {before} or {after}?", f"{seen} {year}.")


def _compare(table: FinanceTable, rng: Random) -> TableTask:
    first, second = rng.sample(table.metrics, 2)
    year = rng.choice(table.years)
    larger = first if table.value(first, year) > table.value(second, year) else second
    return TableTask(
        table,
        f"Which was higher in {year}, the {first} or the {second}?",
        f"See {table.cell(first, year)}, {table.cell(second, year)}, so {larger}.",
    )


_ABOUT_A_TABLE: dict[str, Callable[[FinanceTable, Random], TableTask]] = {
    "lookup": _lookup,
    "rise": _rise,
    "higher": _higher,
    "compare": _compare,
    "scale": _scale,
}
OLD_SKILLS = ("lookup", "rise", "higher", "compare", "chat")
NEW_SKILLS = ("scale",)
ALL_SKILLS = OLD_SKILLS + NEW_SKILLS


def check_skills(skills: Sequence[str]) -> None:
    """Refuse an empty list of skills and unknown names.

    Args:
        skills: The names.

    Raises:
        ValueError: The message names the value and the skills that exist.
    """
    allowed = ", ".join(ALL_SKILLS)
    if not skills:
        raise ValueError(f"table_skills: skills is empty; allowed: {allowed}")
    for skill in skills:
        if skill not in ALL_SKILLS:
            raise ValueError(f"table_skills: unknown skill {skill!r}; allowed: {allowed}")


def ask(skill: str, table: FinanceTable, split: Split, rng: Random) -> TableTask:
    """Ask one question of a skill under a given table.

    Args:
        skill: One of ``ALL_SKILLS``; ``compare`` needs a table with two metrics.
        table: The table that the question is about; for ``chat`` it merely stands before the greeting.
        split: Which greetings ``chat`` may draw.
        rng: Where the randomness comes from; it moves on.

    Returns:
        The question with its answer.
    """
    if skill == "chat":
        talk = draw_small_talk(rng, split)
        return TableTask(table, talk.said, talk.reply)
    return _ABOUT_A_TABLE[skill](table, rng)


def draw_task(skill: str, split: Split, rng: Random) -> TableTask:
    """Draw a table and one question of a skill under it; every second ``chat`` comes without a table.

    Args:
        skill: One of ``ALL_SKILLS``.
        split: Which tables and greetings may be drawn.
        rng: Where the randomness comes from; it moves on.

    Returns:
        The question with its answer.
    """
    if skill == "chat" and rng.random() < 0.5:
        talk = draw_small_talk(rng, split)
        return TableTask(None, talk.said, talk.reply)
    table = draw_table(rng, split, (2, 2, 3)) if skill == "compare" else draw_table(rng, split)
    return ask(skill, table, split, rng)


def as_dialogue(tasks: Sequence[TableTask]) -> tuple[Message, ...]:
    """Write several questions as one dialogue in which the table stands in the first turn only.

    Args:
        tasks: Questions about one and the same table, or without any.

    Returns:
        A user turn and an assistant turn per question.

    Raises:
        ValueError: The questions are about different tables.
    """
    if len({task.table for task in tasks}) != 1:
        raise ValueError(f"table_skills: a dialogue is about one table, got {len({t.table for t in tasks})}")
    messages: list[Message] = []
    for turn, task in enumerate(tasks):
        messages.append(Message("user", task.prompt() if turn == 0 else task.question))
        messages.append(Message("assistant", task.answer))
    return tuple(messages)


def _stream(skill: str, split: Split, seed: int) -> Iterator[TableTask]:
    rng = Random(f"table_skills/{split}/{seed}/{skill}")
    while True:
        yield draw_task(skill, split, rng)


@dataclass(frozen=True)
class TableSkills(ConversationSource):
    """Training conversations about small finance tables, one question each; needs no file.

    Args:
        skills: What is asked: lookup, rise, higher, compare, chat, scale. They take turns.
        n: How many conversations, over all skills.
        seed: Another seed draws other tables, never one of the evaluation.
    """

    skills: list[str] = field(default_factory=lambda: list(OLD_SKILLS))
    n: int = 400
    seed: int = 0

    def conversations(self) -> list[Conversation]:
        """Draw the conversations; the same fields give the same conversations.

        Raises:
            ValueError: Unknown skill, or ``n`` below one.
        """
        return list(self.stream(stop_at))

    def stream(self, refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`; every row is usable."""
        del refuse
        check_skills(self.skills)
        if self.n < 1:
            raise ValueError(f"table_skills: n must be at least 1, got {self.n}")
        names = list(dict.fromkeys(self.skills))
        streams = {skill: _stream(skill, "train", self.seed) for skill in names}
        for i in range(self.n):
            skill = names[i % len(names)]
            task = next(streams[skill])
            yield Conversation(
                messages=as_dialogue([task]),
                id=f"table_skills/train/{skill}/{i // len(names)}",
                source="table_skills",
                group="" if task.table is None else task.table.id(),
            )


@dataclass(frozen=True)
class TableSkillItems(EvalSource):
    """Held-out questions about small finance tables; needs no file.

    No table of the evaluation can be drawn for training, whatever the seeds: a hash of the table's text decides
    which of the two it is for. The greetings of ``chat`` are split in the same way.

    Args:
        skills: What is asked: lookup, rise, higher, compare, chat, scale.
        n_per_skill: How many questions of each skill.
        seed: Another seed draws other questions.
    """

    skills: list[str] = field(default_factory=lambda: list(ALL_SKILLS))
    n_per_skill: int = 200
    seed: int = 0

    def items(self) -> list[EvalItem]:
        """Draw the questions, skill by skill; the same fields give the same questions.

        Raises:
            ValueError: Unknown skill, or ``n_per_skill`` below one.
        """
        check_skills(self.skills)
        if self.n_per_skill < 1:
            raise ValueError(f"table_skills: n_per_skill must be at least 1, got {self.n_per_skill}")
        drawn: list[EvalItem] = []
        for skill in dict.fromkeys(self.skills):
            for i, task in enumerate(islice(_stream(skill, "eval", self.seed), self.n_per_skill)):
                drawn.append(
                    EvalItem(
                        id=f"table_skills/eval/{skill}/{i}",
                        prompt=(Message("user", task.prompt()),),
                        answer=task.answer,
                        skill=skill,
                        cluster=task.question if task.table is None else task.table.id(),
                    )
                )
        return drawn

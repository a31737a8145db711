"""The questions of MT-Bench in FastChat's file format, and a drawing of them that is even over their categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from lit_align.data.mixture import place
from lit_align.data.sources.hub_rows import local_path
from lit_align.data.sources.read_rows import read_rows
from lit_align.data.sources.rows import Row, checked_text, describe

N_TURNS = 2


@dataclass(frozen=True)
class Question:
    """A question of two turns.

    Attributes:
        id: The file's ``question_id``.
        category: What kind of question it is.
        turns: What the user says, turn by turn.
        references: A good answer to each turn; empty where the file has none.
    """

    id: str
    category: str
    turns: tuple[str, ...]
    references: tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """A part of the questions that is drawn at random, as evenly over the categories as they allow; or the others.

    Each category gives as many questions as any other, or one fewer, or all that it has. Which ones depends on seed,
    category and ``question_id`` alone: the same ones of the English and of the Russian file, and all of them again
    where more are drawn.

    Args:
        n: How many are drawn, at least 1.
        seed: Any integer; another seed draws others.
        part: ``drawn`` are those ``n``; ``rest`` is what is left, for a report on questions that chose nothing.

    Raises:
        ValueError: ``n`` is below 1.

    Example:
        >>> questions = [Question(str(i), "math" if i < 3 else "writing", ("?", "?"), ("", "")) for i in range(6)]
        >>> [one.category for one in Drawn(4).of(questions)]
        ['math', 'math', 'writing', 'writing']
        >>> [one.category for one in Drawn(4, part="rest").of(questions)]
        ['math', 'writing']
    """

    n: int
    seed: int = 0
    part: Literal["drawn", "rest"] = "drawn"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"Drawn: n must be at least 1, got {self.n}")

    def of(self, questions: Sequence[Question]) -> list[Question]:
        """The part, in the order given.

        Args:
            questions: All of them.

        Raises:
            ValueError: There are fewer than ``n``, or none is left for the ``rest``.
        """
        most = len(questions) - (self.part == "rest")
        if self.n > most:
            raise ValueError(f"Drawn: n = {self.n} with part = {self.part!r} must be at most {most}: there are "
                             f"{len(questions)} questions")  # fmt: skip
        by_category: dict[str, list[Question]] = {}
        for one in sorted(questions, key=lambda one: place(f"question {one.id}", self.seed)):
            by_category.setdefault(one.category, []).append(one)
        # One of each category, then a second one of each, and so on: every beginning is even.
        order = sorted(
            (rank, place(f"category {category}", self.seed), one.id)
            for category, members in by_category.items()
            for rank, one in enumerate(members)
        )
        chosen = {id for _, _, id in order[: self.n]}
        return [one for one in questions if (one.id in chosen) == (self.part == "drawn")]


def read_questions(path: str, hub_file: str) -> list[Question]:
    """Read all questions.

    Args:
        path: A ``.jsonl`` file (a question a line), a ``.json`` file (a list of them), or the id of a data set on the
            hub.
        hub_file: The file that is read when ``path`` is an id on the hub.

    Returns:
        The questions, in the file's order.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The hub cannot be reached.
        ValueError: The file is not JSON in UTF-8 or holds no row; or a row is not a question as FastChat writes them.
            The message names file, row, key, rule and value.
    """
    questions: list[Question] = []
    seen: dict[str, str] = {}
    for row in read_rows(local_path(path, hub_file)):
        question = _question(row)
        if question.id in seen:
            raise ValueError(
                f"{row.where}: question_id: {question.id} stands at {seen[question.id]} already; each must be there "
                "once: drop one of the rows"
            )
        seen[question.id] = row.where
        questions.append(question)
    return questions


def of_categories(questions: Sequence[Question], categories: Sequence[str], path: str) -> list[Question]:
    """The questions of some categories.

    Args:
        questions: All of a file.
        categories: Names of categories.
        path: The file, for the message.

    Raises:
        ValueError: The file has no question of one of them; the message names those that it has.
    """
    has = list(dict.fromkeys(one.category for one in questions))
    for category in categories:
        if category not in has:
            near = get_close_matches(category, has, n=1)
            nearest = f"did you mean '{near[0]}'? " if near else ""
            raise ValueError(f"{path}: no question of the category '{category}'; {nearest}it has: {', '.join(has)}")
    return [one for one in questions if one.category in categories]


def _question(row: Row) -> Question:
    id = row.value("question_id")
    if isinstance(id, bool) or not isinstance(id, int | str) or not str(id).strip():
        raise ValueError(f"{row.where}: question_id: must be a whole number or text, not {describe(id)}")
    category = row.text("category").strip()
    if not category:
        raise ValueError(f"{row.where}: category: is blank; name the question's kind, such as 'math'")
    turns = _texts(row, "turns", row.value("turns"))
    for index, turn in enumerate(turns):
        if not turn.strip():
            raise ValueError(f"{row.where}: turns[{index}]: is blank ({turn!r}); drop the row")
    references = row.values.get("reference")
    # Tables that hold a column for all rows have null or an empty list where FastChat's file has no key.
    texts = ("",) * N_TURNS if references in (None, []) else _texts(row, "reference", references)
    return Question(str(id), category, turns, texts)


def _texts(row: Row, key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) != N_TURNS:
        length = f", which has {len(value)}" if isinstance(value, list) else ""
        raise ValueError(
            f"{row.where}: {key}: must be a list of {N_TURNS} texts, one a turn, not {describe(value)}{length}; "
            "see FastChat's question.jsonl for the form"
        )
    return tuple(checked_text(one, f"{row.where}: {key}[{index}]") for index, one in enumerate(value))

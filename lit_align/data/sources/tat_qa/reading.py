"""The official JSON files of TAT-QA, unchanged: contexts with a table, passages and questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lit_align.data.sources.hub_rows import local_path
from lit_align.data.sources.read_rows import read_rows
from lit_align.data.sources.rows import Row, checked_text, describe

AnswerType = Literal["arithmetic", "span", "multi-span", "count"]
Scale = Literal["", "thousand", "million", "billion", "percent"]
ANSWER_TYPES: tuple[AnswerType, ...] = get_args(AnswerType)
SCALES: tuple[str, ...] = get_args(Scale)

# The files and the paper's page spell them differently; both are met in the wild.
_TYPES: dict[str, AnswerType] = {name: name for name in ANSWER_TYPES} | {"spans": "multi-span", "counting": "count"}
_NO_SCALE = (None, "None", "none")


@dataclass(frozen=True)
class Passage:
    """A paragraph beside the table.

    Attributes:
        order: Its number, which ``rel_paragraphs`` refer to.
        text: What it says.
    """

    order: int
    text: str


@dataclass(frozen=True)
class Question:
    """A question about a table, with its gold answer.

    Attributes:
        uid: Unique over all files.
        order: Where it stands among the questions of its table; not always contiguous.
        text: The question.
        answer: The gold answer as text, one item or several; a number is written as the file holds it.
        answer_type: What is asked for.
        scale: What the numbers of the answer count, or empty.
        derivation: How the answer comes about, or empty.
        answer_from: ``table``, ``text`` or ``table-text``.
        gold_passages: Numbers of the passages that annotators used; empty for a question that the table answers.
        raw: The gold answer as the file holds it, for the official metric.
    """

    uid: str
    order: int
    text: str
    answer: tuple[str, ...]
    answer_type: AnswerType
    scale: str
    derivation: str
    answer_from: str
    gold_passages: tuple[int, ...]
    raw: str | int | float | tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """A table, its passages and what is asked about them.

    Attributes:
        uid: The table's; the group of its pairs.
        rows: The cells, a rectangle; headers are ordinary rows.
        passages: In their own order.
        questions: In the file's order.
    """

    uid: str
    rows: tuple[tuple[str, ...], ...]
    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]


def read_contexts(path: str, hub_file: str = "tatqa_dataset_train.json", limit: int | None = None) -> list[Context]:
    """Read the contexts of a file.

    Args:
        path: ``tatqa_dataset_train.json``, ``…_dev.json``, ``…_test_gold.json``, or the id of the data set on the hub.
        hub_file: The file that is read when ``path`` is an id on the hub.
        limit: Read the first so many contexts only; None reads all.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The hub cannot be reached.
        ValueError: The file is not one of TAT-QA, breaks a rule, or holds no answers. The message names file, context,
            question, key, rule and value.
    """
    contexts: list[Context] = []
    tables: dict[str, str] = {}
    uids: dict[str, str] = {}
    # The hub's own reader takes all files of a data set for one table and fails on test.json, which has no answers.
    for row in read_rows(local_path(path, hub_file), limit):
        context = _context(row)
        _refuse_twice(context.uid, "table", row.where, tables)
        for question in context.questions:
            _refuse_twice(question.uid, "question", row.where, uids)
        contexts.append(context)
    return contexts


def _refuse_twice(uid: str, what: str, where: str, seen: dict[str, str]) -> None:
    if uid in seen:
        raise ValueError(f"{where}: {what} uid {uid!r} stands at {seen[uid]} already; each must be there once")
    seen[uid] = where


def _context(row: Row) -> Context:
    table = _object(row.value("table"), f"{row.where}: table")
    uid = _text(table, "uid", f"{row.where}: table")
    where = f"{row.where} (table {uid})"
    passages = [_passage(one, place) for one, place in _objects(row.value("paragraphs"), f"{where}: paragraphs")]
    questions = [_question(one, place) for one, place in _objects(row.value("questions"), f"{where}: questions")]
    return Context(
        uid,
        _cells(_key(table, "table", f"{where}: table"), f"{where}: table.table"),
        tuple(sorted(passages, key=lambda passage: passage.order)),
        tuple(questions),
    )


def _cells(value: object, where: str) -> tuple[tuple[str, ...], ...]:
    rows = _list(value, where)
    if not rows:
        raise ValueError(f"{where}: must hold at least a header row, is empty")
    cells = []
    for i, row in enumerate(rows):
        cells.append(tuple(checked_text(cell, f"{where}[{i}][{j}]") for j, cell in enumerate(_list(row, where))))
        if len(cells[i]) != len(cells[0]):
            raise ValueError(
                f"{where}[{i}]: every row must have as many cells as the first, {len(cells[0])}, has {len(cells[i])}"
            )
    return tuple(cells)


def _passage(value: dict[str, Any], where: str) -> Passage:
    return Passage(_whole(_key(value, "order", where), f"{where}.order"), _text(value, "text", where))


def _question(value: dict[str, Any], where: str) -> Question:
    uid = _text(value, "uid", where)
    where = f"{where} ({uid})"
    if "answer" not in value:
        raise ValueError(
            f"{where}: no key 'answer': this file holds questions without answers (test.json of TAT-QA is one); "
            "use tatqa_dataset_test_gold.json, whose answers are public, or the train or dev file"
        )
    kind = _text(value, "answer_type", where)
    if kind not in _TYPES:
        raise ValueError(f"{where}.answer_type: must be one of {', '.join(_TYPES)}, not {describe(kind)}")
    scale = value.get("scale")
    scale = "" if scale in _NO_SCALE else scale
    if scale not in SCALES:
        known = ", ".join(repr(one) for one in SCALES)
        raise ValueError(f"{where}.scale: must be one of {known}, not {describe(scale)}")
    raw = _answer(value["answer"], _TYPES[kind], f"{where}.answer")
    derivation = value.get("derivation")
    gold = _list(value.get("rel_paragraphs") or [], f"{where}.rel_paragraphs")
    return Question(
        uid=uid,
        order=_whole(_key(value, "order", where), f"{where}.order"),
        text=_text(value, "question", where).strip(),
        answer=_as_items(raw),
        answer_type=_TYPES[kind],
        scale=scale,
        derivation="" if derivation is None else checked_text(derivation, f"{where}.derivation").strip(),
        answer_from=_text(value, "answer_from", where),
        gold_passages=tuple(_whole(one, f"{where}.rel_paragraphs") for one in gold),
        raw=raw,
    )


def _answer(value: object, kind: AnswerType, where: str) -> str | int | float | tuple[str, ...]:
    """The gold answer; 0 is one, and so is a list of which one item is blank."""
    if kind == "arithmetic":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where}: an arithmetic answer must be a number, not {describe(value)}")
        return value
    if kind == "count":
        return str(_whole(value, where))
    items = [checked_text(item, where) for item in (value if isinstance(value, list) else [value])]
    if not any(item.strip() for item in items):
        raise ValueError(f"{where}: must hold at least one item that is not blank, not {describe(value)}")
    return tuple(items)


def _as_items(raw: str | int | float | tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(raw, tuple):
        return (str(raw),)
    # One list of the dev file ends with a blank item; as a line of its own it would be an answer of nothing.
    return tuple(" ".join(item.split()) for item in raw if item.strip())


def _key(value: dict[str, Any], key: str, where: str) -> Any:  # whatever the file holds
    if key not in value:
        raise ValueError(f"{where}: no key {key!r}; it has: {', '.join(value) or 'none'}")
    return value[key]


def _text(value: dict[str, Any], key: str, where: str) -> str:
    return checked_text(_key(value, key, where), f"{where}.{key}")


def _whole(value: object, where: str) -> int:
    """A whole number, written as a number or as text: counts and passage numbers are text in the files."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    raise ValueError(f"{where}: must be a whole number, not {describe(value)}")


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: must be a list, not {describe(value)}")
    return value


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: must be an object, not {describe(value)}")
    return value


def _objects(value: object, where: str) -> Iterator[tuple[dict[str, Any], str]]:
    for i, one in enumerate(_list(value, where)):
        yield _object(one, f"{where}[{i}]"), f"{where}[{i}]"

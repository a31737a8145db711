"""The file that ``lit-align sample`` writes: a completion a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from lit_align.data.sources.messages_file import read_messages
from lit_align.data.sources.read_rows import read_rows
from lit_align.data.sources.rows import Row, describe
from lit_align.types import Message


@dataclass(frozen=True)
class SampledCompletion:
    """One answer that a model gave to a prompt.

    Attributes:
        sample: Its number among the answers to the prompt, from 0.
        answer: What the model wrote, a ``<think>`` trace included.
        finished: Whether the model ended its turn; otherwise the answer was cut off.
        scores: Numbers by name, finite, larger is better; none where the prompt's source has no metric.
    """

    sample: int
    answer: str
    finished: bool
    scores: Mapping[str, float]


@dataclass(frozen=True)
class SampledPrompt:
    """A prompt with the answers that a model gave to it.

    Attributes:
        id: Unique in the file.
        messages: The turns that the model saw; the last one is the user's.
        gold: The answer that the prompt's source has for it; empty for none.
        source: Name of the prompt's source.
        group: As of a :class:`~lit_align.types.PreferencePair`.
        completions: In the order of their numbers, at least one.
        gold_scores: The scores of the gold answer by name; none where it was not scored.
    """

    id: str
    messages: tuple[Message, ...]
    gold: str
    source: str
    group: str
    completions: tuple[SampledCompletion, ...]
    gold_scores: Mapping[str, float] = field(default_factory=dict)


def read_samples(path: str) -> list[SampledPrompt]:
    """Read the prompts of a file with their completions.

    A row is ``{"id", "sample", "source", "group", "prompt", "gold", "answer", "finished", "scores"}``, and
    ``gold_scores`` where the gold answers were scored too: those of a prompt's first row are taken, since a reward
    depends, to rounding, on what it is read beside. Further columns are not read. The rows may stand in any order.

    Args:
        path: A finished file of ``lit-align sample``; ``~`` is the home folder.

    Returns:
        The prompts, in the order in which the file first names them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The run that writes the file is not finished; the file holds no row or broken JSON; a row lacks a
            column or holds something of another type; a prompt has two samples of one number, or an id two prompts.
            The message names file, row, column and value.
    """
    prompts: dict[str, SampledPrompt] = {}
    completions: dict[str, dict[int, SampledCompletion]] = {}
    rows: dict[tuple[str, int | None], str] = {}  # where an id, and where a sample of it, was read first
    for row in read_rows(str(_finished(path))):
        prompt, completion = _prompt(row), _completion(row)
        _refuse_another(prompt, prompts.setdefault(prompt.id, prompt), row, rows.setdefault((prompt.id, None), row.id))
        place = rows.setdefault((prompt.id, completion.sample), row.id)
        if completions.setdefault(prompt.id, {}).setdefault(completion.sample, completion) is not completion:
            raise ValueError(
                f"{row.where}: sample {completion.sample} of {prompt.id!r} stands at {place} already; each must be "
                "there once: drop one of the rows, or sample again"
            )
    return [
        replace(prompt, completions=tuple(one for _, one in sorted(completions[name].items())))
        for name, prompt in prompts.items()
    ]


def unusable(completion: SampledCompletion) -> str:
    """Why a completion is no answer, in a few words for the log; empty where it is one."""
    if not completion.finished:
        return "unfinished"
    return "" if completion.answer.strip() else "blank"


def named_score(scores: Mapping[str, float], name: str, of: str) -> float:
    """A score that must be there.

    Args:
        scores: Scores by name.
        name: Which of them.
        of: File, and whose scores they are, for the message.

    Raises:
        ValueError: There is none of that name; the message says which there are.
    """
    if name not in scores:
        near = get_close_matches(name, scores, n=1)
        has = f"has: {', '.join(scores)}" if scores else "has none: its source has no metric"
        raise ValueError(f"{of} has no score {name!r}; {f'did you mean {near[0]!r}? ' if near else ''}it {has}")
    return scores[name]


def _finished(path: str) -> Path:
    file = Path(path).expanduser()
    if file.suffix == ".part" or (not file.exists() and file.with_name(f"{file.name}.part").exists()):
        raise ValueError(f"{file}: the sampling run is not finished: run the same lit-align sample command again")
    if not file.is_file():
        what = "is a folder, name a file in it" if file.is_dir() else "no such file"
        raise FileNotFoundError(f"{file.absolute()}: {what}; `lit-align sample` writes files of samples")
    return file


def _prompt(row: Row) -> SampledPrompt:
    messages = read_messages(row, "prompt")
    if messages[-1].role != "user":
        raise ValueError(f"{row.where}: prompt: must end with the user's turn, not with {messages[-1].role}'s")
    gold_scores = _scores(row, "gold_scores") if "gold_scores" in row.values else {}
    texts = {column: row.text(column) for column in ("id", "gold", "source", "group")}
    return SampledPrompt(messages=messages, completions=(), gold_scores=gold_scores, **texts)


def _refuse_another(prompt: SampledPrompt, first: SampledPrompt, row: Row, place: str) -> None:
    for column, one, other in (
        ("prompt", prompt.messages, first.messages),
        ("gold", prompt.gold, first.gold),
        ("source", prompt.source, first.source),
        ("group", prompt.group, first.group),
    ):
        if one != other:
            raise ValueError(
                f"{row.where}: id {prompt.id!r} has another {column} than at {place}; an id names one prompt: sample "
                "sources whose ids are equal into files of their own"
            )


def _completion(row: Row) -> SampledCompletion:
    sample, finished = row.value("sample"), row.value("finished")
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
        raise ValueError(f"{row.where}: sample: must be a whole number from 0, not {describe(sample)}")
    if not isinstance(finished, bool):
        raise ValueError(f"{row.where}: finished: must be true or false, not {describe(finished)}")
    return SampledCompletion(sample, row.text("answer"), finished, _scores(row, "scores"))


def _scores(row: Row, column: str) -> dict[str, float]:
    scores = row.value(column)
    if not isinstance(scores, dict):
        raise ValueError(f"{row.where}: {column}: must be an object of numbers by name, not {describe(scores)}")
    for name, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError(f"{row.where}: {column}.{name}: must be a finite number, not {describe(score)}")
    return scores

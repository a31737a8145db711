"""A file of samples reads back as it was written, whatever the order of its rows, and each fault is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sample_lines import line, write_lines

from lit_align.data.sources.samples.sample_file import SampledCompletion, SampledPrompt, read_samples
from lit_align.types import Message


def test_rows_become_prompts_with_their_completions_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    lines = [
        line("a", 1, "5", finished=False, group="g"),
        line("b", 0, "<think>\nhm\n</think>\n\n4 ", gold="", scores={"f1": 1}),
        line("a", 0, "", scores={"f1": 0.5}, group="g"),
    ]
    found = read_samples(write_lines(tmp_path, lines))
    asked = (Message("user", "2 + 2?"),)
    assert found == [
        SampledPrompt(
            "a", asked, "4", "sums", "g",
            (SampledCompletion(0, "", True, {"f1": 0.5}), SampledCompletion(1, "5", False, {})),
        ),
        SampledPrompt(
            "b", asked, "", "sums", "", (SampledCompletion(0, "<think>\nhm\n</think>\n\n4 ", True, {"f1": 1}),)
        ),
    ]  # fmt: skip
    turned = read_samples(write_lines(tmp_path, reversed(lines)))
    assert sorted(turned, key=lambda one: one.id) == found


@pytest.mark.parametrize(
    "column", ["id", "sample", "source", "group", "prompt", "gold", "answer", "finished", "scores"]
)
def test_a_missing_column_is_named_with_its_row(tmp_path: Path, column: str) -> None:
    broken = {key: value for key, value in line("2").items() if key != column}
    with pytest.raises(ValueError, match=rf"sums.jsonl:2: no column '{column}'"):
        read_samples(write_lines(tmp_path, [line(), broken]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": 7}, r"id: must be text, not a number \(7\)"),
        ({"sample": -1}, r"sample: must be a whole number from 0, not a number \(-1\)"),
        ({"sample": True}, r"sample: must be a whole number from 0, not a boolean \(true\)"),
        ({"sample": 1.0}, r"sample: must be a whole number from 0, not a number \(1.0\)"),
        ({"source": None}, "source: must be text, not null"),
        ({"group": 3}, "group: must be text, not a number"),
        ({"gold": None}, "gold: must be text, not null"),
        ({"answer": None}, "answer: must be text, not null"),
        ({"answer": "\ud83d"}, "answer: character 0 is half of a character"),
        ({"finished": "yes"}, r'finished: must be true or false, not text \("yes"\)'),
        ({"finished": 1}, r"finished: must be true or false, not a number \(1\)"),
        ({"scores": None}, "scores: must be an object of numbers by name, not null"),
        ({"scores": [1.0]}, "scores: must be an object of numbers by name, not a list"),
        ({"scores": {"f1": "1"}}, r'scores.f1: must be a finite number, not text \("1"\)'),
        ({"scores": {"f1": float("nan")}}, "scores.f1: must be a finite number, not a number"),
        ({"scores": {"f1": True}}, "scores.f1: must be a finite number, not a boolean"),
        ({"prompt": "2 + 2?"}, r"prompt: must be a list of messages, not text"),
        ({"prompt": []}, "prompt: must be a list of messages, not a list"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, r"prompt\[0\].role: must be one of"),
        ({"prompt": [{"role": "system", "content": "x"}]}, "prompt: must end with the user's turn, not with system's"),
    ],
)
def test_a_value_of_another_type_is_named_with_row_and_column(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    path = tmp_path / "sums.jsonl"
    if "\ud83d" in str(change.get("answer")):
        path.write_text(Path(write_lines(tmp_path, [line(answer="HALF")])).read_text().replace("HALF", "\\ud83d"))
    else:
        write_lines(tmp_path, [line() | change])
    with pytest.raises(ValueError, match=rf"sums.jsonl:1: {says}"):
        read_samples(str(path))


def test_a_sample_that_stands_twice_is_refused_also_where_both_are_equal(tmp_path: Path) -> None:
    for second in ("5", "6"):
        lines = [line(), line("2"), line(answer=second)]
        with pytest.raises(ValueError, match=r"jsonl:3: sample 0 of '1' stands at sums.jsonl:1 already"):
            read_samples(write_lines(tmp_path, lines))


@pytest.mark.parametrize(
    ("change", "column"),
    [({"prompt": "3 + 3?"}, "prompt"), ({"gold": "four"}, "gold"), ({"group": "g"}, "group")],
)
def test_two_prompts_under_one_id_are_refused(tmp_path: Path, change: dict[str, str], column: str) -> None:
    lines = [line(), line("2"), line(sample=1, **change)]  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=rf"jsonl:3: id '1' has another {column} than at sums.jsonl:1; an id names one"
    ):
        read_samples(write_lines(tmp_path, lines))


def test_a_run_that_is_not_finished_is_answered_with_what_to_do(tmp_path: Path) -> None:
    part = write_lines(tmp_path, [line()], "sums.jsonl.part")
    for path in (part, part.removesuffix(".part")):
        with pytest.raises(ValueError, match="is not finished: run the same lit-align sample command again"):
            read_samples(path)
    write_lines(tmp_path, [line()])  # of an earlier run, finished
    assert len(read_samples(part.removesuffix(".part"))) == 1


def test_no_file_a_folder_no_row_and_broken_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such/sums: no such file; `lit-align sample` writes"):
        read_samples("no-such/sums")  # not a data set of the hub
    with pytest.raises(FileNotFoundError, match="is a folder, name a file in it"):
        read_samples(str(tmp_path))
    with pytest.raises(ValueError, match="holds no row"):
        read_samples(write_lines(tmp_path, []))
    path = Path(write_lines(tmp_path, [line(), line("2")]))
    path.write_text(path.read_text()[:-20], encoding="utf-8")
    with pytest.raises(ValueError, match=r"sums.jsonl, line 2, column .*broken JSON"):
        read_samples(str(path))

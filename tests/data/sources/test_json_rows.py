from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.sources.read_rows import read_rows

Write = Callable[[str, "bytes | str"], str]

flat = st.dictionaries(st.text(max_size=4), st.one_of(st.none(), st.integers(), st.text(max_size=8)), max_size=3)


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(name: str, data: bytes | str) -> str:
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(tmp_path / name)

    return write


def rows(path: str, limit: int | None = None) -> list[tuple[int, dict[str, Any]]]:
    return [(row.number, row.values) for row in read_rows(path, limit)]


@given(st.lists(flat, min_size=1, max_size=5), st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n"]))
@settings(deadline=None, max_examples=50)
def test_what_was_written_is_read_as_list_and_as_lines(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, Any]], escaped: bool, end: str
) -> None:
    folder = tmp_path_factory.mktemp("json")
    surrogates = any("\ud800" <= char <= "\udfff" for char in repr(values))
    lines = [json.dumps(value, ensure_ascii=escaped or surrogates) for value in values]
    (folder / "a.jsonl").write_text(end.join(lines), encoding="utf-8", newline="")
    (folder / "a.json").write_text("[" + ",".join(lines) + "]", encoding="utf-8", newline="")
    assert [value for _, value in rows(str(folder / "a.jsonl"))] == values
    assert rows(str(folder / "a.json")) == list(enumerate(values, start=1))


def test_blank_lines_are_skipped_and_counted(written: Write) -> None:
    path = written("chat.jsonl", '{"a": 1}\n\n  \r\n{"a": 2}\n')
    assert rows(path) == [(1, {"a": 1}), (4, {"a": 2})]
    assert [row.id for row in read_rows(path)] == ["chat.jsonl:1", "chat.jsonl:4"]


def test_a_line_separator_inside_a_text_does_not_part_the_row(written: Write) -> None:
    assert rows(written("a.jsonl", '{"a": "x\u2028y\x85z"}\n')) == [(1, {"a": "x\u2028y\x85z"})]


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", '{"a": 1}'), ("a.json", '[{"a": 1}]'), ("b.json", '{"a": 1}')])
def test_byte_order_mark_is_accepted(written: Write, name: str, text: str) -> None:
    assert rows(written(name, b"\xef\xbb\xbf" + text.encode())) == [(1, {"a": 1})]


def test_json_lines_under_the_name_json_are_read(written: Write) -> None:
    assert rows(written("a.json", '\n{"a": 1}\n{"a": 2}\n')) == [(2, {"a": 1}), (3, {"a": 2})]


def test_limit_reads_no_further(written: Write) -> None:
    assert rows(written("a.jsonl", '{"a": 1}\n{"a": 2}\nbroken'), limit=2) == [(1, {"a": 1}), (2, {"a": 2})]


def test_missing_file_is_named_with_the_nearest(written: Write, tmp_path: Path) -> None:
    written("train.jsonl", "{}")
    with pytest.raises(FileNotFoundError, match=r"trian\.jsonl: no such file; did you mean 'train\.jsonl'\?"):
        rows(str(tmp_path / "trian.jsonl"))
    with pytest.raises(FileNotFoundError, match=r"no such file$"):
        rows(str(tmp_path / "no" / "where.jsonl"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": nope}\n', r"a\.jsonl, line 2, column 7: broken JSON: .*; there stands 'nope}'"),
        ("a.jsonl", '{"a": 1}\n{"a": ', r"line 2, column 6: .*; there the line or file ends"),
        ("a.json", '[\n{"a": 1},\n{"a" 2}\n]', r"a\.json, line 3, column 6: .*there stands '2}'"),
        ("a.json", '[{"a": 1}', "there the line or file ends"),
        ("a.json", '{\n "a": [1]\n}', r"line 1, column 2: broken JSON: .* is read as one object a line"),
        ("a.json", "17", "must hold a list of objects, or one object a line, not a number \\(17\\)"),
        ("a.json", '[{"a": 1}, "b"]', r'a\.json:2: a row must be an object, not text \("b"\)$'),
        ("a.jsonl", '{"a": 1}\n[2]', r"a\.jsonl:2: a row must be an object, not a list \(\[2\]\); .* named \.json"),
        ("a.jsonl", b"", "holds no row"),
        ("a.json", b"", "holds no row"),
        ("a.json", b"[]", "holds no row"),
        ("a.jsonl", b"\xef\xbb\xbf\n \n", "holds no row"),
        (
            "a.jsonl",
            '{"a": 1}\n{"a": "é"}'.encode("latin-1"),
            "line 2: not UTF-8 .byte 0xe9 at offset 16 .*Latin-1.*iconv",
        ),
        ("a.json", '[\n{"a": "да"}]'.encode("cp1251"), "line 2: not UTF-8 .byte 0xe4 at offset 9 .*WINDOWS-1251"),
        ("a.jsonl", b'\xef\xbb\xbf{"a": "\xe9"}', "byte 0xe9 at offset 10 "),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "is UTF-16 .PowerShell"),
    ],
)
def test_a_broken_file_is_refused_where_it_breaks(written: Write, name: str, data: bytes | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows(written(name, data))


def test_missing_column_names_those_that_are_there_and_the_nearest(written: Write) -> None:
    [row] = read_rows(written("a.jsonl", '{"completions": "x", "prompt": "y"}'))
    with pytest.raises(
        ValueError, match=r"a\.jsonl:1: no column 'completion'; did you mean 'completions'\? the row has: c"
    ):
        row.text("completion")
    with pytest.raises(ValueError, match=r"no column 'zzz'; the row has: completions, prompt$"):
        row.value("zzz")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("4", r"a number \(4\)"),
        ("null", "null"),
        ("true", "a boolean"),
        ('["x"]', r'a list \(\["x"\]\)'),
        ("{}", "an obj"),
    ],
)
def test_a_value_that_is_not_text_is_named(written: Write, value: str, shown: str) -> None:
    [row] = read_rows(written("a.jsonl", f'{{"a": {value}}}'))
    with pytest.raises(ValueError, match=rf"a\.jsonl:1: a: must be text, not {shown}"):
        row.text("a")


def test_half_of_an_emoji_is_refused_before_a_tokenizer_chokes_on_it(written: Write) -> None:
    [row, whole] = read_rows(written("a.jsonl", '{"a": "ok \\ud83d"}\n{"a": "ok \\ud83d\\ude00"}'))
    with pytest.raises(ValueError, match=r"a\.jsonl:1: a: character 3 is half of a character"):
        row.text("a")
    assert whole.text("a") == "ok \U0001f600"

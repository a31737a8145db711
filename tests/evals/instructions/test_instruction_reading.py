"""Files of prompts with instructions: IFEval's own, ours, and broken ones."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lit_align.evals.instructions import contract
from lit_align.evals.instructions.reading import OWN_FILE, read_prompts
from lit_align.evals.instructions.vocabulary import INSTRUCTIONS

IFEVAL = Path("/work/shared/data/ifeval/input_data.jsonl")
ROW = {
    "key": 7,
    "prompt": "Write in less than 9 words.",
    "instruction_id_list": ["length_constraints:number_words"],
    "kwargs": [{"relation": "less than", "num_words": 9}],
}


def written(folder: Path, rows: list[Any], name: str = "prompts.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.skipif(not IFEVAL.exists(), reason="the published file is not here")
def test_the_published_file_is_read_whole() -> None:
    prompts = read_prompts(IFEVAL)

    names = Counter(name for prompt in prompts for name in prompt.names)
    assert len(prompts) == 541
    assert sum(names.values()) == 834
    assert names.keys() == INSTRUCTIONS.keys()
    assert Counter(prompt.family for prompt in prompts)["several"] == 541 - 305


def test_our_own_file_has_every_instruction_in_two_languages() -> None:
    prompts = read_prompts(OWN_FILE)

    assert {name for prompt in prompts for name in prompt.names} == INSTRUCTIONS.keys()
    assert Counter(prompt.key[:2] for prompt in prompts) == {"en": 60, "ru": 29}
    assert {len(prompt.names) for prompt in prompts} == {1, 2, 3}
    assert len({prompt.describe() for prompt in prompts}) == len(prompts)


def test_tables_made_from_the_file_are_read_alike(tmp_path: Path) -> None:
    as_table = {**ROW, "extra": 1, "kwargs": [{"num_words": 9, "relation": "less than", "keywords": None}]}
    listed = tmp_path / "prompts.json"
    listed.write_text(json.dumps([ROW]), encoding="utf-8")

    assert read_prompts(written(tmp_path, [as_table])) == read_prompts(listed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": None}, ":1: key must be a number or text, not null"),
        ({"key": True}, ":1: key must be a number or text, not a boolean (true)"),
        ({"prompt": 3}, ":1: prompt: must be text, not a number (3)"),
        ({"prompt": " "}, ":1, key 7: prompt is blank"),
        ({"instruction_id_list": "punctuation:no_comma"}, "key 7: instruction_id_list must be a list of one or more"),
        ({"instruction_id_list": [], "kwargs": []}, "key 7: instruction_id_list must be a list of one or more names"),
        ({"kwargs": {}}, "key 7: kwargs must be a list of objects, not an object ({})"),
        ({"kwargs": [None]}, "key 7: kwargs must be a list of objects, not a list ([null])"),
        ({"kwargs": []}, "key 7: kwargs has 0 objects for 1 instructions; one each"),
        (
            {"instruction_id_list": ["length_constraints:words"]},
            "key 7: unknown instruction 'length_constraints:words'",
        ),
        ({"kwargs": [{"num_words": 9}]}, "key 7: length_constraints:number_words: relation is missing"),
        (
            {"kwargs": [{"num_words": 9, "relation": "at most"}]},
            "key 7: length_constraints:number_words: relation must",
        ),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = written(tmp_path, [{**ROW, **change}])

    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_prompts(file)
    assert str(caught.value).startswith(f"{file}:1")


@pytest.mark.parametrize("column", ROW)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    file = written(tmp_path, [ROW, {key: value for key, value in ROW.items() if key != column}])

    with pytest.raises(ValueError, match=f"prompts.jsonl:2: no column '{column}'"):
        read_prompts(file)


def test_a_key_stands_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prompts.jsonl:3: a second row with the key 7"):
        read_prompts(written(tmp_path, [ROW, {**ROW, "key": 8}, {**ROW, "key": "7"}]))


def test_an_unknown_language_is_named_with_its_row(tmp_path: Path) -> None:
    row = {**ROW, "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "xx"}]}

    with pytest.raises(ValueError, match=r"prompts.jsonl:1, key 7: language must be one of .* got 'xx'"):
        read_prompts(written(tmp_path, [row]))


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prompts.jsonl: has no prompt"):
        read_prompts(written(tmp_path, []))
    with pytest.raises(ValueError, match=r"prompts.jsonl:1: a row must be an object, not a list"):
        read_prompts(written(tmp_path, [[ROW]]))
    with pytest.raises(FileNotFoundError, match=r"no file of instructions at .*absent.jsonl; IFEval's is"):
        read_prompts(tmp_path / "absent.jsonl")


def test_a_missing_package_is_named_only_where_an_instruction_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert contract.find_spec is importlib.util.find_spec
    monkeypatch.setattr(contract, "find_spec", lambda _: None)
    sentences = {**ROW, "instruction_id_list": ["length_constraints:number_sentences"]}
    sentences["kwargs"] = [{"num_sentences": 3, "relation": "at least"}]

    assert len(read_prompts(written(tmp_path, [ROW]))) == 1
    with pytest.raises(ImportError, match=r'NumberSentences needs .* punkt: pip install "lit_align\[instructions\]"'):
        read_prompts(written(tmp_path, [sentences]))

"""Both forms of orca_dpo_pairs: ties, swaps and missing ratings of the relabelled one, and what style tells."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_align.data.mixture import messages_hash
from lit_align.data.sources.orca_dpo import OrcaDPO
from lit_align.types import Message

ROW = {"system": "", "question": "2 + 2?", "chosen": "4", "rejected": "Sure! It is five."}
RATED = {
    "system": "You add.", "input": "2 + 2?", "chosen": "4", "rejected": "5", "generations": ["4", "5"],
    "order": ["chosen", "rejected"], "rating": [9.0, 3.0], "status": "unchanged", "original_chosen": "4",
    "original_rejected": "5", "chosen_score": 9.0, "in_gsm8k_train": False,
}  # fmt: skip
SWAPPED = {**RATED, "status": "swapped", "chosen": "5", "rejected": "4", "rating": [3.0, 8.0], "chosen_score": 8.0}
TIE = {**RATED, "status": "tie", "rating": [7.0, 7.0]}
UNRATED = {**RATED, "status": "tie", "rating": None, "chosen_score": None}


def everything(group: str) -> bool:
    return True


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., OrcaDPO]:
    def of(*rows: dict[str, Any], **options: Any) -> OrcaDPO:
        path = tmp_path / "orca.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return OrcaDPO(str(path), **options)

    return of


def said(source: OrcaDPO) -> list[tuple[str, str, str]]:
    return [(one.id[11:], one.chosen, one.rejected) for one in source.pairs(everything)]


@pytest.mark.parametrize("blank", ["", "\n", None])
def test_a_blank_system_turn_is_none(source: Callable[..., OrcaDPO], blank: str | None) -> None:
    one, other = source({**ROW, "system": blank}, {**ROW, "system": "You add."}).pairs(everything)
    assert one.prompt == (Message("user", "2 + 2?"),)
    assert other.prompt == (Message("system", "You add."), Message("user", "2 + 2?"))
    assert one.group == other.group == messages_hash(one.prompt)
    assert (one.id, one.source) == ("orca.jsonl:1", "orca-dpo")


def test_ties_and_unrated_rows_are_left_out_and_counted_and_swaps_are_honoured(
    source: Callable[..., OrcaDPO], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    equal = {**RATED, "rating": [5, 5]}
    half = {**RATED, "rating": [5.0, None]}
    assert said(source(RATED, TIE, SWAPPED, UNRATED, equal, half)) == [("1", "4", "5"), ("3", "5", "4")]
    assert "rows: 2 tie, 2 unrated, 1 unchanged, 1 swapped" in caplog.messages[-1]


def test_an_answer_that_does_not_stand_as_its_status_says_is_refused(source: Callable[..., OrcaDPO]) -> None:
    for row in ({**RATED, "status": "swapped"}, {**SWAPPED, "status": "unchanged"}, {**RATED, "rejected": "6"}):
        with pytest.raises(ValueError, match=r"orca.jsonl:2: (chosen|rejected): is not original_\w+, as status"):
            said(source(RATED, row))
        assert len(source(RATED, row).usable(everything, lambda *_: None)) == 1


def test_nearly_equal_ratings_are_left_out_on_demand(source: Callable[..., OrcaDPO]) -> None:
    assert said(source(RATED, SWAPPED, min_gap=6.0)) == [("1", "4", "5")]
    with pytest.raises(ValueError, match=r"no column 'status'.*min_gap = 6.0 asks"):
        said(source(ROW, min_gap=6.0))
    with pytest.raises(ValueError, match=r"min_gap: must be in \[0, 10\]"):
        source(min_gap=-1.0)


def test_questions_of_gsm8k_can_be_left_out(source: Callable[..., OrcaDPO]) -> None:
    rows = {**RATED, "in_gsm8k_train": True}, RATED
    assert len(said(source(*rows))) == 2
    assert [name for name, *_ in said(source(*rows, gsm8k=False))] == ["2"]


def test_the_opening_and_the_length_of_both_sides_are_told(
    source: Callable[..., OrcaDPO], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source(ROW, {**ROW, "rejected": "It is 5"}).pairs(everything)
    assert "chosen 0% open with Sure and the like, 1 characters; rejected 50% open with" in caplog.messages[-1]
    assert "like, 12 characters" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({**ROW, "chosen": None}, "chosen: must be text, not null"),
        ({**ROW, "question": " "}, "question: is blank"),
        ({**ROW, "rejected": 5}, "rejected: must be text, not a number"),
        ({**RATED, "status": "better"}, "status: must be one of unchanged, swapped, tie"),
        ({**RATED, "rating": [1]}, "rating: must be two numbers, or null"),
        ({**RATED, "rating": "9"}, "rating: must be two numbers, or null"),
        ({key: value for key, value in RATED.items() if key != "original_chosen"}, "no column 'original_chosen'"),
        ({key: value for key, value in ROW.items() if key != "system"}, "no column 'system'"),
    ],
)
def test_a_malformed_row_is_refused_by_name_or_handed_over(
    source: Callable[..., OrcaDPO], row: dict[str, Any], named: str
) -> None:
    refused: list[str] = []
    with pytest.raises(ValueError, match=f"orca.jsonl:2: {named}"):
        said(source(ROW, row))
    assert len(source(ROW, row).usable(everything, lambda _, error: refused.append(str(error)))) == 1
    assert len(refused) == 1


def test_a_file_of_ties_yields_nothing_and_says_so(source: Callable[..., OrcaDPO]) -> None:
    with pytest.raises(ValueError, match="no pair is left of its rows: 2 tie, 1 unrated"):
        said(source(TIE, TIE, UNRATED))
    assert source(RATED).pairs(lambda _: False) == []


def test_a_line_cut_off_and_latin_1_are_named(source: Callable[..., OrcaDPO]) -> None:
    broken = source(ROW, ROW)
    whole = Path(broken.path).read_bytes()
    for content, named in (
        (whole[:-9], r"line 2, column \d+: broken JSON"),
        (whole + b'{"system": "\xfc"}\n', "line 3: not UTF-8"),
    ):
        Path(broken.path).write_bytes(content)
        with pytest.raises(ValueError, match=named):
            said(broken)

"""Sources read one after another: the same records, and none before it is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from lit_align.data.overlap import EvaluationSets
from lit_align.data.sources.decontaminated import DecontaminatedConversations, DecontaminatedPairs
from lit_align.data.sources.finance_instruct import FinanceInstruct
from lit_align.data.sources.finance_instruct_pairs import FinanceInstructPairs
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.data.sources.named import NamedConversations, NamedPairs, NamedRated
from lit_align.data.sources.orca_dpo import OrcaDPO
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.data.sources.prompt_completion_file import PromptCompletionFile
from lit_align.data.sources.skill_pairs import SkillPairs
from lit_align.data.sources.t_wix import TWix
from lit_align.data.sources.table_skills import TableSkillItems, TableSkills
from lit_align.data.sources.unpaired_pairs import UnpairedPairs
from lit_align.data.sources.unpaired_preference_file import UnpairedPreferenceFile
from lit_align.rated import RatedAnswer, RatedSource
from lit_align.types import Conversation, ConversationSource, PairSource, PreferencePair

Refuse = Callable[[str, ValueError], None]
Source = ConversationSource | PairSource | RatedSource
Record = Conversation | PreferencePair | RatedAnswer
READERS: dict[str, Callable[[str], Source]] = {
    "finance-instruct": FinanceInstruct,
    "messages": MessagesFile,
    "columns": lambda path: PromptCompletionFile(path, ["user"], "assistant"),
    "t-wix": lambda path: TWix(path, subset="both"),
    "named": lambda path: NamedConversations("mine", FinanceInstruct(path)),
    "clean": lambda path: DecontaminatedConversations(
        FinanceInstruct(path), EvaluationSets({"tables": TableSkillItems()})
    ),
    "preferences": lambda path: PreferenceFile(path, prompt=["user"], scores=["good", "bad"]),
    "orca": OrcaDPO,
    "finance-instruct pairs": lambda path: FinanceInstructPairs("rejected", FinanceInstruct(path)),
    "named pairs": lambda path: NamedPairs("mine", OrcaDPO(path)),
    "clean pairs": lambda path: DecontaminatedPairs(OrcaDPO(path), EvaluationSets({"tables": TableSkillItems()})),
    "ratings": lambda path: UnpairedPreferenceFile(path, ["user"], "assistant", "liked"),
    "named ratings": lambda path: NamedRated("mine", UnpairedPreferenceFile(path, ["user"], "assistant", "liked")),
    "pairs taken apart": lambda path: UnpairedPairs(OrcaDPO(path)),
}


def row(number: int) -> dict[str, Any]:
    """A row with the columns of all schemas; every third one is blank, every fourth left out of pairs."""
    question, answer = f"What is {number} + 1?", "" if number % 3 == 2 else f"It is {number + 1}."
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {
        "system": "", "user": question, "question": question, "assistant": answer, "chosen": answer,
        "rejected": answer if number % 4 == 3 else f"It is {number}.", "messages": turns, "good": 2.0,
        "bad": 2.0 if number % 4 == 3 else 1.0, "liked": number % 2 == 0,
        "subset": "general" if number % 2 else "reasoning",
    }  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row(i)) + "\n" for i in range(24)), encoding="utf-8")
    return file


def streamed(source: Source, keep: Callable[[str], bool], refuse: Refuse) -> Iterator[Record]:
    return source.stream(refuse) if isinstance(source, ConversationSource) else source.stream(keep, refuse)


def usable(source: Source, keep: Callable[[str], bool], refuse: Refuse) -> Sequence[Record]:
    return source.usable(refuse) if isinstance(source, ConversationSource) else source.usable(keep, refuse)


@pytest.mark.parametrize("reader", READERS)
def test_a_stream_is_what_is_usable_with_the_same_refusals_and_the_same_last_words(
    path: Path, reader: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    told: list[list[tuple[str, str]]] = []
    found: list[list[Record]] = []
    logged: list[list[str]] = []
    for read in (streamed, usable):
        refused: list[tuple[str, str]] = []

        def refuse(name: str, error: ValueError, refused: list[tuple[str, str]] = refused) -> None:
            refused.append((name, str(error)))

        found.append(list(read(READERS[reader](str(path)), lambda group: hash(group) % 2 == 0, refuse)))
        told.append(refused)
        logged.append([one.getMessage() for one in caplog.records])
        caplog.clear()
    assert found[0] == found[1]
    assert found[0]
    assert told[0] == told[1]
    assert len(told[0]) == 8
    assert logged[0] == logged[1]


@pytest.mark.parametrize("reader", READERS)
def test_a_stream_reads_no_row_before_it_is_asked_for(path: Path, reader: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write('{"broken')
    read = streamed(READERS[reader](str(path)), lambda _: True, lambda *_: None)
    assert len(list(islice(read, 6))) == 6
    with pytest.raises(ValueError, match="line 25, column 2: broken JSON"):
        list(read)


def test_generated_rows_are_drawn_as_they_are_asked_for() -> None:
    talks, pairs = TableSkills(n=10**9), SkillPairs(n=10**9)
    assert list(islice(talks.stream(lambda *_: None), 7)) == TableSkills(n=7).conversations()
    first = list(islice(pairs.stream(lambda _: True, lambda *_: None), 7))
    assert first == SkillPairs(n=7).pairs(lambda _: True)


@pytest.mark.parametrize(
    ("reader", "changed"),
    [
        ("t-wix", {"subset": "other"}), ("preferences", {"bad": 3.0}), ("orca", {"chosen": ""}),
        ("finance-instruct pairs", {}),
    ],
)  # fmt: skip
def test_a_stream_that_yields_nothing_ends_in_the_error_of_its_source(
    tmp_path: Path, reader: str, changed: dict[str, object]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row(3) | changed), encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.jsonl: no(ne| pair)"):
        list(streamed(READERS[reader](str(file)), lambda _: True, lambda *_: None))

"""Files and processes change nothing of what is prepared, to the bit, and keep it out of memory."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import tempfile
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepared_data import chats, everything, module, of_all_kinds, of_conversations_and_pairs, pairs, write_rows

from lit_align.data import part as part_file
from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.part import Part, Workshop
from lit_align.data.prepared import columns, in_order, records
from lit_align.data.prepared.examples import Tokenised
from lit_align.data.sources.t_wix import TWix
from lit_align.data.tokenising import ConversationTokeniser
from lit_align.data.windows import WindowDataset
from lit_align.forest import TokenPath
from lit_align.types import Conversation, Message, Outline


@of_all_kinds
def test_the_trap_is_set(kind: str, tmp_path: Path) -> None:
    found = everything(module(kind, tmp_path))
    assert all(found["trees"][part] for part in found["reports"])
    assert len(found["reports"]) == (2 if kind == "ratings" else 3)
    told = " ".join(line for report in found["reports"].values() for line in report["lines"])
    assert all(word in told for word in ("kept", "cut", "refused"))
    groups = [group for _, _, group, _ in found["trees"]["training"]]
    if kind == "conversations":
        assert any("again" in group for group in groups)
        assert any(len(paths) > 1 for *_, paths in found["trees"]["training"])
    else:
        assert any(len(paths) > 2 for *_, paths in found["trees"]["training"])
    if kind == "ratings":
        paths = [path for *_, paths in found["trees"]["training"] for path in paths]
        assert {path["desirable"] for path in paths} == {None, True, False}
        assert any("again" in name for name, *_ in found["trees"]["training"])
        assert any(len(path["tokens"]) == 60 for path in paths if path["desirable"] is None)


@of_conversations_and_pairs
def test_conversations_and_pairs_are_tokenised_as_the_chat_format_does(kind: str, tmp_path: Path) -> None:
    """A naive reference: each record through the chat format and the limits, by itself."""
    options: dict[str, Any] = {"mix": None, "lengths": Lengths(), "val_fraction": 0.0}
    if kind == "pairs":
        del options["mix"]
    data: Any = module(kind, tmp_path, **options)
    expected = []
    for source in data.sources:
        if kind == "conversations":
            for one in source.usable(lambda *_: None):
                if "<|im_end|>" not in one.messages[0].content:
                    expected += [(path, one.source) for path in data.chat.paths(one, "all")]
        else:
            for one in source.usable(lambda _: True, lambda *_: None):
                for side, answer in (("chosen", one.chosen), ("rejected", one.rejected)):
                    if one.chosen != one.rejected:
                        turns = (*one.prompt, Message("assistant", answer))
                        paths = data.chat.paths(Conversation(turns, f"{one.id} {side}", one.source), "last")
                        expected += [(path, one.source) for path in paths]
    found = {path.example: path for tree in data._trained for path in tree.paths}
    assert len(found) == len(expected) == sum(len(tree.paths) for tree in data._trained)
    for path, source in expected:
        own = found[path.example]
        assert (own.tokens.dtype, own.classes.dtype) == (np.int32, np.uint8)
        assert own.tokens.tolist() == path.tokens.tolist()
        assert own.classes.tolist() == path.classes.tolist()
        assert (own.weight, own.source) == (1.0, source)
    assert {path.weight for tree in data._replayed for path in tree.paths} == {0.0}


@of_all_kinds
def test_examples_in_files_are_those_in_memory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = everything(module(kind, tmp_path))
    monkeypatch.setattr(columns, "HELD", 100)
    monkeypatch.setattr(records, "HELD", 100)
    data = module(kind, tmp_path)
    assert data._trained._examples.columns.files  # type: ignore[attr-defined]
    assert everything(data) == expected


def test_what_is_small_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: Any, **__: Any) -> None:
        raise AssertionError("a file")

    monkeypatch.setattr(tempfile, "_mkstemp_inner", fault)
    monkeypatch.setattr(tempfile, "mkdtemp", fault)
    assert len(module("conversations", tmp_path)._trained)


def test_a_temporary_folder_goes_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "HELD", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = module("pairs", tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()]
    del data
    gc.collect()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@of_conversations_and_pairs
def test_a_part_and_its_records_go_as_soon_as_the_data_are_prepared(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Part]] = []
    real = Part.__init__

    def noted(self: Part, *args: Any) -> None:
        made.append(weakref.ref(self))
        real(self, *args)

    monkeypatch.setattr(Part, "__init__", noted)
    gc.collect()
    gc.disable()
    try:
        data = module(kind, tmp_path)
        assert len(made) >= 2
        assert [one() for one in made] == [None] * len(made)
    finally:
        gc.enable()
    assert len(data._trained)


@of_all_kinds
def test_a_worker_is_sent_the_names_of_files_and_not_what_is_in_them(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "HELD", 100)
    data = module(kind, tmp_path)
    dataset = data.train_dataloader().dataset
    assert isinstance(dataset, WindowDataset)
    tokens = data._trained._examples.columns["training.tokens"]  # type: ignore[attr-defined]
    sent = pickle.dumps(dataset)
    assert tokens[:20].tobytes() not in sent
    assert [window.examples for window in map(pickle.loads(sent).__getitem__, range(3))] == [
        window.examples for window in map(dataset.__getitem__, range(3))
    ]


def test_only_what_a_source_draws_is_tokenised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {
            "subset": "general",
            "messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "да"}],
        }
        for i in range(60)
    ]
    asked: list[str] = []
    real = ConversationTokeniser.__call__

    def counted(self: ConversationTokeniser, one: Conversation) -> Tokenised:
        asked.append(one.id)
        return real(self, one)

    monkeypatch.setattr(ConversationTokeniser, "__call__", counted)
    source = TWix(write_rows(tmp_path / "twix.jsonl", rows), sample_ratio=0.2)
    data = module("conversations", tmp_path, sources=[source], mix=None, replay=None, replay_share=0.0)
    assert len(asked) == len(set(asked)) == len(data._trained) + len(data._validation) < 15


# ------------------------------------------------------------------------------------------------ memory


def wide(number: int) -> Iterator[Conversation]:
    for i in range(number):
        yield Conversation((Message("user", f"{i} " + "word " * 400), Message("assistant", "yes")), f"row {i}", "wide")


def made_up(one: Conversation) -> Tokenised:
    """Tokens without a tokenizer, which is what takes the time."""
    path = TokenPath(np.full(400, int(one.messages[0].content.split()[0]), np.int32), np.ones(400, np.uint8), one.id)
    return Tokenised(one.id, one.group, one.source, (path,), 400, 400, (("kept", 1, 400),))


class Plain(Part):
    undivided = "answer"


@pytest.mark.parametrize("number", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_texts_and_tokens_are_not_held_in_memory(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "HELD", 2**14)
    monkeypatch.setattr(records, "HELD", 2**14)
    report = LengthReport("training", Lengths())
    tracemalloc.start()
    part = Plain("training", made_up, report, 8192, 1.0, "stop", Workshop())
    examples = part.examples(part.read(wide(number)))
    sums = [int(path.tokens[0]) for at in range(number) for path in examples.paths(at)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sums == list(range(number))
    # Of a row 2,000 bytes of text and as many of tokens; an outline with its two hashes has 300.
    assert peak < 500 * number + 500_000


def test_an_example_that_an_epoch_repeats_is_tokenised_and_counted_once() -> None:
    part = Plain("training", made_up, LengthReport("training", Lengths()), 8192, 1.0, "stop", Workshop())
    first, second = part.read(wide(2))
    examples = part.examples([first, second, first])
    assert (examples.order.tolist(), examples.copies.tolist()) == ([0, 1, 0], [0, 0, 1])
    assert len(examples.sizes) == 2
    assert part.report.state()["lines"] == ["wide: 2 answers: 2 kept"]


def test_an_example_over_the_budget_stops_before_the_next_one_is_tokenised() -> None:
    done: list[str] = []

    def noted(one: Conversation) -> Tokenised:
        done.append(one.id)
        return made_up(one)

    part = Plain("training", noted, LengthReport("training", Lengths()), 399, 1.0, "stop", Workshop())
    with pytest.raises(ValueError, match=r"row 0: its 400 tokens are over `data.token_budget` = 399"):
        part.examples(part.read(wide(5)))
    assert done == ["row 0"]


# ------------------------------------------------------------------------------------------------ processes


def test_one_process_takes_few_rows_and_all_processors_take_many() -> None:
    assert Workshop(None, None).processes_for(part_file.MANY) == 1
    assert Workshop(None, None).processes_for(part_file.MANY + 1) == in_order.cores()
    assert Workshop(None, None, ranks=10_000).processes_for(part_file.MANY + 1) == 1
    assert Workshop(None, 3).processes_for(5) == 3


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
@of_conversations_and_pairs
def test_the_first_broken_row_stops_any_number_of_processes_with_its_error(
    kind: str, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_order, "CHUNK", 4)
    rows = pairs()[:-1] if kind == "pairs" else chats()
    rows += [rows[0], rows[-1]]  # what is broken, a second time
    write_rows(tmp_path / ("pairs.jsonl" if kind == "pairs" else "chat.jsonl"), rows)
    rule = (
        "pairs.jsonl:31: chosen and rejected are equal" if kind == "pairs" else r"chat.jsonl:31, messages\[0\].content"
    )
    options = {} if kind == "pairs" else {"mix": None}
    with pytest.raises(ValueError, match=rf"^{rule}") as caught:
        module(kind, tmp_path, bad_rows="stop", processes=processes, val_fraction=0.0, **options)
    assert type(caught.value) is ValueError
    assert not multiprocessing.active_children()


@pytest.mark.slow
@of_all_kinds
def test_two_processes_prepare_what_one_does(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = everything(module(kind, tmp_path))
    monkeypatch.setattr(in_order, "CHUNK", 4)
    assert everything(module(kind, tmp_path, processes=2)) == expected


@pytest.mark.slow
def test_what_a_drawing_asks_for_is_tokenised_by_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_order, "CHUNK", 4)
    here: list[str] = []
    real = Part._tokenised

    def noted(self: Part, one: Outline) -> Tokenised:
        here.append(one.source)
        return real(self, one)

    monkeypatch.setattr(Part, "_tokenised", noted)
    module("conversations", tmp_path)
    alone, here = len(here), []
    monkeypatch.setattr(Part, "_tokenised", noted)
    module("conversations", tmp_path, processes=2)
    # The first usable one of each weight is looked at before the drawing.
    assert len(here) < alone / 4
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bad_rows": "stop"}, r"chat.jsonl:\d+, messages\[0\].content"),
        ({"mix": Mix({"chat.jsonl": 1, "table_skills": 1}, size=500)}, r"\d+ fewer than `size` = 500"),
    ],
)
def test_a_drawing_that_ends_in_an_error_leaves_no_process(
    options: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_order, "CHUNK", 4)
    with pytest.raises(ValueError, match=told):
        module("conversations", tmp_path, processes=2, **options)
    assert not multiprocessing.active_children()

"""Windows of a stream: whatever the position, the workers and the ranks, the same; and the shares of its mix."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_align.data import stream_module
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.mixture import question_hash
from lit_align.data.preference_stream import PreferenceStream
from lit_align.data.sft_stream import SFTStream
from lit_align.data.sources.named import NamedConversations
from lit_align.data.sources.t_wix import TWix
from lit_align.data.stream_module import StreamDataModule
from lit_align.data.streaming.windows import Streamed
from lit_align.forest import TokenForest, Window
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Conversation, ConversationSource, Message, PairSource, PreferencePair


@dataclass(frozen=True)
class Talks(ConversationSource):
    """Two questions on each table, one after another; every fifth answer is long, every seventh row unreadable."""

    name: str
    tables: int = 12
    unreadable: bool = False

    def conversations(self) -> list[Conversation]:
        """See the class."""
        raise AssertionError("a stream is not read whole")

    def stream(self, refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        """See the class."""
        for row in range(2 * self.tables):
            if self.unreadable and row % 7 == 3:
                refuse(self.name, ValueError(f"{self.name}:{row}: blank"))
                continue
            table, number = divmod(row, 2)
            asked = Message("user", f"table {table} : profit 2019 {table} . {self.name} {number}?")
            answer = Message("assistant", "yes " * (12 if row % 5 == 4 else 1 + table % 3))
            yield Conversation((asked, answer), f"{self.name}:{table}:{number}", self.name, f"{self.name} {table}")


@dataclass(frozen=True)
class Pairs(PairSource):
    """The same as pairs."""

    name: str
    tables: int = 12
    unreadable: bool = False

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """See the class."""
        return list(self.stream(keep, lambda *_: None))

    def stream(
        self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]
    ) -> Iterator[PreferencePair]:
        """See the class."""
        for one in Talks(self.name, self.tables, self.unreadable).stream(refuse):
            if keep(one.group):
                yield PreferencePair(one.messages[:-1], one.messages[-1].content, "no", one.id, one.source, one.group)


KINDS: dict[str, tuple[Any, Any]] = {"conversations": (SFTStream, Talks), "pairs": (PreferenceStream, Pairs)}
of_both_kinds = pytest.mark.parametrize("kind", KINDS)
HALF = Mix({"small": 1, "large": 1}, by="repeat")
SHORT = Lengths(max_length=60)


@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading it takes most of the time of these tests."""
    monkeypatch.setattr(stream_module, "load_tokenizer", _tokenizer)


_tokenizer = cache(load_tokenizer)


def streamed(kind: str, step: int = 0, rank: int = 0, ranks: int = 1, **options: Any) -> StreamDataModule:
    module, source = KINDS[kind]
    options = {
        "sources": [source("small", 6), source("large", 24)], "mix": HALF, "window": 5, "token_budget": 256,
        "shuffle_buffer": 4, "lengths": SHORT, **options,
    }  # fmt: skip
    data: StreamDataModule = module(**options)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_step=step, global_rank=rank, world_size=ranks, fast_dev_run=False
    )
    data.setup("fit")
    return data


def run(data: StreamDataModule, windows: int) -> list[Window]:
    """So many windows, as a trainer takes them that fetches one ahead: each is counted after the next was read."""
    found: list[Window] = []
    trainer: Any = data.trainer
    while len(found) < windows:
        before: Window | None = None
        for window in data.train_dataloader():
            if before is not None:
                found.append(before)
                trainer.global_step += 1
            before = window
            if len(found) == windows:
                return found
        assert before is not None
        found.append(before)
        trainer.global_step += 1
    return found


def contents(window: Window) -> tuple[int, tuple[str, ...], list[tuple[list[int], list[int]]]]:
    def numbers(forest: TokenForest) -> tuple[list[int], list[int]]:
        return forest.tokens.tolist(), forest.positions.tolist()

    return window.index, window.examples, [numbers(forest) for forest in window.forests]


def names(windows: list[Window]) -> Counter[str]:
    return Counter(name for window in windows for name in window.examples)


@of_both_kinds
def test_a_run_goes_on_from_every_position_as_if_it_had_not_stopped(kind: str) -> None:
    whole = [contents(window) for window in run(streamed(kind), 40)]
    assert [index for index, *_ in whole] == list(range(40))
    for step in (1, 16, 17, 18, 39):
        earlier = streamed(kind)
        run(earlier, step)
        later = streamed(kind, step)
        later.load_state_dict(earlier.state_dict())
        assert [contents(window) for window in run(later, 40 - step)] == whole[step:], step


@of_both_kinds
def test_every_epoch_holds_what_the_first_one_does_in_another_order(kind: str) -> None:
    data = streamed(kind)
    epochs = [list(data.train_dataloader())]
    for _ in range(2):
        data.trainer.global_step = data.state_dict()["end"]  # type: ignore[union-attr,misc]
        epochs.append(list(data.train_dataloader()))
    assert epochs[1][0].index == len(epochs[0])
    large = [{name: n for name, n in names(epoch).items() if "large" in name} for epoch in epochs]
    assert large[0] == large[1] == large[2]
    assert len({tuple(window.examples for window in epoch) for epoch in epochs}) == 3


@of_both_kinds
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores, as here
@pytest.mark.parametrize("workers", [2, 3])
def test_workers_change_no_window(kind: str, workers: int) -> None:
    alone = [contents(window) for window in run(streamed(kind), 30)]
    assert [contents(window) for window in run(streamed(kind, workers=workers), 30)] == alone
    later = streamed(kind, 8, workers=workers)
    assert [contents(window) for window in run(later, 22)] == alone[8:]


@of_both_kinds
def test_the_parts_of_two_ranks_are_the_window_of_one(kind: str) -> None:
    alone = run(streamed(kind), 30)
    ranks = [run(streamed(kind, rank=rank, ranks=2), 30) for rank in range(2)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert {(part.index, part.examples) for part in parts} == {(whole.index, whole.examples)}
        held = [
            sorted(name for part in some for one in part.forests for name in one.examples) for some in (parts, [whole])
        ]
        assert held[0] == held[1]
        assert sum(len(one) for part in parts for one in part.forests) == sum(len(one) for one in whole.forests)


@of_both_kinds
def test_every_window_but_the_last_of_an_epoch_has_the_size_asked_for(kind: str) -> None:
    sizes = [len(window.examples) for window in streamed(kind).train_dataloader()]
    assert sizes[:-1] == [5] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= 5


@of_both_kinds
def test_what_the_lengths_drop_is_replaced_so_that_the_shares_hold(kind: str) -> None:
    found = names(list(streamed(kind).train_dataloader()))
    by_source = Counter[str]()
    for name, times in found.items():
        by_source[name.split(":")[0]] += times
    assert abs(by_source["small"] - by_source["large"]) <= 2  # a run of a table
    kept = [row for row in range(48) if row % 5 != 4]
    assert {name for name in found if "large" in name} == {f"large:{row // 2}:{row % 2}" for row in kept}


def test_the_shares_hold_in_every_window() -> None:
    data = streamed("pairs", window=8, mix=Mix({"small": 1, "large": 3}, by="repeat"), lengths=Lengths(max_length=256))
    for window in islice(data.train_dataloader(), 6):
        assert abs(sum(name.startswith("small") for name in window.examples) - 2) <= 2


@pytest.mark.parametrize(("mix", "windows"), [(Mix({"small": 1, "large": 1}), 4), (HALF, 16)])
def test_an_epoch_ends_with_the_first_source_or_once_all_were_read_whole(mix: Mix, windows: int) -> None:
    epoch = list(streamed("conversations", mix=mix).train_dataloader())
    assert abs(len(epoch) - windows) <= 1
    found = {name.split(":")[0]: 0 for name in names(epoch)}
    assert set(found) == {"small", "large"}
    whole = {name for name in names(epoch) if name.startswith("small")}
    assert whole == {f"small:{row // 2}:{row % 2}" for row in range(12) if row % 5 != 4}


@of_both_kinds
@pytest.mark.parametrize("of", ["examples", "tokens"])
def test_an_epoch_of_a_size_has_that_size_and_its_length_is_known(kind: str, of: Any) -> None:
    data = streamed(kind, mix=Mix({"small": 1, "large": 2}, by="repeat", size=23, of=of))
    epoch = list(data.train_dataloader())
    assert [len(window.examples) for window in epoch] == [5, 5, 5, 5, 3]
    assert data.windows_per_epoch == 5


def test_a_size_that_the_sources_cannot_meet_is_an_error_at_the_start() -> None:
    with pytest.raises(
        ValueError, match=r"cannot be met: \d+ examples keep the weights, \d+ fewer than `size` = 90, fo"
    ):
        streamed("pairs", mix=Mix({"small": 1, "large": 1}, size=90))


@of_both_kinds
def test_neighbours_of_a_group_stay_together_and_share_a_tree(kind: str) -> None:
    data = streamed(kind, window=4, token_budget=512, lengths=Lengths(max_length=256))
    for window in islice(data.train_dataloader(), 6):
        tables = [name.rsplit(":", 1)[0] for name in window.examples]
        assert tables == [tables[0]] * 2 + [tables[2]] * 2
        [forest] = window.forests
        alone = {name: tree.size for tree in data._trained for name in [tree.name]}
        assert len(forest) < sum(alone[name] for name in window.examples) - 20


@pytest.mark.parametrize("budget", [43, 45, 46, 47, 48, 50])
def test_a_group_over_the_token_budget_parts_no_pair(budget: int) -> None:
    data = streamed("pairs", sources=[Pairs("small", 6)], mix=None, window=4, token_budget=budget)
    pairs = 0
    for window in data.train_dataloader():
        for forest in window.forests:
            assert len(forest) <= budget
            sides = Counter(name.rsplit(" ", 1)[0] for name in forest.examples)
            assert set(sides.values()) == {2}
            pairs += len(sides)
    assert pairs == 10


@of_both_kinds
def test_copies_of_a_group_that_meet_in_a_window_are_groups_of_their_own(kind: str) -> None:
    data = streamed(kind, window=96)
    [members] = data._stream.epoch(0).windows()
    copies = Counter((tree.name, tree.group) for tree in members)
    assert set(copies.values()) == {1}
    assert {"small 0", "small 0 again 1", "small 0 again 2"} <= {tree.group for tree in members}


def test_a_source_without_a_mix_is_read_from_its_beginning_to_its_end() -> None:
    data = streamed("conversations", sources=[Talks("small")], mix=None, shuffle_buffer=1, lengths=Lengths())
    found = [name for window in data.train_dataloader() for name in window.examples]
    assert found == [f"small:{row // 2}:{row % 2}" for row in range(24)]
    assert data.source_names == ("small",)


@of_both_kinds
def test_what_is_validated_is_passed_over_and_counted(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    source = KINDS[kind][1]("large", 3)
    data = streamed(kind, val_sources=[source], lengths=Lengths(max_length=256))
    found = names(list(data.train_dataloader()))
    assert {name for name in found if "large" in name} == {f"large:{row // 2}:{row % 2}" for row in range(6, 48)}
    assert "training, beginning of the stream: large: 6 rows passed over, being held out" in caplog.messages
    assert data.source_names == ("small", "large") if kind == "pairs" else ("large", "small")
    assert sum(len(window.examples) for window in data.val_dataloader()) > 0  # type: ignore[union-attr]


def test_what_a_benchmark_measures_is_passed_over() -> None:
    data = streamed("conversations", lengths=Lengths(max_length=256))
    before = data.identity()
    data.keep_out(["large 3"], [question_hash("table 0 : profit 2019 0 . small 1?")])
    found = names(list(data.train_dataloader()))
    everything = {
        f"{name}:{row // 2}:{row % 2}" for name, rows in (("small", 12), ("large", 48)) for row in range(rows)
    }
    assert everything - set(found) == {"large:3:0", "large:3:1", "small:0:1"}
    assert data.identity() != before


@dataclass(frozen=True)
class BrokenTalks(Talks):
    """A row late in the source cannot be read."""

    def stream(self, refuse: Callable[[str, ValueError], None]) -> Iterator[Conversation]:
        """See the class."""
        yield from super().stream(refuse)
        refuse(self.name, ValueError("rows.jsonl:25: prompt: is blank"))
        yield from replace(self, name=f"{self.name}/later").stream(refuse)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_that_breaks_a_rule_late_in_the_stream_is_told_as_it_is(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "JUDGED", 4)
    data = streamed("conversations", sources=[BrokenTalks("small")], mix=None, workers=workers, lengths=Lengths())
    found: list[Window] = []
    with pytest.raises(ValueError, match=r"^rows\.jsonl:25: prompt: is blank$"):
        found.extend(data.train_dataloader())
    assert len(found) == 3


def test_bad_rows_and_long_answers_are_counted_and_stop_the_run_where_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(stream_module, "JUDGED", 4)
    monkeypatch.setattr("lit_align.data.streaming.epoch.JUDGED", 20)
    source = Talks("small", 40, unreadable=True)
    data = streamed("conversations", sources=[source], mix=None, bad_rows="drop", lengths=SHORT)
    list(data.train_dataloader())
    [told] = [line for line in caplog.messages if "16 windows" in line or "epoch 0" in line]
    assert "small: 80 answers: 55 kept, 11 refused, 14 too long; first refusal: small:3: blank" in told
    data = streamed(
        "conversations", sources=[source], mix=None, bad_rows="drop", lengths=replace(SHORT, max_dropped=0.3)
    )
    found: list[Window] = []
    with pytest.raises(ValueError, match=r"small: 20 of 60 answers \(33%\) would be dropped, more than"):
        found.extend(data.train_dataloader())
    assert found, "the beginning is too short to be judged"


@of_both_kinds
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mix": None}, "`data.sources` are 2, and a stream is not known .* in `data.mix`"),
        ({"mix": Mix({"small": 1})}, "has no weight for source 'large'"),
        ({"mix": Mix({"small": 1, "large": 1, "lage": 1})}, "no source begins with a row of 'lage'; did you mean 'la"),
        ({"mix": Mix({"small": 1, "large": 1}, seed=1)}, "`data.mix.seed` = 1: a stream draws nothing at random"),
        ({"shuffle_buffer": 0}, "`data.shuffle_buffer` must be >= 1, got 0"),
        ({"sources": []}, "`data.sources` is empty"),
        ({"lengths": Lengths(max_length=8)}, "(small|large): .* would be dropped, more than|no example of .* is left"),
    ],
)  # fmt: skip
def test_what_makes_no_windows_is_refused_at_the_start(kind: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        streamed(kind, **options)


@of_both_kinds
def test_two_sources_of_one_name_and_one_of_two_names_are_refused(kind: str) -> None:
    source = KINDS[kind][1]
    with pytest.raises(ValueError, match=r"number 2 .*its weight 'small' is that of an earlier source"):
        streamed(kind, sources=[source("small"), source("small")], mix=Mix({"small": 1}))
    if kind == "conversations":
        with pytest.raises(ValueError, match="source of 'small' also yields 'large'"):
            streamed(kind, sources=[Chained([Talks("small"), Talks("large")])], mix=None)


@dataclass(frozen=True)
class Chained(ConversationSource):
    """Several sources one after another."""

    parts: list[Talks]

    def conversations(self) -> list[Conversation]:
        """See the class."""
        return [one for part in self.parts for one in part.stream(lambda *_: None)]


@of_both_kinds
def test_a_source_that_yields_nothing_is_named_with_the_rule(kind: str) -> None:
    with pytest.raises(
        ValueError, match=r"number 1 \((Talks|Pairs)\): no example is left for training: no row was read"
    ):
        streamed(kind, sources=[KINDS[kind][1]("small", 0)], mix=None)
    held = KINDS[kind][1]("small", 6)
    with pytest.raises(ValueError, match="'small' has nothing to train: 12 rows are held out for validation"):
        streamed(kind, val_sources=[held], lengths=Lengths())


def test_options_that_draw_from_a_whole_source_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t-wix.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path.write_text(json.dumps({"subset": "general", "messages": turns}), encoding="utf-8")
    for source in (TWix(str(path), sample_ratio=0.5), NamedConversations("mine", TWix(str(path), sample_ratio=0.5))):
        with pytest.raises(ValueError, match=r"TWix\.sample_ratio = 0\.5 draws from all of its rows"):
            SFTStream(sources=[source]).setup("fit")
    data = SFTStream(sources=[TWix(str(path))])
    data.setup("fit")
    assert data.source_names == ("t-wix",)


def test_the_forests_tried_at_the_start_fill_the_token_budget_and_branch() -> None:
    for kind in KINDS:
        data = streamed(kind, token_budget=1000)
        assert len(data.largest_forest()) == 1000
        assert len(data.probe_forest().examples) >= 2


def test_a_reference_that_is_cached_ahead_is_refused() -> None:
    with pytest.raises(ValueError, match=r"set CachedReference\.fill: lazily"):
        streamed("pairs").training_windows()


@of_both_kinds
def test_a_module_that_is_pickled_for_a_spawned_worker_makes_the_same_windows(kind: str) -> None:
    data = streamed(kind)
    opened = pickle.loads(pickle.dumps(data._opened(3)))
    found = [item.window for item in opened if isinstance(item, Streamed) and item.window is not None]
    assert [contents(window) for window in found] == [contents(window) for window in list(data.train_dataloader())[3:]]


def test_the_random_numbers_of_the_process_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    run(streamed("pairs"), 3)
    assert torch.equal(torch.rand(3), expected)

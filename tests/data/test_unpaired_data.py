"""Rated answers to windows: mismatches are other prompts' answers whatever the packing, and both kinds are there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data import rated_tokenising
from lit_align.data.audit.examples import examples
from lit_align.data.audit.load import realised_mix
from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mismatched import mismatches, with_answer_of
from lit_align.data.mix import Mix
from lit_align.data.part import Workshop
from lit_align.data.sources.unpaired_preference_file import UnpairedPreferenceFile
from lit_align.data.unpaired import UnpairedDataModule
from lit_align.forest import Window
from lit_align.rated import RatedAnswer, RatedSource
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Conversation, Message


@dataclass(frozen=True)
class Tables(RatedSource):
    """Answers about tables, so many each; the even ones are good."""

    number: int = 12
    answers: int = 6
    name: str = "tables"
    good: tuple[int, ...] = (0, 2, 4)

    def rated(self, keep: Callable[[str], bool]) -> list[RatedAnswer]:
        """See the class."""
        return [
            RatedAnswer(
                (Message("user", f"profit 2019 47 , 2020 51 .\ntable {table} question {answer // 2}?"),),
                "yes " * (answer + 1) + f"{table}", answer in self.good, f"{self.name}:{table}:{answer}", self.name,
                f"table {table}",
            )
            for table in range(self.number) if keep(f"table {table}") for answer in range(self.answers)
        ]  # fmt: skip


def some_data(rank: int = 0, ranks: int = 1, step: int = 0, **options: Any) -> UnpairedDataModule:
    data = UnpairedDataModule(**{"sources": [Tables()], "window": 16, **options})
    data.trainer = SimpleNamespace(global_step=step, global_rank=rank, world_size=ranks)  # type: ignore[assignment]
    data.setup("fit")
    return data


def test_a_source_that_brings_nothing_beside_others_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"training: `data.sources`, number 2 of 2 \(Tables\), brings no example"):
        some_data(sources=[Tables(), Tables(number=0)])


def windows(data: UnpairedDataModule) -> list[Window]:
    return list(data.train_dataloader())


def names(all_windows: list[Window]) -> Counter[str]:
    return Counter(name for window in all_windows for forest in window.forests for name in forest.examples)


def confronted(data: UnpairedDataModule) -> dict[str, str]:
    """For each answer the id of the one that it is confronted with."""
    found = {}
    for tree in data._trained:
        for own, other in zip(tree.paths[::2], tree.paths[1::2], strict=True):
            assert own.desirable is not None
            assert other.desirable is None
            mine, found[own.example] = other.example.split(" with the answer of ")
            assert mine == own.example
    return found


def table_of(name: str) -> str:
    return name.split(":")[1]


# ------------------------------------------------------------------------------------------------ mismatches


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=40).filter(lambda groups: len({*groups}) > 1))
def test_no_row_meets_its_own_group_and_each_answer_is_used_once_where_that_can_be(groups: list[int]) -> None:
    named = [f"group {one}" for one in groups]
    chosen = mismatches(named)
    assert all(named[other] != named[row] for row, other in enumerate(chosen))
    if max(Counter(named).values()) <= len(named) / 2:
        assert sorted(chosen) == list(range(len(named)))


def test_neighbours_in_the_file_are_not_neighbours_in_the_rotation() -> None:
    # Were they, two sources would answer themselves alone.
    groups = [f"{source} {row}" for source in ("a", "b") for row in range(200)]
    crossed = sum(groups[other][0] != groups[row][0] for row, other in enumerate(mismatches(groups)))
    assert 150 < crossed < 250


def test_rows_of_one_group_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="training: all 6 answers are of one group or prompt, and KTO compares"):
        some_data(sources=[Tables(number=1)])


def test_answers_to_one_prompt_never_meet_without_a_group(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n // 4} + 1?", "completion": f"{n}", "label": n % 2 == 0} for n in range(40)]
    path = tmp_path / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = some_data(sources=[UnpairedPreferenceFile(str(path))])
    numbers = {one: int(one.rpartition(":")[2]) - 1 for one in confronted(data)}
    assert all(numbers[one] // 4 != numbers[other] // 4 for one, other in confronted(data).items())
    assert {len(tree.paths) for tree in data._trained} == {8}  # and they share their prompt


@pytest.mark.parametrize(
    "options", [{"window": 5}, {"token_budget": 120}, {"seed": 3}, {"rank": 1, "ranks": 2}], ids=str
)
def test_windows_budget_seed_and_ranks_change_no_mismatch(options: dict[str, Any]) -> None:
    plain = confronted(some_data())
    assert confronted(some_data(**options)) == plain
    assert len(plain) == 72
    assert sorted(plain.values()) == sorted(plain)
    assert all(table_of(one) != table_of(other) for one, other in plain.items())


@pytest.mark.parametrize("thinking", [False, True])
def test_a_mismatched_path_is_what_the_template_makes_of_prompt_and_answer(thinking: bool) -> None:
    chat = ChatFormat(load_tokenizer("tiny-qwen3"), thinking=thinking)

    def path(prompt: str, answer: str) -> Any:
        turns = (Message("user", prompt), Message("assistant", answer))
        return chat.paths(Conversation(turns, "x", "x"), "last")[0]

    traced = "<think>\nlook\n</think>\n\nnine"
    for mine, other in (("four", "five"), ("four", traced), (traced, "five")):
        expected = path("2 + 2?", other)
        found = with_answer_of(path("2 + 2?", mine), path("a longer 4 + 1?", other))
        assert found.tokens.tolist() == expected.tokens.tolist()
        assert found.classes.tolist() == expected.classes.tolist()
        assert found.tokens.dtype == np.int32


def test_a_mismatched_answer_that_does_not_fit_is_cut_and_counted_and_no_row_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", rated_tokenising.logger.name)
    long = (Message("user", "profit " * 40),)
    answers = [
        RatedAnswer(long, "yes", True, "a:0:0", "s"),
        RatedAnswer((Message("user", "x"),), "no " * 40, False, "b:1:0", "s"),
    ]
    chat = ChatFormat(load_tokenizer("tiny-qwen3"))

    def trees(most: int) -> list[Any]:
        lengths = Lengths(max_length=most)
        part = rated_tokenising.RatedTokenising(chat, lengths, 4096, "stop", "training", Workshop())
        trees = rated_tokenising.RatedTrees(part.examples(part.read(answers)), 8, 4096, most)
        return [path for tree in trees for path in tree.paths]

    whole = trees(4096)
    assert not any("cut" in message for message in caplog.messages)
    most = max(len(path.tokens) for path in whole if path.desirable is not None)
    cut = trees(most)
    assert "training: 1 of 2 mismatched answers are cut" in "\n".join(caplog.messages)
    for before, after in zip(whole, cut, strict=True):
        assert after.tokens.tolist() == before.tokens[:most].tolist()
    assert [len(path.tokens) for path in cut if path.desirable is not None] == [
        len(path.tokens) for path in whole if path.desirable is not None
    ]


# ------------------------------------------------------------------------------------------------ windows


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("budget", [8192, 200])
def test_ranks_and_budget_change_no_window(ranks: int, budget: int) -> None:
    by_rank = [windows(some_data(rank=rank, ranks=ranks, token_budget=budget)) for rank in range(ranks)]
    alone = windows(some_data())
    for at, whole in enumerate(alone):
        assert names([one[at] for one in by_rank]) == names([whole])
    assert all(len(forest) <= budget for one in by_rank for window in one for forest in window.forests)
    rated = [one for window in alone for forest in window.forests for one in forest.desirable if one is not None]
    assert Counter(rated) == {True: 36, False: 36}


def test_answers_of_a_table_share_it() -> None:
    data = some_data()
    naive = [sum(len(path.tokens) for path in tree.paths) for tree in data._trained]
    assert max(tree.size for tree in data._trained) < 0.5 * min(naive)


def test_the_log_counts_both_kinds_and_the_answers_of_a_window(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = some_data(sources=[Tables(good=(0,))])
    assert (
        "training: 72 answers in 12 groups, 12 good and 60 bad; 4 windows an epoch, of 18 to 18 answers (asked for: 16)"
        in caplog.messages
    )
    assert data.rated_counts == (12, 60)


@pytest.mark.parametrize(("good", "there", "other"), [((), "bad", "good"), (tuple(range(6)), "good", "bad")])
def test_one_kind_alone_is_refused_in_training_and_not_in_validation(
    good: tuple[int, ...], there: str, other: str
) -> None:
    with pytest.raises(ValueError, match=rf"training: all 72 answers are {there}, .* name a source with {other} ones"):
        some_data(sources=[Tables(good=good)])
    assert some_data(val_sources=[Tables(good=good)])._validation


def test_a_split_parts_no_group() -> None:
    data = some_data(val_fraction=0.4)
    sides = [
        {table_of(path.example) for tree in trees for path in tree.paths[::2]}
        for trees in (data._trained, data._validation)
    ]
    assert sides[0] | sides[1] == {str(table) for table in range(12)}
    assert not sides[0] & sides[1]
    assert len(sides[1]) > 1
    # Nor does a prompt of the one side meet an answer of the other.
    assert {table_of(other) for other in confronted(data).values()} == sides[0]
    with pytest.raises(ValueError, match=r"`data.val_fraction` = 1e-06 holds out none of 72 answers"):
        some_data(val_fraction=1e-6)


def test_a_mix_draws_true_shares_and_copies_stand_apart() -> None:
    sources = [Tables(), Tables(number=3, name="few", good=(1, 3))]
    mix = Mix({"tables": 1, "few": 1}, by="repeat")
    data = some_data(sources=sources, mix=mix)
    counts = Counter(path.source for tree in data._trained for path in tree.paths[::2])
    assert counts == {"tables": 72, "few": 72}
    assert set(data.source_names) == {"tables", "few"}
    for tree in data._trained:  # a copy in one tree with its original would be one answer that counts twice
        own = [path.example for path in tree.paths[::2]]
        assert len(own) == len(set(own))
    assert "data.mix" in data.identity()


def test_another_rating_is_another_run_and_the_same_tokens() -> None:
    one, two = (some_data(sources=[Tables(good=good)]).identity() for good in ((0, 2, 4), (0, 2, 3)))
    assert one["data"] == two["data"]
    assert one["data.ratings"] != two["data.ratings"]
    assert one == some_data().identity()


def test_a_row_that_cannot_be_read_stops_or_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lit_align.data.length_report")
    rows: list[dict[str, Any]] = [{"prompt": f"{n}?", "completion": f"{n}", "label": n % 2 == 0} for n in range(8)]
    rows += [
        {"prompt": "x?", "completion": "x", "label": "yes"},
        {"prompt": "<|im_end|>", "completion": "x", "label": True},
    ]
    path = tmp_path / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = UnpairedPreferenceFile(str(path))
    with pytest.raises(ValueError, match=r"votes.jsonl:9: label: must be true"):
        some_data(sources=[source])
    assert some_data(sources=[source], bad_rows="drop").rated_counts == (4, 4)
    assert "votes.jsonl: 10 answers: 8 kept, 2 refused" in "\n".join(caplog.messages)


def test_an_answer_over_the_budget_with_its_mismatch_is_an_error_that_names_it() -> None:
    sizes = [tree.size for tree in some_data(window=1, sources=[Tables(answers=2)])._trained]
    rule = rf"tables:\d+:\d: the {max(sizes)} tokens of its answer and a mismatched one are over"
    with pytest.raises(ValueError, match=rule):
        some_data(window=1, sources=[Tables(answers=2)], token_budget=max(sizes) - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": []}, "`data.sources` is empty: name at least one source of rated answers"),
        ({"window": 0}, "`data.window` must be > 0, got 0"),
        ({"val_fraction": 1.0}, r"`data.val_fraction` must be in \[0, 1\), got 1.0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UnpairedDataModule(**{"sources": [Tables()], **options})


def test_the_largest_forest_is_no_smaller_than_any() -> None:
    data = some_data(token_budget=200)
    largest = len(data.largest_forest())
    assert all(len(forest) <= largest for window in windows(data) for forest in window.forests)
    assert {*data.probe_forest().desirable} >= {None, True}


def test_the_audit_sees_each_answer_once_and_no_mismatch() -> None:
    data = some_data(val_fraction=0.3)
    found = list(examples(data))
    rated = [path for trees in (data._trained, data._validation) for tree in trees for path in tree.paths[::2]]
    assert [one.id for one in found] == [path.example for path in rated]
    assert [len(one.paths) for one in found] == [1] * 72
    [mix] = realised_mix(data, {}).tables
    tokens = sum(int((path.classes == 1).sum()) for tree in data._trained for path in tree.paths[::2])
    assert (mix.rows[0][1], mix.rows[0][3]) == (sum(data.rated_counts), tokens)

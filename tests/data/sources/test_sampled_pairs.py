"""Pairs of samples: who is chosen and who rejected, what has no pair and why, and that a seed decides alone."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sample_lines import line, write_lines

from lit_align.data.mixture import group_of
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sources.finance_instruct import FinanceInstruct
from lit_align.data.sources.samples import BestOfSamples, RejectedSamples, RightAndWrong, sampled_pairs
from lit_align.types import Message, PairSource, PreferencePair


def everything(group: str) -> bool:
    return True


def answers(pairs: list[PreferencePair]) -> list[tuple[str, str, str]]:
    return [(pair.id, pair.chosen, pair.rejected) for pair in pairs]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """The one line that a source has logged."""
    caplog.set_level(logging.INFO, sampled_pairs.logger.name)

    def one() -> str:
        [message] = caplog.messages
        return message

    return one


def scored(name: str, *said: tuple[str, float], **options: Any) -> list[dict[str, Any]]:
    return [line(name, i, answer, scores={"f1": f1}, **options) for i, (answer, f1) in enumerate(said)]


# --- The gold answer against the model's own ------------------------------------------------------------------------


def test_gold_is_chosen_and_neither_blank_nor_unfinished_nor_equal_samples_are_rejected(
    tmp_path: Path, told: Callable[[], str]
) -> None:
    lines = [
        line("a", 0, "4"),
        line("a", 1, " 4\n"),
        line("a", 2, "  "),
        line("a", 3, "cut", finished=False),
        line("a", 4, "five "),
        line("b", 0, "4"),
    ]
    path = write_lines(tmp_path, lines)
    assert answers(RejectedSamples(path).pairs(everything)) == [("a", "4", "five ")]
    assert told() == (
        f"{path}: 1 pairs of 2 prompts; without a pair: 1 all samples left out; samples left out: 1 blank, 3 equal to "
        "the gold answer, 1 unfinished"
    )


def test_a_pair_keeps_what_the_prompt_was(tmp_path: Path) -> None:
    lines = [line("a", group="table 7") | {"prompt": [{"role": "system", "content": "Short."}, *line()["prompt"]]}]
    [pair] = RejectedSamples(write_lines(tmp_path, lines)).pairs(everything)
    turns = (Message("system", "Short."), Message("user", "2 + 2?"))
    assert pair == PreferencePair(turns, "4", "5", "a", "sums", "table 7")


def test_a_trace_is_kept_as_it_was_written(tmp_path: Path) -> None:
    said = "<think>\nhm\n</think>\n\n5"
    assert RejectedSamples(write_lines(tmp_path, [line(answer=said)])).pairs(everything)[0].rejected == said


def test_without_a_gold_answer_there_is_an_error_that_names_the_ways_without(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sums.jsonl: prompt 'b' has no gold answer; .*BestOfSamples, RightAndWrong"):
        RejectedSamples(write_lines(tmp_path, [line("a"), line("b", gold=" ")])).pairs(everything)


def test_samples_are_drawn_by_the_seed_and_each_prompt_by_itself(tmp_path: Path) -> None:
    lines = [line(str(i), j, f"wrong {j}") for i in range(60) for j in range(4)]
    path = write_lines(tmp_path, lines)
    first = RejectedSamples(path).pairs(everything)
    assert RejectedSamples(path).pairs(everything) == first
    assert RejectedSamples(path, seed=1).pairs(everything) != first
    assert min(Counter(pair.rejected for pair in first).values()) > 5
    turned = write_lines(tmp_path, lines[::-1][:120], "turned.jsonl")
    kept = {pair.id: pair for pair in RejectedSamples(turned).pairs(everything)}
    assert len(kept) == 30
    assert all(kept[pair.id] == pair for pair in first if pair.id in kept)


# --- The best against the worst -------------------------------------------------------------------------------------


def test_the_best_sample_is_chosen_and_the_worst_rejected_the_first_of_equals(
    tmp_path: Path, told: Callable[[], str]
) -> None:
    lines = [
        *scored("a", ("mid", 0.5), ("low", 0.1), ("top", 0.9), ("low too", 0.1), ("top too", 0.9), gold=""),
        *scored("b", ("x", 0.5), ("y", 0.5)),
        *scored("c", ("x", 0.5), ("y", 0.75)),
        line("d", 0, "best", finished=False, scores={"f1": 1}),
        line("d", 1, "x", scores={"f1": 0}),
    ]
    path = write_lines(tmp_path, lines)
    assert answers(BestOfSamples(path, "f1", min_margin=0.3).pairs(everything)) == [("a", "top", "low")]
    assert told().endswith(
        "1 pairs of 4 prompts; without a pair: 2 all samples equally good, 1 best and worst nearer than min_margin; "
        "samples left out: 1 unfinished"
    )
    assert answers(BestOfSamples(path, "f1", min_margin=0.25).pairs(everything))[1:] == [("c", "y", "x")]
    assert [pair.id for pair in BestOfSamples(path, "f1").pairs(everything)] == ["a", "c"]


def test_an_answer_is_never_set_against_itself(tmp_path: Path) -> None:
    lines = [*scored("a", ("x", 0.5), ("x", 0.500001)), *scored("b", ("x", 0.5), ("y", 0.6), ("x", 0.7))]
    assert answers(BestOfSamples(write_lines(tmp_path, lines), "f1").pairs(everything)) == [("b", "y", "x")]


# --- A right one against a wrong one --------------------------------------------------------------------------------


def test_a_right_sample_is_chosen_and_a_wrong_one_rejected_where_there_are_both(
    tmp_path: Path, told: Callable[[], str]
) -> None:
    lines = [
        *scored("a", ("half", 0.5), ("none", 0.0), ("whole", 1.0)),
        *scored("b", ("whole", 1.0)),
        *scored("c", ("none", 0.0), ("half", 0.5)),
    ]
    path = write_lines(tmp_path, lines)
    [pair] = RightAndWrong(path, "f1").pairs(everything)
    assert (pair.id, pair.chosen) == ("a", "whole")
    assert pair.rejected in {"half", "none"}
    assert "1 pairs of 3 prompts; without a pair: 1 all samples right, 1 all samples wrong; samples left out: none" in (
        told()
    )
    low = RightAndWrong(path, "f1", threshold=0.5).pairs(everything)
    assert [(pair.id, pair.rejected) for pair in low] == [("a", "none"), ("c", "none")], "the threshold itself is right"


def test_right_and_wrong_samples_are_drawn_by_the_seed(tmp_path: Path) -> None:
    said = [("r0", 1.0), ("r1", 1.0), ("w0", 0.0), ("w1", 0.0)]
    path = write_lines(tmp_path, [one for i in range(60) for one in scored(str(i), *said)])
    first = RightAndWrong(path, "f1").pairs(everything)
    assert RightAndWrong(path, "f1").pairs(everything) == first
    assert RightAndWrong(path, "f1", seed=1).pairs(everything) != first
    drawn = Counter((pair.chosen, pair.rejected) for pair in first)
    assert len(drawn) == 4
    assert min(drawn.values()) > 5


# --- All of them ----------------------------------------------------------------------------------------------------

SOURCES: list[Callable[[str], PairSource]] = [
    RejectedSamples,
    lambda path: BestOfSamples(path, "f1"),
    lambda path: RightAndWrong(path, "f1"),
]


@pytest.mark.parametrize("source", SOURCES)
def test_the_sides_of_a_split_part_the_groups_and_lone_prompts_by_what_they_ask(
    tmp_path: Path, source: Callable[[str], PairSource]
) -> None:
    lines = [
        one
        for i in range(12)
        for one in scored(str(i), ("5", 0.0), ("four", 1.0), group=f"t{i % 3}" if i < 9 else "", prompt=f"{i}?")
    ]
    made = source(write_lines(tmp_path, lines))
    whole = made.pairs(everything)
    assert len(whole) == 12
    for name in {group_of(pair) for pair in whole}:
        kept = made.pairs(lambda group, name=name: group == name)  # type: ignore[misc]
        assert kept == [pair for pair in whole if group_of(pair) == name]
        assert len(kept) == (3 if name.startswith("t") else 1)


@pytest.mark.parametrize("source", [BestOfSamples, RightAndWrong])
def test_a_score_that_is_not_in_the_file_is_answered_with_those_that_are(
    tmp_path: Path, source: Callable[[str, str], PairSource]
) -> None:
    path = write_lines(tmp_path, [line(scores={"exact_match": 1.0, "f1": 1.0})])
    says = r"sample 0 of '1' has no score 'exact'; did you mean 'exact_match'\? it has: exact_match, f1"
    with pytest.raises(ValueError, match=says):
        source(path, "exact").pairs(everything)
    bare = write_lines(tmp_path, [line()])
    with pytest.raises(ValueError, match=r"has no score 'f1'; it has none: its source has no metric"):
        source(bare, "f1").pairs(everything)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: BestOfSamples("x", "f1", min_margin=-0.1), r"BestOfSamples.min_margin must be >= 0, got -0.1"),
        (lambda: BestOfSamples("x", "f1", min_margin=float("nan")), r"min_margin must be >= 0, got nan"),
        (lambda: RightAndWrong("x", "f1", threshold=float("inf")), r"RightAndWrong.threshold must be finite, got inf"),
    ],
)
def test_options_without_sense_are_refused(build: Callable[[], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build()


def test_every_prompt_of_the_file_can_be_answered_anew(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [line("a", 0), line("a", 1), line("b", 0, "4")])
    found = RejectedSamples(path).prompts()
    assert [(one.id, one.gold, one.source) for one in found] == [("a", "4", "sums"), ("b", "4", "sums")]
    assert found[0].messages == (Message("user", "2 + 2?"),)


def test_training_on_samples_refuses_an_answer_of_a_trace_alone_by_its_name(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [line(answer="<think>\nhm\n</think>\n\n")])
    data = PreferenceDataModule(sources=[RejectedSamples(path)])
    with pytest.raises(ValueError, match=r"1 rejected, .*the answer after </think> is blank"):
        data.setup("fit")


# --- Rejected answers of Finance-Instruct: finished, of like length, worse by the scorer ----------------------------


def test_samples_of_another_length_are_left_out(tmp_path: Path, told: Callable[[], str]) -> None:
    gold = "a bond is a loan"
    path = write_lines(
        tmp_path, [line("a", i, said, gold=gold) for i, said in enumerate(["no", "a bond is debt", gold * 3])]
    )
    assert answers(RejectedSamples(path, max_length_ratio=1.5).pairs(everything)) == [("a", gold, "a bond is debt")]
    assert "samples left out: 2 of another length than the gold answer" in told()


def test_samples_that_are_not_worse_than_the_gold_answer_are_left_out(tmp_path: Path, told: Callable[[], str]) -> None:
    rewards = {"better": 2.0, "as good": 1.0, "nearly": 0.8, "worse": 0.1}
    lines = [
        line("a", i, said, scores={"reward": reward}, gold_scores={"reward": 1.0})
        for i, (said, reward) in enumerate(rewards.items())
    ]
    path = write_lines(tmp_path, [*lines, line("b", 0, "x", scores={"reward": 9.0}, gold_scores={"reward": 1.0})])
    found = {RejectedSamples(path, worse_by="reward", seed=seed).pairs(everything)[0].rejected for seed in range(30)}
    assert found == {"nearly", "worse"}


def test_a_margin_to_the_gold_answer_is_kept(tmp_path: Path, told: Callable[[], str]) -> None:
    lines = [
        line("a", i, str(reward), scores={"reward": reward}, gold_scores={"reward": 1.0})
        for i, reward in enumerate([2.0, 1.0, 0.75, 0.5])
    ]
    source = RejectedSamples(write_lines(tmp_path, lines), worse_by="reward", min_margin=0.5)
    assert answers(source.pairs(everything)) == [("a", "4", "0.5")]
    assert "samples left out: 3 not worse than the gold answer" in told()


def test_a_file_without_gold_scores_cannot_say_what_is_worse(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [line("a", scores={"reward": 1.0})])
    with pytest.raises(ValueError, match=r"gold answer of 'a' has no scores.*--score_gold=true"):
        RejectedSamples(path, worse_by="reward").pairs(everything)
    path = write_lines(tmp_path, [line("a", scores={"reward": 1.0}, gold_scores={"reward": 2.0})])
    with pytest.raises(ValueError, match=r"gold answer of 'a' has no score 'rewrd'; did you mean 'reward'"):
        RejectedSamples(path, worse_by="rewrd").pairs(everything)


@pytest.mark.parametrize(
    "options", [{"max_length_ratio": 0.9}, {"min_margin": 1.0}, {"worse_by": "reward", "min_margin": -1.0}]
)
def test_limits_of_rejected_samples_are_in_their_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"RejectedSamples\.(max_length_ratio|min_margin): must be"):
        RejectedSamples("sums.jsonl", **options)


def test_a_sample_file_of_finance_instruct_makes_its_pairs(tmp_path: Path) -> None:
    """What `lit-align sample` writes for the source, so that pairs and benchmark hold out the same questions."""
    rows = tmp_path / "finance.jsonl"
    rows.write_text('{"system": "\\n", "user": "What is a bond?", "assistant": "A loan to a state."}\n')
    [prompt] = FinanceInstruct(str(rows)).prompts()
    lines = [
        line(prompt.id, i, said, finished, gold=prompt.gold, group=prompt.group, prompt="What is a bond?")
        for i, (said, finished) in enumerate([("A loan to a", False), ("A share in a firm.", True)])
    ]
    [pair] = RejectedSamples(write_lines(tmp_path, lines), max_length_ratio=1.5).pairs(everything)
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt.messages, "A loan to a state.", "A share in a firm.")
    assert pair.group == FinanceInstruct(str(rows)).conversations()[0].group

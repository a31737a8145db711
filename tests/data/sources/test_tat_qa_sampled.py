"""TAT-QA against a model's own answers: the official metric alone says which of them are wrong."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sample_lines import write_lines
from tat_qa_tables import table_of, write

from lit_align.data.sources.tat_qa import sampled
from lit_align.data.sources.tat_qa.answers import DerivationThenAnswer
from lit_align.data.sources.tat_qa.prompt import DefaultPrompt
from lit_align.data.sources.tat_qa.sampled import SampledNegatives
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.types import SamplePrompt

TABLES = 12


def everything(group: str) -> bool:
    return True


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("tat-qa"), [table_of(i) for i in range(TABLES)])


@pytest.fixture(scope="module")
def asked(tables: str) -> dict[str, SamplePrompt]:
    return {one.id: one for one in TATQA(tables).prompts()}


def lines_of(one: SamplePrompt, *answers: str | tuple[str, bool]) -> list[dict[str, Any]]:
    """What `lit-align sample` writes of a prompt; an answer may come with whether it is finished."""
    pairs = [(answer, True) if isinstance(answer, str) else answer for answer in answers]
    return [
        {
            "id": one.id, "sample": j, "source": one.source, "group": one.group,
            "prompt": [{"role": turn.role, "content": turn.content} for turn in one.messages], "gold": one.gold,
            "answer": answer, "finished": finished, "tokens": 1, "scores": {"exact_match": 0.0, "f1": 0.0},
        }
        for j, (answer, finished) in enumerate(pairs)
    ]  # fmt: skip


def of_type(asked: Mapping[str, SamplePrompt], name: str) -> SamplePrompt:
    return next(one for one in asked.values() if one.source == f"tat-qa/{name}")


@pytest.fixture
def pair_of(tables: str, tmp_path: Path) -> Callable[..., tuple[str, str] | None]:
    """Chosen and rejected of one question, given its samples."""

    def answers(one: SamplePrompt, *said: str | tuple[str, bool]) -> tuple[str, str] | None:
        negatives = SampledNegatives(write_lines(tmp_path, lines_of(one, *said)))
        pairs = TATQA(tables, negatives=negatives).pairs(everything)
        assert {pair.id for pair in pairs} <= {one.id}
        return (pairs[0].chosen, pairs[0].rejected) if pairs else None

    return answers


def test_a_wrong_answer_is_rejected_as_it_was_written_and_gold_is_chosen(
    asked: dict[str, SamplePrompt], pair_of: Callable[..., tuple[str, str] | None]
) -> None:
    one = of_type(asked, "arithmetic")
    assert pair_of(one, "\nThe change  is 77,777.\n") == (one.gold, "The change  is 77,777.")


def test_a_right_answer_in_another_form_is_never_rejected(
    asked: dict[str, SamplePrompt], pair_of: Callable[..., tuple[str, str] | None]
) -> None:
    # The scores of the file say that all of them are wrong; they are not what counts.
    one = of_type(asked, "arithmetic")
    number, *scale = one.gold.split("\n")
    forms = [f"{float(number):,.2f}", f"{number}.00", f"Derivation: 1 + 1\n{number}"]
    forms += [f"<think>\nIt may be 5.\nOr 6.\n</think>\n\n{number}"]
    for form in ["\n".join([form, *scale]) for form in forms]:
        assert pair_of(one, form) is None, form
        assert pair_of(one, form, "12345.6")[1] == "12345.6"  # type: ignore[index]
    both = of_type(asked, "multi-span")
    first, second, *scale = both.gold.split("\n")
    assert pair_of(both, "\n".join([second, first, *scale])) is None
    assert pair_of(both, "\n".join([first, *scale])) is not None


def test_unfinished_and_blank_answers_are_never_rejected(
    asked: dict[str, SamplePrompt], pair_of: Callable[..., tuple[str, str] | None]
) -> None:
    one = of_type(asked, "span")
    assert pair_of(one, ("cut", False), " \n") is None
    assert pair_of(one, ("cut", False), " \n", "whole") == (one.gold, "whole")


def test_wrong_answers_are_drawn_as_often_as_they_were_given_and_by_the_seed(
    tables: str, asked: dict[str, SamplePrompt], tmp_path: Path
) -> None:
    said = ["often"] * 6 + ["seldom"] * 2
    path = write_lines(tmp_path, [one for prompt in asked.values() for one in lines_of(prompt, *said)])
    source = TATQA(tables, negatives=SampledNegatives(path))
    first = source.pairs(everything)
    assert source.pairs(everything) == first
    assert TATQA(tables, negatives=SampledNegatives(path), seed=1).pairs(everything) != first
    drawn = Counter(pair.rejected for pair in first)
    assert drawn.total() == len(asked) == 88
    assert 8 < drawn["seldom"] < 36  # 22 expected; a draw among the two texts would give 44
    # A question's draw depends on nothing but itself: neither on the side nor on the order of the file.
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(Path(path).read_text().splitlines())))
    some = TATQA(tables, negatives=SampledNegatives(str(turned))).pairs(lambda group: group.endswith("-3"))
    assert some == [pair for pair in first if pair.group.endswith("-3")]


def test_what_became_of_the_questions_is_told_in_one_line(
    tables: str, asked: dict[str, SamplePrompt], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third, fourth, *_ = asked.values()
    lines = [
        *lines_of(first, "wrong"),
        *lines_of(second, second.gold, second.gold),
        *lines_of(third, ("cut", False), ""),
        *lines_of(fourth, fourth.gold, "wrong"),
    ]
    path = write_lines(tmp_path, lines)
    caplog.set_level(logging.INFO, sampled.logger.name)
    assert [pair.id for pair in TATQA(tables, negatives=SampledNegatives(path)).pairs(everything)] == [
        first.id, fourth.id,
    ]  # fmt: skip
    assert caplog.messages == [
        f"TAT-QA: 2 pairs of 88 questions; 84 without samples in {path}, 1 without a finished one, 1 whose finished "
        "ones are all right"
    ]


def test_a_file_of_other_prompts_is_refused(tables: str, asked: dict[str, SamplePrompt], tmp_path: Path) -> None:
    lines = [line | {"id": "sums:1"} for line in lines_of(of_type(asked, "span"), "wrong")]
    source = TATQA(tables, negatives=SampledNegatives(write_lines(tmp_path, lines)))
    with pytest.raises(ValueError, match=r"holds samples of other prompts: of none of 88 .* of ids such as 'sums:1'"):
        source.pairs(everything)
    assert source.pairs(lambda _: False) == [], "a side without questions lacks nothing"


def test_a_file_made_from_another_file_of_questions_is_refused(
    tables: str, asked: dict[str, SamplePrompt], tmp_path: Path
) -> None:
    one, other, *_ = asked.values()
    lines = [line | {"id": one.id} for line in lines_of(other, "wrong")]
    source = TATQA(tables, negatives=SampledNegatives(write_lines(tmp_path, lines)))
    with pytest.raises(ValueError, match=rf"the prompt of '{one.id}' does not ask .* made from another file"):
        source.pairs(everything)


def test_an_answer_to_another_prompt_is_refused(tables: str, asked: dict[str, SamplePrompt], tmp_path: Path) -> None:
    one = of_type(asked, "arithmetic")
    negatives = SampledNegatives(write_lines(tmp_path, lines_of(one, "wrong")))
    says = rf"question {one.id}: its rejected answer was sampled for another prompt than the pair's: set `prompt` and"
    for options in ({"answer": DerivationThenAnswer()}, {"prompt": DefaultPrompt("gold")}):
        with pytest.raises(ValueError, match=says):
            TATQA(tables, negatives=negatives, **options).pairs(everything)  # type: ignore[arg-type]


def test_a_run_that_is_not_finished_is_refused(tables: str, asked: dict[str, SamplePrompt], tmp_path: Path) -> None:
    part = write_lines(tmp_path, lines_of(of_type(asked, "span"), "wrong"), "a.jsonl.part")
    with pytest.raises(ValueError, match="is not finished: run the same lit-align sample command again"):
        TATQA(tables, negatives=SampledNegatives(part.removesuffix(".part"))).pairs(everything)


def test_with_derivations_gold_shows_its_own_and_the_sample_what_the_model_wrote(tables: str, tmp_path: Path) -> None:
    asked = {one.id: one for one in TATQA(tables, answer=DerivationThenAnswer()).prompts()}
    one = of_type(asked, "arithmetic")
    assert one.gold.startswith("Derivation: ")
    for said in ("Derivation: 1 + 1\n77777", "77777"):
        negatives = SampledNegatives(write_lines(tmp_path, lines_of(one, said, one.gold)))
        [pair] = TATQA(tables, answer=DerivationThenAnswer(), negatives=negatives).pairs(everything)
        assert (pair.chosen, pair.rejected) == (one.gold, said)


# --- The prompts that are sampled ------------------------------------------------------------------------------------


def test_every_question_is_a_prompt_asked_as_in_the_pairs(tables: str, asked: dict[str, SamplePrompt]) -> None:
    pairs = TATQA(tables).pairs(everything)
    assert len(asked) == 88 > len(pairs) > 80
    for pair in pairs:
        one = asked[pair.id]
        assert (one.messages, one.gold, one.group, one.source) == (pair.prompt, pair.chosen, pair.group, pair.source)
    first = {one.group for one in TATQA(tables, limit=3).prompts()}
    assert first == {f"table-0-{i}" for i in range(3)}
    assert {one.group for one in TATQA(tables, group="question").prompts()} == {*asked}


def test_prompts_need_no_negatives(tables: str, asked: dict[str, SamplePrompt]) -> None:
    found = TATQA(tables, negatives=SampledNegatives("not-yet-written.jsonl")).prompts()
    assert [one.messages for one in found] == [one.messages for one in asked.values()]


def test_prompts_are_scored_by_the_official_metric(asked: dict[str, SamplePrompt]) -> None:
    for one in asked.values():
        assert one.score is not None
        assert one.score(one.gold) == {"exact_match": 1.0, "f1": 1.0}
        assert list(one.score("")) == ["exact_match", "f1"], "the main one first"
        assert one.score("") == {"exact_match": 0.0, "f1": 0.0}
    both = of_type(asked, "multi-span")
    assert both.score is not None
    half = both.score("\n".join(both.gold.split("\n")[1:]))
    assert half["exact_match"] == 0 < half["f1"] < 1

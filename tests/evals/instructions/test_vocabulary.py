"""Names and parameters of instructions as files have them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lit_align.evals.instructions.contract import Instruction
from lit_align.evals.instructions.keywords import Frequency
from lit_align.evals.instructions.scoring import follows, loose_variants
from lit_align.evals.instructions.vocabulary import INSTRUCTIONS, make

# Made with IFEval's own program: 301 answers to its 25 instructions, put together at random from what they look for,
# with the verdicts of that program; langdetect with seed 0 where it asks for a language.
# Parted at "\n" alone: one answer holds U+2028, at which splitlines would part it.
_LINES = (Path(__file__).parent / "ifeval_verdicts.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")
VERDICTS = [json.loads(line) for line in _LINES]


def test_the_recorded_verdicts_hold_both_outcomes_of_every_instruction() -> None:
    outcomes = {(one["instruction"], one["strict"]) for one in VERDICTS}

    assert outcomes == {(name, strict) for name in INSTRUCTIONS for strict in (True, False)}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_verdicts_are_those_of_the_official_program(name: str) -> None:
    for one in VERDICTS:
        if one["instruction"] == name:
            instruction, answer = make(name, one["kwargs"]), one["answer"]
            loose = any(follows(instruction, text) for text in loose_variants(answer))
            assert (follows(instruction, answer), loose) == (one["strict"], one["loose"]), one


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_a_blank_answer_follows_nothing(name: str) -> None:
    instruction = make(name, next(one["kwargs"] for one in VERDICTS if one["instruction"] == name))

    assert not follows(instruction, "")
    assert not follows(instruction, " \n\t\u2003")


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_a_planted_checker_that_always_agrees_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def agrees(instruction: Instruction, answer: str) -> bool:
        return True

    monkeypatch.setattr(INSTRUCTIONS[name], "is_followed", agrees)
    with pytest.raises(AssertionError):
        test_verdicts_are_those_of_the_official_program(name)


def test_parameters_that_are_null_count_as_not_given() -> None:
    given = {"keyword": "sea", "frequency": 2, "relation": "at least", "num_words": None, "language": None}

    assert make("keywords:frequency", given) == Frequency("sea", 2, "at least")


SEA = {"keyword": "sea", "frequency": 2, "relation": "at least"}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("keyword:frequency", SEA, "unknown instruction 'keyword:frequency'; did you mean 'keywords:frequency'?"),
        ("rhyme", {}, "unknown instruction 'rhyme'; known are: change_case:capital_word_frequency, "),
        ("keywords:frequency", {**SEA, "keyword": None}, "keyword is missing; it takes keyword, frequency, relation"),
        ("keywords:frequency", {**SEA, "letter": "a"}, "has no parameter letter; it takes keyword, frequency"),
        ("keywords:frequency", {**SEA, "relation": "at most"}, "relation must be 'less than' or 'at least', got 'at "),
        ("keywords:frequency", {**SEA, "frequency": "2"}, "frequency must be a whole number >= 0, got '2'"),
        ("keywords:frequency", {**SEA, "frequency": True}, "frequency must be a whole number >= 0, got True"),
        ("keywords:frequency", {**SEA, "frequency": -1}, "frequency must be a whole number >= 0, got -1"),
        ("keywords:frequency", {**SEA, "keyword": "c++("}, "keyword must be a word or regular expression, got 'c++('"),
        ("keywords:frequency", {**SEA, "relation": ["at least"]}, "relation must be 'less than' or 'at least', got ("),
        ("keywords:existence", {"keywords": []}, "keywords must be a list of one or more words or regular expressions"),
        ("keywords:existence", {"keywords": "sea"}, "keywords must be a list of one or more words"),
        ("keywords:existence", {"keywords": ["sea", 1]}, "keywords must be a list of one or more words"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
            "one character",
        ),
        ("startend:end_checker", {"end_phrase": " "}, "end_phrase must be text that is not blank, got ' '"),
        ("punctuation:no_comma", {"num_words": 3}, "has no parameter num_words; it takes none"),
        ("language:response_language", {"language": "Russian"}, "language must be a language code such as 'ru'"),
    ],
)
def test_unusable_names_and_parameters_are_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make(name, given)
    assert name in str(caught.value)

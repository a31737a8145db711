"""What scores without reading the prompt: near zero on our own file, so that a score there is the model's."""

from __future__ import annotations

from pathlib import Path

import pytest
from followed_answers import followed_answer

from lit_align.evals.instructions.baselines import baselines, constant_answers
from lit_align.evals.instructions.keywords import NoComma
from lit_align.evals.instructions.reading import OWN_FILE, InstructionPrompt, read_prompts
from lit_align.evals.instructions.scoring import followed, follows_all, strict_share

IFEVAL = Path("/work/shared/data/ifeval/input_data.jsonl")
NEAR_ZERO = 0.03
LOREM = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore."


@pytest.fixture(scope="module")
def prompts() -> list[InstructionPrompt]:
    return read_prompts(OWN_FILE)


@pytest.fixture(scope="module")
def right(prompts: list[InstructionPrompt]) -> list[str]:
    return [followed_answer(prompt) for prompt in prompts]


def test_every_prompt_can_be_followed(prompts: list[InstructionPrompt], right: list[str]) -> None:
    missed = [prompt.key for prompt, answer in zip(prompts, right, strict=True) if not follows_all(prompt, answer)]

    assert missed == []
    assert followed(prompts[0], right[0]).scores() == dict.fromkeys(
        ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"), 1.0
    )


def test_neither_echo_nor_a_constant_scores(prompts: list[InstructionPrompt]) -> None:
    known = baselines(prompts)

    assert known.echo == 0
    assert known.constant <= NEAR_ZERO
    for answer in ("", LOREM, LOREM * 20, LOREM.lower(), "Yes.", "Да.", "I am happy to help!", "12345"):
        assert strict_share(prompts, [answer] * len(prompts)) <= NEAR_ZERO


def test_no_right_answer_and_no_prompt_serves_other_prompts(prompts: list[InstructionPrompt], right: list[str]) -> None:
    for index, answer in enumerate([*right, *(prompt.text for prompt in prompts)]):
        others = [prompt for place, prompt in enumerate(prompts) if place != index % len(prompts)]
        assert strict_share(others, [answer] * len(others)) <= NEAR_ZERO


def test_the_right_answers_of_the_wrong_prompts_score_nothing(
    prompts: list[InstructionPrompt], right: list[str]
) -> None:
    for shift in (1, 7, 44):
        assert strict_share(prompts, right[shift:] + right[:shift]) <= NEAR_ZERO


def test_a_planted_easy_file_is_seen_through(prompts: list[InstructionPrompt]) -> None:
    easy = [InstructionPrompt(str(i), "Use no comma.", ("punctuation:no_comma",), (NoComma(),)) for i in range(4)]

    known = baselines(easy)

    assert (known.echo, known.constant) == (1.0, 1.0)
    assert known.constant_answer in constant_answers(easy)


@pytest.mark.skipif(not IFEVAL.exists(), reason="the published file is not here")
def test_on_the_published_file_both_score_well() -> None:
    known = baselines(read_prompts(IFEVAL))

    assert known.echo == pytest.approx(134 / 541)
    assert known.constant == pytest.approx(210 / 541)

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_align.data.chat import ChatFormat
from lit_align.data.sources.table_skills import TableSkillItems
from lit_align.evals import answering
from lit_align.evals.answering import Answer, Generation, Prompt
from lit_align.evals.generate import Completion
from lit_align.evals.sampling import TIE, Sampling, Ties
from lit_align.models.loading import Weights, load_base
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Message

SPEAKER: Any = SimpleNamespace(causal_lm=object())
QUESTION = ("q", (Message("user", "1 + 1?"),))


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(load_tokenizer("tiny-qwen3"))


def written(chat: ChatFormat, monkeypatch: pytest.MonkeyPatch, text: str, generation: Generation) -> Answer:
    ids = chat.tokenizer.encode(text, add_special_tokens=False)
    monkeypatch.setattr(answering, "generate", lambda *_, **__: [Completion(tuple(ids), hit_cap=False)])
    [answer] = generation.answers(SPEAKER, chat, generation.render(chat, [QUESTION]))
    return answer


def count(chat: ChatFormat, text: str) -> int:
    return len(chat.tokenizer.encode(text, add_special_tokens=False))


def test_thoughts_are_taken_off_and_counted(chat: ChatFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    thoughts = "<think>\nOne and one </thin make two.\n</think>"
    answer = written(chat, monkeypatch, thoughts + "\n\n2", Generation(thinking=True))

    assert answer.text == "2"
    assert answer.tokens == count(chat, thoughts + "\n\n2")
    assert answer.think_tokens == count(chat, thoughts)


def test_who_never_stops_thinking_has_not_answered(chat: ChatFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = written(chat, monkeypatch, "<think>\nThe answer is 2. Or is", Generation(thinking=True))

    assert answer.text == ""
    assert answer.think_tokens == answer.tokens > 0


def test_an_answer_without_thoughts_is_kept_to_the_letter(chat: ChatFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = written(chat, monkeypatch, " 2 </think> is a tag\n", Generation())

    assert (answer.text, answer.think_tokens) == (" 2 </think> is a tag\n", 0)


def test_a_block_that_the_prompt_opens_is_thoughts(chat: ChatFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = chat.tokenizer.encode("so 2.\n</think>\n\n2", add_special_tokens=False)
    monkeypatch.setattr(answering, "generate", lambda *_, **__: [Completion(tuple(ids), hit_cap=False)])
    prompt = Prompt("q", tuple(chat.tokenizer.encode("assistant\n<think>\n", add_special_tokens=False)))

    [answer] = Generation().answers(SPEAKER, chat, [prompt])

    assert (answer.text, answer.think_tokens) == ("2", count(chat, "so 2.\n</think>"))


def test_the_thinking_switch_goes_before_that_of_the_data(chat: ChatFormat) -> None:
    thinking_data = replace(chat, thinking=True)

    def rendered(format_: ChatFormat, generation: Generation) -> str:
        [prompt] = generation.render(format_, [QUESTION])
        return str(chat.tokenizer.decode(list(prompt.tokens)))

    assert rendered(chat, Generation()) == rendered(thinking_data, Generation())
    assert rendered(chat, Generation()).endswith("<think>\n\n</think>\n\n")
    assert not rendered(chat, Generation(thinking=True)).endswith("</think>\n\n")


def test_the_random_numbers_belong_to_seed_and_question(chat: ChatFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def generate(*_: Any, **options: Any) -> list[Completion]:
        asked.update(options)
        return [Completion((), hit_cap=False)]

    monkeypatch.setattr(answering, "generate", generate)
    generation = Generation(sampling=Sampling(0.7), seed=3)
    generation.answers(SPEAKER, chat, generation.render(chat, [QUESTION]))

    assert [(draw.seed, draw.prompt, draw.number) for draw in asked["draws"]] == [(3, "q", 0)]
    assert Generation(seed=1).conditions() == Generation(seed=2).conditions()
    assert replace(generation, seed=4).conditions() != generation.conditions()


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"batch_size": 0}, {"seed": -1}])
def test_unusable_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"generation.{next(iter(options))} must be at least"):
        Generation(**options)


def test_ties_are_counted_up_to_the_stop_token() -> None:
    ties = Ties()
    for second in (1 - TIE / 2, 1 - 2 * TIE, 1.0):
        ties(torch.zeros(2, 1), torch.tensor([[1.0, second, 0.0], [1.0, 0.0, 0.0]]))

    assert ties.by_row() == [[True, False, True], [False, False, False]]


def test_a_batch_answers_as_one_by_one_but_where_two_tie(chat: ChatFormat) -> None:
    policy: Any = SimpleNamespace(causal_lm=load_base("tiny-qwen3", Weights(dtype="float32")))
    items = TableSkillItems(skills=("scale", "compare", "chat"), n_per_skill=12, seed=5).items()
    generation = Generation(max_new_tokens=24, batch_size=12)
    prompts = generation.render(chat, ((item.id, item.prompt) for item in items))

    together = generation.answers(policy, chat, prompts)
    alone = [generation.answers(policy, chat, [prompt])[0] for prompt in prompts]

    differing = [(one, other) for one, other in zip(together, alone, strict=True) if one.text != other.text]
    assert all(one.ties > 0 for _, one in differing)
    assert len(differing) <= sum(one.ties > 0 for one in alone) <= 2

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from naive_decoding import naive

from lit_align.evals import generate as generate_module
from lit_align.evals.generate import Completion, generate
from lit_align.evals.no_trace import preserved_rng

PROMPTS = [[5, 9, 3], [7], [11, 4, 22, 17, 31, 8, 40, 2, 19], [6, 6], [50, 41, 3, 12, 13], [33, 20, 10, 5, 28, 44, 1]]


@pytest.fixture
def model(random_qwen3: str) -> Any:
    from transformers import Qwen3ForCausalLM

    model = Qwen3ForCausalLM.from_pretrained(random_qwen3)
    # The fixture's head is tied to the embedding, so that each token would mostly repeat itself.
    torch.manual_seed(3)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model.eval()


@pytest.fixture
def transformers_log() -> Iterator[list[str]]:
    """Warnings of transformers, which write to its own handler and bypass pytest's capture."""
    from transformers.utils import logging as transformers_logging

    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Collect(level=logging.WARNING)
    transformers_logging.add_handler(handler)
    transformers_logging.get_logger("transformers").warning_once.__func__.cache_clear()  # said before in this process
    yield lines
    transformers_logging.remove_handler(handler)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 32])
def test_batched_generation_equals_one_by_one_in_the_order_of_the_prompts(model: Any, batch_size: int) -> None:
    expected = [Completion(naive(model, prompt, 8), hit_cap=True) for prompt in PROMPTS]
    assert len({completion.tokens for completion in expected}) == len(PROMPTS), "the prompts must tell rows apart"

    assert generate(model, PROMPTS, max_new_tokens=8, stop_ids=[], batch_size=batch_size) == expected


def test_first_stop_token_ends_a_completion_and_is_left_out(model: Any) -> None:
    free = [naive(model, prompt, 8) for prompt in PROMPTS]
    stops = [free[0][3], free[2][5]]

    completions = generate(model, PROMPTS, max_new_tokens=8, stop_ids=stops)

    assert not all(completion.hit_cap for completion in completions)
    for completion, tokens in zip(completions, free, strict=True):
        end = min((tokens.index(stop) for stop in stops if stop in tokens), default=None)
        assert completion == Completion(tokens[:end], hit_cap=end is None)


def test_stop_token_in_the_last_allowed_place_is_no_hit_of_the_cap(model: Any) -> None:
    tokens = naive(model, PROMPTS[0], 8)
    place = next(index for index in range(1, 8) if tokens[index] not in tokens[:index])

    (completion,) = generate(model, PROMPTS[:1], max_new_tokens=place + 1, stop_ids=[tokens[place]])

    assert completion == Completion(tokens[:place], hit_cap=False)


def test_models_own_generation_config_neither_leaks_nor_warns(
    model: Any, transformers_log: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import GenerationConfig

    expected = [naive(model, prompt, 8) for prompt in PROMPTS]
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_k=20,
        top_p=0.95,
        repetition_penalty=3.0,
        no_repeat_ngram_size=1,
        suppress_tokens=[tokens[0] for tokens in expected],
        max_length=4,
        min_new_tokens=3,
        eos_token_id=expected[0][0],
        forced_eos_token_id=7,
    )

    completions = generate(model, PROMPTS, max_new_tokens=8, stop_ids=[60])

    assert [completion.tokens for completion in completions] == expected
    assert transformers_log == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fails", [False, True])
def test_mode_config_and_random_states_are_restored(model: Any, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    model.train()
    model.model.layers[1].eval()
    model.config.use_cache = False
    modes = [module.training for module in model.modules()]
    config = model.generation_config
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())

    def disturb(*_: Any, **__: Any) -> torch.Tensor:
        random.random(), np.random.rand(), torch.rand(1)
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        if fails:
            raise RuntimeError("planted")
        return torch.zeros(1, 3, dtype=torch.long)

    monkeypatch.setattr(model, "generate", disturb)
    if fails:
        with pytest.raises(RuntimeError, match="planted"):
            generate(model, [[1]], max_new_tokens=2, stop_ids=[])
    else:
        generate(model, [[1]], max_new_tokens=2, stop_ids=[])

    assert [module.training for module in model.modules()] == modes
    assert model.generation_config is config
    assert model.config.use_cache is False
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert torch.is_grad_enabled()


def test_a_model_in_train_mode_with_gradient_checkpointing_answers_as_in_eval_mode(model: Any) -> None:
    expected = generate(model, PROMPTS, max_new_tokens=4, stop_ids=[])
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.config.use_cache = False
    # The second name is the one of early 5.x releases, and deprecated in later ones.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    model.train()

    assert generate(model, PROMPTS, max_new_tokens=4, stop_ids=[]) == expected


def test_no_prompts_give_no_completions(model: Any) -> None:
    assert generate(model, [], max_new_tokens=4, stop_ids=[]) == []


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ([[1]], {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_generated_is_refused(
    model: Any, prompts: list[list[int]], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate(model, prompts, **{"max_new_tokens": 4, "stop_ids": [], **options})


def test_out_of_memory_names_the_option_to_lower(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("planted")

    monkeypatch.setattr(model, "generate", exhausted)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        generate(model, PROMPTS, max_new_tokens=4, stop_ids=[], batch_size=2)

    assert "lower batch_size (now 2)" in caught.value.__notes__[0]


def test_progress_shows_only_when_generation_takes_long(
    model: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    generate(model, PROMPTS, max_new_tokens=1, stop_ids=[], progress="new skill (before)")
    assert capfd.readouterr().err == ""

    monkeypatch.setattr(generate_module, "SECONDS_BEFORE_PROGRESS", 0)
    generate(model, PROMPTS, max_new_tokens=1, stop_ids=[])
    assert capfd.readouterr().err == ""
    generate(model, PROMPTS, max_new_tokens=1, stop_ids=[], progress="new skill (before)")
    shown = capfd.readouterr().err
    assert "new skill (before)" in shown
    assert f"/{len(PROMPTS)}" in shown


def test_ties_after_the_end_of_an_answer_are_none_of_its_own() -> None:
    row, tied = [5, 6, 9, 9], [True, False, True, True]

    assert generate_module._cut(row, tied, stop_ids=[9]).ties == 2
    assert generate_module._cut(row, tied, stop_ids=[]).ties == 3


def test_preserved_rng_restores_after_an_exception() -> None:
    before = torch.get_rng_state()

    @preserved_rng()
    def draw_and_fail() -> None:
        torch.rand(3)
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        draw_and_fail()

    assert torch.equal(torch.get_rng_state(), before)

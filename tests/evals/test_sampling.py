from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lit_align.evals.generate import generate
from lit_align.evals.sampling import Draw, Sampling, draw_tokens
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy

PROMPTS = [[5, 9, 3], [5, 9, 3], [7], [11, 4, 22, 17, 31, 8, 40, 2, 19], [6, 6]]
DRAWS = [Draw(1, "a", 0), Draw(1, "a", 1), Draw(1, "b", 0), Draw(1, "c", 0), Draw(1, "d", 0)]


@pytest.fixture
def model(random_qwen3: str) -> Any:
    return Policy(random_qwen3, Weights("float32"), LoRA(rank=2), "tree_sdpa").causal_lm.eval()


def uniforms(count: int) -> torch.Tensor:
    return torch.from_numpy((np.arange(count) + 0.5) / count)  # every part of [0, 1) alike


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(0.5), Sampling(1.7, top_k=3), Sampling(0.8, top_p=0.7), Sampling(1.3, top_p=0.6, top_k=5)],
    ids=str,
)
def test_shares_of_the_drawn_tokens_are_those_of_transformers_own_warpers(sampling: Sampling) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(0))
    warped = TemperatureLogitsWarper(sampling.temperature)(None, logits)
    if sampling.top_k:
        warped = TopKLogitsWarper(sampling.top_k)(None, warped)
    if sampling.top_p < 1:
        warped = TopPLogitsWarper(sampling.top_p)(None, warped)

    count = 20_000
    drawn = draw_tokens(logits.expand(count, 9), uniforms(count), sampling)

    shares = torch.bincount(drawn, minlength=9) / count
    torch.testing.assert_close(shares, warped.softmax(-1)[0], atol=2 / count, rtol=0)


def test_a_uniform_of_nearly_one_draws_a_token_that_has_a_probability() -> None:
    logits = torch.tensor([[0.0, 1.0, float("-inf"), float("-inf")]])
    for sampling in (Sampling(), Sampling(top_p=0.9), Sampling(top_k=3)):
        assert draw_tokens(logits, torch.tensor([1 - 2**-53], dtype=torch.float64), sampling).item() in (0, 1)


def test_a_completion_does_not_depend_on_its_batch(model: Any) -> None:
    sampling = Sampling(0.9, top_p=0.95)
    options: dict[str, Any] = {"max_new_tokens": 12, "stop_ids": [], "sampling": sampling}
    together = generate(model, PROMPTS, draws=DRAWS, **options)
    alone = [generate(model, [one], draws=[draw], **options)[0] for one, draw in zip(PROMPTS, DRAWS, strict=True)]
    backwards = generate(model, PROMPTS[::-1], draws=DRAWS[::-1], batch_size=2, **options)[::-1]

    assert together == alone == backwards
    assert together[0] != together[1], "two samples of one prompt must differ"


def test_another_seed_gives_another_completion_and_the_same_one_the_same(model: Any) -> None:
    def first_tokens(seed: int) -> list[tuple[int, ...]]:
        draws = [Draw(seed, "a", number) for number in range(4)]
        return [
            one.tokens
            for one in generate(model, [[5, 9]] * 4, max_new_tokens=8, stop_ids=[], sampling=Sampling(), draws=draws)
        ]

    assert first_tokens(3) == first_tokens(3)
    assert first_tokens(3) != first_tokens(4)


def test_global_random_numbers_take_no_part_and_stay_as_they_are(model: Any) -> None:
    state = torch.get_rng_state()
    options: dict[str, Any] = {"max_new_tokens": 5, "stop_ids": [], "sampling": Sampling(), "draws": DRAWS}
    first = generate(model, PROMPTS, **options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert generate(model, PROMPTS, **options) == first


def test_temperature_zero_is_greedy_and_takes_no_draws(model: Any) -> None:
    greedy = generate(model, PROMPTS, max_new_tokens=5, stop_ids=[])
    assert generate(model, PROMPTS, max_new_tokens=5, stop_ids=[], sampling=Sampling(0.0)) == greedy
    with pytest.raises(ValueError, match="5 draws for 5 prompts: one each, and none with temperature 0"):
        generate(model, PROMPTS, max_new_tokens=5, stop_ids=[], draws=DRAWS)
    with pytest.raises(ValueError, match="0 draws for 5 prompts"):
        generate(model, PROMPTS, max_new_tokens=5, stop_ids=[], sampling=Sampling())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "sampling.temperature must be finite and >= 0, got -0.1"),
        ({"temperature": float("nan")}, "sampling.temperature must be finite"),
        ({"top_p": 0.0}, r"sampling.top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"sampling.top_p must be in \(0, 1\], got 1.5"),
        ({"top_k": -1}, "sampling.top_k must be >= 0, got -1"),
    ],
)
def test_settings_out_of_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**options)

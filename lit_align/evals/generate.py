"""Batched generation; the only place that calls ``model.generate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lit_align.evals.no_trace import evaluating, preserved_rng
from lit_align.evals.prompt_cache import cache_argument, families, prompt_cache
from lit_align.evals.ranks import gathered, rank_and_world
from lit_align.evals.sampling import GREEDY, Draw, DrawnTokens, Sampling, Ties

if TYPE_CHECKING:
    from transformers import GenerationConfig

SECONDS_BEFORE_PROGRESS = 1.5  # a benchmark that is over sooner shows no bar


class CausalLM(Protocol):
    """What generation needs of a causal language model of transformers; ``Policy.causal_lm`` is one.

    Attributes:
        generation_config: Its own defaults, which take no part here.
    """

    generation_config: Any

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""

    def modules(self) -> Iterator[nn.Module]:
        """The model and all of its submodules."""

    def generate(
        self,
        inputs: Tensor,
        *,
        attention_mask: Tensor,
        generation_config: GenerationConfig,
        logits_processor: Any,
        **cache: Any,
    ) -> Tensor:
        """Prompts followed by new tokens."""

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What a step of ``generate`` hands to the model."""


@dataclass(frozen=True)
class Completion:
    """What the model wrote after a prompt.

    Attributes:
        tokens: The new token ids, without the stop token.
        hit_cap: Whether ``max_new_tokens`` ended it, not a stop token.
        ties: Greedy choices, the stop token's included, whose two likeliest tokens had logits within 1e-4: in another
            batch or on another machine rounding may choose the other one. 0 where tokens are drawn.
    """

    tokens: tuple[int, ...]
    hit_cap: bool
    ties: int = field(default=0, compare=False)  # at the brink rounding says whether two tie


def generate(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    batch_size: int = 32,
    progress: str | None = None,
    sampling: Sampling = GREEDY,
    draws: Sequence[Draw] | None = None,
) -> list[Completion]:
    """Continue each prompt, in batches padded on the left.

    Greedy means greedy: sampling options, penalties and length limits in the model's own generation config (Qwen3
    ships temperature 0.6) take no part; ``sampling`` alone does. In fp32 a batch gives the tokens that each prompt
    gives alone, except where two logits tie to rounding: also when tokens are drawn, since the random numbers are those
    of the completion. What the prompts of a batch share is computed once. Under ``torch.distributed`` each rank
    computes its share of the batches, and all of them must call. Train mode of every submodule, generation config and
    all random states are afterwards what they were, also after an exception.

    Args:
        model: A causal language model of transformers, adapters included, on its device.
        prompts: Token ids of each prompt, none empty; on all ranks the same.
        max_new_tokens: Cap on the length of a completion in tokens, at least 1.
        stop_ids: Tokens of which the first one ends a completion; may be empty.
        batch_size: Prompts that run at once, at least 1. Prompts that share the larger part of their tokens come
            together, else those of like length, longest first, so that the largest batch comes first.
        progress: Label of a progress bar, shown once generation has taken more than 1.5 seconds; none if ``None``.
        sampling: How tokens are drawn.
        draws: Names the random numbers of each completion; needed exactly when ``sampling`` is not greedy.

    Returns:
        One completion a prompt, in the order of the prompts, on every rank.

    Raises:
        ValueError: An empty prompt, ``max_new_tokens`` or ``batch_size`` below 1, or ``draws`` that are missing, too
            many or not asked for.

    Example:
        >>> from transformers import Qwen3Config, Qwen3ForCausalLM
        >>> config = Qwen3Config(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        ...                      num_attention_heads=2, num_key_value_heads=1, head_dim=8)
        >>> completions = generate(Qwen3ForCausalLM(config), [[1, 2, 3], [4]], max_new_tokens=5, stop_ids=[])
        >>> [len(completion.tokens) for completion in completions], completions[0].hit_cap
        ([5, 5], True)
    """
    completions: dict[int, Completion] = {}
    rank, world = rank_and_world()
    bar = tqdm(
        total=len(prompts),
        desc=progress,
        unit="item",
        delay=SECONDS_BEFORE_PROGRESS,
        leave=False,
        disable=progress is None or rank > 0,
    )
    with bar:
        for indices, batch in generate_batches(
            model,
            prompts,
            max_new_tokens=max_new_tokens,
            stop_ids=stop_ids,
            batch_size=batch_size,
            sampling=sampling,
            draws=draws,
            share=(rank, world),
        ):
            completions.update(zip(indices, batch, strict=True))
            bar.update(min(len(indices) * world, len(prompts) - bar.n))
    return list(gathered(completions).values())


def generate_batches(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    batch_size: int = 32,
    sampling: Sampling = GREEDY,
    draws: Sequence[Draw] | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[list[int], list[Completion]]]:
    """As :func:`generate`, batch by batch, for those who keep each before the next one is begun.

    Args:
        model: As there, like all that follows.
        prompts: Of all ranks.
        max_new_tokens: Cap.
        stop_ids: Stop tokens.
        batch_size: Prompts at once.
        sampling: How tokens are drawn.
        draws: Random numbers.
        share: Number of this rank and of all ranks; the batches are those of a single one, and this rank takes every
            so-manyth.

    Yields:
        Numbers of the batch's prompts, and their completions. The model is as it was while the caller has the turn.

    Raises:
        ValueError: As of :func:`generate`.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for index, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ValueError(f"prompt {index} is empty: there is no token to continue from")
    if len(draws or ()) != (0 if sampling.is_greedy else len(prompts)):
        raise ValueError(f"{len(draws or ())} draws for {len(prompts)} prompts: one each, and none with temperature 0")
    order = [index for family in families(prompts) for index in family]
    config = _generation_config(max_new_tokens, stop_ids)
    rank, world = share
    for start in range(rank * batch_size, len(prompts), world * batch_size):
        indices = order[start : start + batch_size]
        batch = [prompts[index] for index in indices]
        drawn = [draws[index] for index in indices] if draws else []
        try:
            with preserved_rng(), _generating(model, config), torch.no_grad():
                rows, chosen = _continue(model, batch, config, sampling, drawn)
        except torch.OutOfMemoryError as error:
            longest = max(map(len, batch))
            error.add_note(
                f"generation of {len(indices)} prompts of up to {longest} tokens plus {max_new_tokens} new ones: "
                f"lower batch_size (now {batch_size}) or max_new_tokens"
            )
            raise
        yield indices, [_cut(row, ties, stop_ids) for row, ties in zip(rows, chosen, strict=True)]


@contextmanager
def _generating(model: CausalLM, config: GenerationConfig) -> Iterator[None]:
    """Eval mode and ``config`` in place of the model's own generation config, for the time of the block."""
    # `generate` fills every option that its argument leaves open from the model's own config, so a repetition
    # penalty there would change the answers, and a temperature would print a warning.
    own_config = model.generation_config
    model.generation_config = config
    try:
        with evaluating(model):
            yield
    finally:
        model.generation_config = own_config


def _generation_config(max_new_tokens: int, stop_ids: Sequence[int]) -> GenerationConfig:
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=stop_ids[0] if stop_ids else 0,  # any id serves: masked on the left, cut off on the right
    )


def _continue(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    sampling: Sampling,
    draws: Sequence[Draw],
) -> tuple[list[list[int]], list[list[bool]]]:
    """The new tokens of one batch, each row as long as the longest one, and which of them tied with another."""
    width = max(len(prompt) for prompt in prompts)
    pad_id = config.pad_token_id
    tokens = torch.tensor([[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    # Greedy for transformers in any case: a drawn token is made the only possible one.
    ties = Ties()
    chooser = DrawnTokens(draws, sampling, width, int(config.max_new_tokens), model.device) if draws else ties
    cache = prompt_cache(model, prompts)
    output = model.generate(
        tokens.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=config,
        logits_processor=[chooser],
        **({} if cache is None else {cache_argument(model.prepare_inputs_for_generation): cache}),
    )
    rows: list[list[int]] = output[:, width:].tolist()
    return rows, ties.by_row() or [[]] * len(rows)


def _cut(row: list[int], ties: list[bool], stop_ids: Sequence[int]) -> Completion:
    stops = frozenset(stop_ids)
    end = next((position for position, token in enumerate(row) if token in stops), None)
    return Completion(tuple(row[:end]), hit_cap=end is None, ties=sum(ties if end is None else ties[: end + 1]))

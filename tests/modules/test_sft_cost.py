"""What a window costs: products counted against a closed formula, bytes kept for backward; each gate catches a fault.

Time on a shared machine is a report (``python -m benchmarks sft-kl``); counts repeat exactly and can be held here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from lit_align.forest import TokenForest, TokenPath, Window
from lit_align.losses.anchor import KLAnchor
from lit_align.models.loading import LoRA, Weights
from lit_align.modules import comparison
from lit_align.modules.sft import SFTModule
from lit_align.ops.frozen_head import FrozenHead, TokenScores, score_tokens

RANK = 4
PROMPT, ANSWER = 24, 8
PLAIN, ANCHORED = KLAnchor(coef=0.0), KLAnchor(coef=0.5, tail_tokens=5)


# ------------------------------------------------------------------------------------------------- count and formula


def attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def attention_backward_flops(
    grad: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


# torch knows these formulas for its CUDA kernels and counts nothing for the CPU's.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}


def flops(action: Callable[[], object]) -> int:
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        action()
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class Formula:
    """FLOPs of a step of ``random_qwen3``: 2·m·k·n a product; a causal or masked attention call counts in full."""

    vocabulary: int = 61
    hidden: int = 32
    intermediate: int = 48
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    head_dim: int = 8

    def linears(self) -> list[tuple[int, int]]:
        """In and out of q, k, v, o, gate, up, down."""
        q, kv = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        up = (self.hidden, self.intermediate)
        return [(self.hidden, q), (self.hidden, kv), (self.hidden, kv), (q, self.hidden), up, up, up[::-1]]

    def attention(self, pairs: int) -> int:
        """QK and PV of ``pairs`` (query, key), all layers."""
        return self.layers * 4 * self.heads * self.head_dim * pairs

    def products(self, rows: int, read: int) -> list[tuple[int, int, int, bool]]:
        """Rows, in and out of each linear layer, and whether its input is the embedding.

        The last MLP is run at the ``read`` rows alone, those whose hidden states are read.
        """
        return [
            (read if layer == self.layers - 1 and number > 3 else rows, i, o, layer == 0 and number < 3)
            for layer in range(self.layers)
            for number, (i, o) in enumerate(self.linears())
        ]

    def forward(self, rows: int, pairs: int, rank: int, read: int) -> int:
        """Hidden states; rank 0 is the bare base."""
        linears = sum(2 * height * (i * o + rank * (i + o)) for height, i, o, _ in self.products(rows, read))
        return linears + self.attention(pairs)

    def backward(self, rows: int, pairs: int, read: int) -> int:
        """Gradients of the adapters and of all inputs but the embedding's; attention makes its scores again."""
        total = 5 * self.attention(pairs) // 2
        for height, i, o, from_embedding in self.products(rows, read):
            total += 2 * height * RANK * (2 * o + i)
            total += 0 if from_embedding else 2 * height * (i * o + RANK * i)
        return total

    def head(self, products: int) -> int:
        """One product of one hidden state with the head."""
        return 2 * products * self.vocabulary * self.hidden

    def plain(self, rows: int, pairs: int, targets: int, read: int) -> int:
        """SFT: logits and their gradient at the targets."""
        return self.forward(rows, pairs, RANK, read) + self.backward(rows, pairs, read) + self.head(2 * targets)

    def anchor(self, rows: int, pairs: int, anchored: int, read: int) -> int:
        """What the anchor adds: the reference's forward, its logits and the divergence's gradient."""
        return self.forward(rows, pairs, 0, read) + self.head(2 * anchored)


# ---------------------------------------------------------------------------------------------------- the window


def module_of(base: str, anchor: KLAnchor) -> SFTModule:
    module = SFTModule(base, Weights(dtype="float32"), LoRA(rank=RANK, alpha=8), anchor=anchor)
    module.configure_model()
    data = SimpleNamespace(source_names=("",), windows_per_epoch=1)
    module.trainer = SimpleNamespace(datamodule=data)  # type: ignore[assignment]
    return module.train()


def path(prompt: Sequence[int], answer: Sequence[int], name: str) -> TokenPath:
    classes = np.array([0] * len(prompt) + [1] * len(answer), np.uint8)
    return TokenPath(np.array([*prompt, *answer], np.int32), classes, name)


PROMPT_TOKENS = list(range(3, 3 + PROMPT))
ONE = [[path(PROMPT_TOKENS, range(30, 30 + ANSWER), "one")]]
BRANCHES = [path(PROMPT_TOKENS, range(first, first + ANSWER), f"from {first}") for first in (30, 40)]


def step(module: SFTModule, groups: Sequence[Sequence[TokenPath]]) -> Callable[[], None]:
    def run() -> None:
        forest = TokenForest.build(groups)
        loss, _ = module.forest_loss(forest, module.counts(Window((forest,), 0, ())), step=0)
        torch.autograd.backward(loss)

    return run


@pytest.fixture
def plain(random_qwen3: str) -> SFTModule:
    return module_of(random_qwen3, PLAIN)


@pytest.fixture
def anchored(random_qwen3: str) -> SFTModule:
    return module_of(random_qwen3, ANCHORED)


# ------------------------------------------------------------------------------------------------ products


def test_a_window_costs_what_the_closed_formula_says(plain: SFTModule) -> None:
    rows = PROMPT + ANSWER
    assert flops(step(plain, ONE)) == Formula().plain(rows, rows**2, ANSWER, ANSWER)


def test_the_anchor_adds_one_forward_of_the_base_and_the_head_at_its_own_tokens(
    plain: SFTModule, anchored: SFTModule
) -> None:
    rows = PROMPT + ANSWER
    added = flops(step(anchored, ONE)) - flops(step(plain, ONE))
    assert added == Formula().anchor(rows, rows**2, ANCHORED.tail_tokens, ANSWER)


def test_a_reference_run_at_weight_zero_is_caught(plain: SFTModule, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, planted = PROMPT + ANSWER, plain.forest_loss

    def wasteful(forest: TokenForest, counts: Tensor, step: int) -> tuple[Tensor, Tensor]:
        with plain.reference.active(plain.policy):
            plain.policy.hidden(forest)
        return planted(forest, counts, step)

    monkeypatch.setattr(plain, "forest_loss", wasteful)
    excess = flops(step(plain, ONE)) - Formula().plain(rows, rows**2, ANSWER, ANSWER)
    assert excess == Formula().forward(rows, rows**2, 0, rows) > 0


@pytest.mark.parametrize("answer", [1, 8, 16])
def test_the_head_runs_at_the_targets_alone(plain: SFTModule, answer: int) -> None:
    rows = PROMPT + ANSWER + 8
    prompt = [3 + token % 50 for token in range(rows - answer)]
    body = Formula().plain(rows, rows**2, 0, answer)
    groups = [[path(prompt, range(30, 30 + answer), "one")]]
    assert flops(step(plain, groups)) - body == Formula().head(2 * answer)


def test_a_head_at_every_row_is_caught(plain: SFTModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def everywhere(hidden: Tensor, head: FrozenHead, targets: Tensor, **options: Any) -> TokenScores:
        prompt = torch.zeros(PROMPT if len(hidden) else 0, hidden.shape[1])
        score_tokens(prompt, head, targets.new_zeros(len(prompt)))
        return score_tokens(hidden, head, targets, **options)

    monkeypatch.setattr(comparison, "score_tokens", everywhere)
    rows = PROMPT + ANSWER
    assert flops(step(plain, ONE)) - Formula().plain(rows, rows**2, ANSWER, ANSWER) == Formula().head(PROMPT)


def test_a_shared_prompt_is_computed_once_by_policy_and_reference(anchored: SFTModule) -> None:
    rows = PROMPT + 2 * ANSWER
    pairs = (PROMPT + ANSWER) ** 2 + ANSWER * (PROMPT + ANSWER)  # the trunk, then the second answer with its prompt
    read, tail = 2 * ANSWER - 1, 2 * ANCHORED.tail_tokens  # the prompt's last row predicts both first tokens
    expected = Formula().plain(rows, pairs, 2 * ANSWER, read) + Formula().anchor(rows, pairs, tail, read)
    assert flops(step(anchored, [BRANCHES])) == expected


def test_a_prompt_computed_for_each_answer_is_caught(anchored: SFTModule) -> None:
    rows, pairs = 2 * (PROMPT + ANSWER), 2 * (PROMPT + ANSWER) ** 2
    read, tail = 2 * ANSWER, 2 * ANCHORED.tail_tokens
    expected = Formula().plain(rows, pairs, 2 * ANSWER, read) + Formula().anchor(rows, pairs, tail, read)
    assert flops(step(anchored, [[one] for one in BRANCHES])) == expected
    assert flops(step(anchored, [BRANCHES])) < 0.7 * expected


def test_a_step_costs_at_most_seven_tenths_of_the_naive_form_on_padded_rows(anchored: SFTModule) -> None:
    lengths = (48, 40, 32, 24)
    rng = np.random.default_rng(0)
    groups = [[path(rng.integers(3, 61, n - 8).tolist(), rng.integers(3, 61, 8).tolist(), str(n))] for n in lengths]
    model = anchored.policy.causal_lm
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)

    def naive() -> None:
        with anchored.reference.active(anchored.policy):
            reference = model(input_ids=ids, use_cache=False).logits
        logits = model(input_ids=ids, use_cache=False).logits
        torch.autograd.backward((logits.log_softmax(-1) - reference.log_softmax(-1)).sum())

    assert flops(step(anchored, groups)) < 0.7 * flops(naive)


# ------------------------------------------------------------------------------------------------ bytes kept


def bytes_kept(action: Callable[[], object]) -> int:
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        action()
    return kept


@pytest.fixture(scope="module")
def vocabularies(random_qwen3: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The model with a small and with an eightfold vocabulary."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folders = []
    for size in (64, 512):
        folder = tmp_path_factory.mktemp(f"v{size}")
        Qwen3ForCausalLM(Qwen3Config.from_pretrained(random_qwen3, vocab_size=size)).save_pretrained(folder)
        folders.append(str(folder))
    return folders


def test_what_a_window_keeps_for_backward_does_not_grow_with_the_vocabulary(vocabularies: list[str]) -> None:
    small, large = (bytes_kept(step(module_of(base, ANCHORED), ONE)) for base in vocabularies)
    assert small == large > 0


def test_logits_kept_for_backward_are_caught(vocabularies: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def plainly(hidden: Tensor, head: FrozenHead, targets: Tensor, **options: Any) -> TokenScores:
        scores = score_tokens(hidden, head, targets, **options)
        logps = (hidden @ head.weight.t()).log_softmax(-1).gather(1, targets[:, None])[:, 0]
        return TokenScores(logps, scores.divergences, scores.statistics)

    monkeypatch.setattr(comparison, "score_tokens", plainly)
    small, large = (bytes_kept(step(module_of(base, ANCHORED), ONE)) for base in vocabularies)
    assert large - small >= ANSWER * (512 - 64) * 4

"""Sharing tokens changes nothing: hidden states, log-probs and adapter gradients equal those of every path alone."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_align.forest import TokenForest, TokenPath
from lit_align.models import tree_attention
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy, check_forest_path
from lit_align.models.reference import BaseReference
from lit_align.models.tree_attention import AttentionPath, block_mask, flex_rule, refuse_unshareable, sees


def random_group(rng: np.random.Generator, depth: int, branching: int, longest: int) -> list[TokenPath]:
    """A tree of the depth asked for: single-token segments, equal paths, prefixes and shared answers among them."""
    paths: list[list[int]] = [[int(t) for t in rng.integers(3, 61, rng.integers(1, longest + 1))]]
    for level in range(depth - 1):
        grown: list[list[int]] = []
        for start in paths:
            children = branching if level == 0 else int(rng.integers(1, 3))
            grown += [start + rng.integers(3, 9, rng.integers(1, longest + 1)).tolist() for _ in range(children)]
        paths = grown
    paths += [paths[0], paths[-1][: max(1, len(paths[-1]) - 2)], [*paths[0], 5, 5, 7], [*paths[0], 5, 5, 8]]
    result = []
    for index, tokens in enumerate(paths):
        classes = rng.integers(0, 2, len(tokens))
        classes[-1] = 1
        result.append(TokenPath(np.array(tokens, np.int32), classes.astype(np.uint8), f"example {index}"))
    return result


def exact_policy(base: str, attention: AttentionPath, monkeypatch: pytest.MonkeyPatch) -> Policy:
    """A float64 policy with an adapter that does something, and no float32 island in its norms."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    def norm(self: torch.nn.Module, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (x * scale)

    for kind in (Qwen3RMSNorm, LlamaRMSNorm):
        monkeypatch.setattr(kind, "forward", norm)
    policy = Policy(base, Weights(dtype="float32"), LoRA(rank=4, alpha=8), attention).double().eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in policy.adapter_parameters().values():
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
        parameter.data.copy_(values)
    return policy


def scores(hidden: Tensor, policy: Policy, forest: TokenForest) -> Tensor:
    """Log-prob of each target by the plain formula."""
    logits = hidden[forest.pair_rows] @ policy.head.weight.T
    logps = logits.log_softmax(-1).gather(1, forest.pair_tokens[:, None])[:, 0]
    return logps[forest.target_pairs]


def gradients(policy: Policy, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(policy.adapter_parameters().values()))
    return torch.cat([g.flatten() for g in found])


def every_path_alone(policy: Policy, forest: TokenForest, paths: list[TokenPath]) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states and per-example log-prob of the answer tokens, one plain causal forward a path."""
    policy.causal_lm.set_attn_implementation("sdpa")
    hidden, logps = [], []
    for path in paths:
        ids = torch.from_numpy(path.tokens.astype(np.int64))
        states = policy.causal_lm.get_decoder()(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        hidden.append(states)
        token_logps = (states[:-1] @ policy.head.weight.T).log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        logps.append(token_logps[torch.from_numpy(path.classes[1:] == 1)])
    policy.causal_lm.set_attn_implementation(tree_attention.ATTENTION_NAME)
    return hidden, logps


CASES = [(0, 4, 3, 4, 2), (1, 5, 12, 3, 1), (2, 4, 1, 1, 3), (3, 6, 2, 5, 2)]


@pytest.mark.parametrize("attention", ["tree_sdpa", "padded"])
@pytest.mark.parametrize("family", ["random_qwen3", "random_llama"])
@pytest.mark.parametrize(("seed", "depth", "branching", "longest", "roots"), CASES)
def test_sharing_changes_no_hidden_state_no_logp_and_no_gradient(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    attention: AttentionPath,
    family: str,
    seed: int,
    depth: int,
    branching: int,
    longest: int,
    roots: int,
) -> None:
    monkeypatch.setattr(
        tree_attention, "_BUNDLE_ROWS", 12
    )  # small, so that branches of branches get calls of their own
    rng = np.random.default_rng(seed)
    groups = [random_group(rng, depth, branching, longest) for _ in range(roots)]
    paths = [path for group in groups for path in group]
    forest = TokenForest.build(groups)
    policy = exact_policy(request.getfixturevalue(family), attention, monkeypatch)
    alone, alone_logps = every_path_alone(policy, forest, paths)
    shared = policy.hidden(forest)
    for last, states in zip(forest.last_rows, alone, strict=True):
        rows = [row for part in forest.path_rows(last) for row in part]
        assert (shared[rows] - states).abs().max() < 1e-12 * states.abs().max()
    logps = scores(shared, policy, forest)
    weights = torch.linspace(-1, 1, len(paths), dtype=torch.float64)
    for index, expected in enumerate(alone_logps):
        mine = logps[forest.target_examples == index]
        assert len(mine) == len(expected)
        assert (mine.sum() - expected.sum()).abs() < 1e-12 * max(1.0, float(expected.detach().sum().abs()))
    ours = gradients(policy, (weights[forest.target_examples] * logps).sum())
    theirs = gradients(policy, sum(w * e.sum() for w, e in zip(weights, alone_logps, strict=True)))
    assert (ours - theirs).norm() < 1e-10 * theirs.norm()


def planted_faults(forest: TokenForest) -> dict[str, TokenForest]:
    everything = torch.full_like(forest.subtree_end, len(forest))
    rank = torch.arange(len(forest))
    owner_of_pair = torch.zeros(len(forest.pair_rows), dtype=torch.long)
    owner_of_pair[forest.target_pairs] = forest.target_examples
    return {
        "a leaf sees its sibling": dataclasses.replace(forest, subtree_end=everything),
        "positions are not reset": dataclasses.replace(forest, positions=rank),
        "a target belongs to a node": dataclasses.replace(
            forest, target_pairs=torch.arange(len(owner_of_pair)), target_examples=owner_of_pair
        ),
    }


@pytest.mark.parametrize("fault", ["a leaf sees its sibling", "positions are not reset", "a target belongs to a node"])
def test_the_check_catches_a_planted_fault(random_qwen3: str, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    paths = random_group(np.random.default_rng(5), 4, 3, 3)
    forest = TokenForest.build([paths])
    policy = exact_policy(random_qwen3, "tree_sdpa", monkeypatch)
    _, alone = every_path_alone(policy, forest, paths)
    broken = planted_faults(forest)[fault]

    def worst(candidate: TokenForest) -> float:
        logps = scores(policy.hidden(candidate), policy, candidate)
        sums = torch.zeros(len(paths), dtype=torch.float64).index_add(0, candidate.target_examples, logps)
        return max(float((s - e.sum()).detach().abs()) for s, e in zip(sums, alone, strict=True))

    assert worst(forest) < 1e-11
    assert worst(broken) > 1e-3


def test_thousands_of_tokens_agree_in_float32(random_qwen3: str) -> None:
    rng = np.random.default_rng(0)
    context = rng.integers(3, 61, 1500)
    paths = [
        TokenPath(tokens.astype(np.int32), (np.arange(len(tokens)) > 1500).astype(np.uint8), "x")
        for tokens in (np.concatenate([context, rng.integers(3, 61, rng.integers(20, 300))]) for _ in range(12))
    ]
    policy = Policy(random_qwen3, Weights(dtype="float32"), LoRA(rank=4), "tree_sdpa").eval()
    forest = TokenForest.build([paths])
    assert len(forest) > 3000
    assert check_forest_path(policy, forest) < 1e-4


def test_the_start_up_check_stops_a_model_that_sharing_falsifies(random_qwen3: str) -> None:
    policy = Policy(random_qwen3, Weights(dtype="float32"), LoRA(rank=4), "tree_sdpa").eval()
    forest = TokenForest.build([random_group(np.random.default_rng(1), 4, 3, 4)])
    broken = dataclasses.replace(forest, subtree_end=torch.full_like(forest.subtree_end, len(forest)))
    with pytest.raises(RuntimeError, match="this model cannot share tokens"):
        check_forest_path(policy, broken)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_fresh_adapter_gives_the_reference_to_the_bit_in_train_mode(random_qwen3: str, dtype: str) -> None:
    policy = Policy(random_qwen3, Weights(dtype=dtype), LoRA(rank=4, dropout=0.3), "tree_sdpa").train()
    forest = TokenForest.build([random_group(np.random.default_rng(1), 4, 3, 4)])
    with BaseReference().active(policy):
        reference = policy.hidden(forest)
    assert torch.equal(policy.hidden(forest), reference)


def test_flex_has_the_same_rule_and_refuses_the_cpu() -> None:
    forest = TokenForest.build([random_group(np.random.default_rng(2), 5, 4, 4)])
    rows = torch.arange(len(forest))
    head = torch.zeros((), dtype=torch.long)
    rule = flex_rule(forest.subtree_end)(head, head, rows[:, None], rows[None])
    assert torch.equal(rule, sees(rows, rows, forest.subtree_end))
    with pytest.raises(ValueError, match="`attention: flex` needs CUDA, got device cpu"):
        block_mask(forest)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"layer_types": ["linear_attention"]}, "linear_attention"),
        ({"sliding_window": 4096}, "`sliding_window` = 4096"),
        ({"attention_chunk_size": 8192}, "`attention_chunk_size` = 8192"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "RoPE of type dynamic"),
        ({"rope_scaling": {"type": "longrope"}}, "RoPE of type longrope"),
        ({"alibi": True}, "ALiBi"),
        ({"model_type": "gpt_oss"}, "attention sinks"),
    ],
)
def test_models_that_sharing_would_falsify_are_refused_by_name(config: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        refuse_unshareable(SimpleNamespace(**config))


def test_sliding_windows_that_are_switched_off_are_accepted(random_qwen3: str, random_llama: str) -> None:
    from transformers import AutoConfig

    for base in (random_qwen3, random_llama):
        assert refuse_unshareable(AutoConfig.from_pretrained(base)) is None

"""A reference that averages the live adapter: by hand, at its edges, and only of the policy that it belongs to."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_align.checkpoint import write_adapter
from lit_align.forest import TokenForest, TokenPath
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, EMAReference, FrozenAdapterReference, Reference
from lit_align.models.reference.adapters import AVERAGE, LIVE, factors
from lit_align.models.reference.ema import ema_gap

FP32 = Weights(dtype="float32")


@pytest.fixture(scope="module")
def earlier(random_qwen3: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An adapter that is not that of step 0."""
    torch.manual_seed(2)
    policy = Policy(random_qwen3, FP32, LoRA(rank=3, alpha=6), "tree_sdpa")
    move(policy)
    folder = tmp_path_factory.mktemp("earlier")
    write_adapter(folder, policy.adapter_parameters(), policy.adapter_config())
    return str(folder)


def move(policy: Policy) -> None:
    for parameter in policy.adapter_parameters().values():
        parameter.data.add_(torch.randn(parameter.shape), alpha=0.3)


def a_policy(base: str, reference: Reference, **lora: Any) -> Policy:
    policy = Policy(base, FP32, LoRA(**{"rank": 3, "alpha": 6, **lora}), "tree_sdpa")
    reference.attach(policy)
    return policy


def hidden(policy: Policy) -> Tensor:
    tokens = np.random.default_rng(0).integers(3, 61, 12).astype(np.int32)
    return policy.hidden(TokenForest.build([[TokenPath(tokens, (np.arange(12) > 5).astype(np.uint8), "x")]]))


def of_reference(policy: Policy, reference: Reference) -> Tensor:
    with reference.active(policy):
        return hidden(policy)


def doubles(policy: Policy, adapter: str) -> dict[str, Tensor]:
    return {name: value.detach().double().clone() for name, value in factors(policy, adapter).items()}


def starts(earlier: str) -> dict[str, Reference | None]:
    return {
        "none": None,
        "base": BaseReference(),
        "stack": FrozenAdapterReference(earlier),
        "continue": FrozenAdapterReference(earlier, init="continue"),
    }


@pytest.mark.parametrize("start", ["none", "base", "stack", "continue"])
def test_a_policy_starts_as_its_average_to_the_bit_in_train_mode(random_qwen3: str, earlier: str, start: str) -> None:
    reference = EMAReference(start=starts(earlier)[start])
    policy = a_policy(random_qwen3, reference).train()
    own = hidden(policy)
    assert torch.equal(own, of_reference(policy, reference))
    assert torch.equal(own, of_reference(policy, starts(earlier)[start] or BaseReference()))
    assert torch.equal(own, of_reference(policy, BaseReference())) == (start in ("none", "base"))


@pytest.mark.parametrize("start", ["none", "stack", "continue"])
def test_only_the_live_adapter_is_trained_and_exported_and_the_average_never_drops_out(
    random_qwen3: str, earlier: str, start: str
) -> None:
    reference = EMAReference(start=starts(earlier)[start])
    policy = a_policy(random_qwen3, reference, dropout=0.5).train()
    live = factors(policy, LIVE)
    assert {name for name, p in policy.named_parameters() if p.requires_grad} == set(policy.adapter_parameters())
    assert [id(p) for p in policy.adapter_parameters().values()] == [id(p) for p in live.values()]
    assert len(live) == len(factors(policy, AVERAGE)) > 0
    move(policy)
    assert torch.equal(of_reference(policy, reference), of_reference(policy, reference))
    assert not torch.equal(hidden(policy), hidden(policy)), "dropout of the live adapter has no effect"


@pytest.mark.parametrize("start", ["none", "stack", "continue"])
@pytest.mark.parametrize("alpha", [0.6, 0.1, 1.0])
def test_the_average_is_the_one_computed_by_hand_in_float64(
    random_qwen3: str, earlier: str, alpha: float, start: str
) -> None:
    reference = EMAReference(alpha, every_n_windows=2, start=starts(earlier)[start])
    policy = a_policy(random_qwen3, reference)
    expected, updates = doubles(policy, LIVE), 0
    torch.manual_seed(3)
    for window in range(1, 8):
        move(policy)
        logged = reference.after_window(policy, window)
        if window % 2 == 0:
            updates += 1
            gap = naive_gap(doubles(policy, LIVE), expected, alpha)
            expected = {name: alpha * v + (1 - alpha) * expected[name] for name, v in doubles(policy, LIVE).items()}
            assert logged == {"ema_gap": pytest.approx(gap, rel=1e-6, abs=0), "updates": updates}
        else:
            assert logged == {}
        for name, value in doubles(policy, AVERAGE).items():
            assert torch.allclose(value, expected[name], rtol=1e-6, atol=1e-6)
    assert updates == policy.average_updates == 3
    if alpha == 1:  # the last update was a window ago
        assert logged == {}
        assert reference.after_window(policy, 8)["ema_gap"] == 0
        assert all(torch.equal(p, factors(policy, AVERAGE)[name]) for name, p in factors(policy, LIVE).items())
        assert torch.equal(hidden(policy), of_reference(policy, reference))


def naive_gap(live: dict[str, Tensor], old: dict[str, Tensor], alpha: float) -> float:
    """By the products themselves."""

    def products(one: dict[str, Tensor]) -> Tensor:
        names = [name for name in one if "lora_A" in name]
        return torch.cat([(one[name.replace("lora_A", "lora_B")] @ one[name]).flatten() for name in names])

    new = {name: alpha * live[name] + (1 - alpha) * old[name] for name in live}
    whole = alpha * products(live) + (1 - alpha) * products(old)
    return float((products(new) - whole).norm() / whole.norm())


@pytest.mark.parametrize("alpha", [0.6, 0.05, 0.999, 1.0])
@pytest.mark.parametrize("near", [1.0, 1e-6])
def test_the_gap_is_that_of_the_products_also_where_nothing_has_moved_far(alpha: float, near: float) -> None:
    torch.manual_seed(0)
    shapes = {
        "q.lora_A.weight": (2, 7),
        "q.lora_B.weight": (5, 2),
        "v.lora_A.weight": (2, 4),
        "v.lora_B.weight": (9, 2),
    }
    old = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    live = {name: value + near * torch.randn(value.shape, dtype=torch.float64) for name, value in old.items()}
    assert ema_gap(live, old, alpha) == pytest.approx(naive_gap(live, old, alpha), rel=1e-3, abs=1e-15)
    assert ema_gap(old, old, alpha) == 0


def test_the_gap_of_nothing_is_zero_and_of_products_that_cancel_infinite() -> None:
    zero = {"lora_A.weight": torch.ones(1, 2), "lora_B.weight": torch.zeros(3, 1)}
    assert ema_gap(zero, zero, 0.6) == 0
    other = {"lora_A.weight": -torch.ones(1, 2), "lora_B.weight": torch.ones(3, 1)}
    one = {name: value.abs() for name, value in other.items()}
    assert ema_gap(one, {**other}, 0.5) == 0  # their B are equal, so nothing is lost
    assert (
        ema_gap(one, {"lora_A.weight": other["lora_A.weight"] * 0.5, "lora_B.weight": one["lora_B.weight"] * 2}, 0.5)
        == math.inf
    )


def test_the_average_of_a_bf16_base_is_kept_in_fp32(random_qwen3: str) -> None:
    policy = Policy(random_qwen3, Weights(dtype="bfloat16"), LoRA(rank=2), "tree_sdpa")
    EMAReference().attach(policy)
    assert {value.dtype for value in factors(policy, AVERAGE).values()} == {torch.float32}
    assert all(torch.equal(value, factors(policy, LIVE)[name]) for name, value in factors(policy, AVERAGE).items())


# ---------------------------------------------------------------------- settings, states


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"alpha": 0.0}, r"alpha must be in \(0, 1\], got 0.0"),
        ({"alpha": 1.5}, r"alpha must be in \(0, 1\], got 1.5"),
        ({"alpha": math.nan}, r"alpha must be in \(0, 1\], got nan"),
        ({"every_n_windows": 0}, "every_n_windows must be at least 1, got 0"),
        ({"start": EMAReference()}, r"start must be a BaseReference or a FrozenAdapterReference, got EMAReference\("),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EMAReference(**options)


def test_identity_tells_settings_and_starts_apart_but_not_places(earlier: str, tmp_path: Path) -> None:
    (tmp_path / "copy").symlink_to(earlier)
    references = [
        EMAReference(start=one, **options)
        for one in (*starts(earlier).values(), FrozenAdapterReference(str(tmp_path / "copy")))
        for options in ({}, {"alpha": 0.5}, {"every_n_windows": 7})
    ]
    names = [one.identity() for one in references]
    assert len(set(names)) == 3 * 3  # no start is the base, and the copy is the folder
    assert names[0] == "EMAReference(alpha=0.6, every_n_windows=512, start=BaseReference())"
    assert not EMAReference.frozen
    assert BaseReference.frozen
    assert FrozenAdapterReference.frozen


def test_the_average_of_another_reference_is_refused(random_qwen3: str) -> None:
    policy = a_policy(random_qwen3, EMAReference(alpha=0.5))
    with pytest.raises(ValueError, match=r"EMAReference\(alpha=0.6.* is not the average that the policy holds \(EMAR"):
        EMAReference(alpha=0.6).active(policy)
    with pytest.raises(ValueError, match=r"the policy holds \(none\): name the same reference here"):
        EMAReference().active(a_policy(random_qwen3, BaseReference()))


def test_a_state_is_taken_up_to_the_bit_and_any_other_is_refused(random_qwen3: str, tmp_path: Path) -> None:
    reference = EMAReference(every_n_windows=2)
    policy = a_policy(random_qwen3, reference)
    for window in range(1, 6):
        move(policy)
        reference.after_window(policy, window)
    torch.save(reference.state(policy), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)

    other = a_policy(random_qwen3, reference)
    reference.load_state(other, state, 5, "last.ckpt")
    assert other.average_updates == 2
    assert torch.equal(of_reference(other, reference), of_reference(policy, reference))
    untouched = doubles(other, AVERAGE)

    name = next(iter(state["weights"]))
    weights = dict(state["weights"])
    for harm, windows, says in (
        ({}, 5, "it holds no average: its run had another reference"),
        (state, 6, "its average was updated 2 times in 6 windows, and `every_n_windows` = 2 makes 3"),
        ({**state, "updates": 3}, 5, "updated 3 times in 5 windows, and `every_n_windows` = 2 makes 2"),
        ({**state, "weights": {k: v for k, v in weights.items() if k != name}}, 5, "is on one side alone"),
        ({**state, "weights": {**weights, name: weights[name][:1]}}, 5, r"has shape \(1, 32\) there, \(3, 32\) here"),
    ):
        with pytest.raises(ValueError, match=rf"last\.ckpt does not fit EMAReference\(.*{says}"):
            reference.load_state(other, harm, windows, "last.ckpt")
    assert all(torch.equal(value, untouched[key]) for key, value in doubles(other, AVERAGE).items())


def test_references_that_stay_have_no_state_and_never_move(random_qwen3: str, earlier: str) -> None:
    for reference in (BaseReference(), FrozenAdapterReference(earlier)):
        policy = a_policy(random_qwen3, reference)
        assert reference.state(policy) == {}
        before = of_reference(policy, reference)
        move(policy)
        assert [reference.after_window(policy, window) for window in range(1, 4)] == [{}] * 3
        assert torch.equal(of_reference(policy, reference), before)


def test_an_average_is_one_more_adapter_and_nothing_else(random_qwen3: str, earlier: str) -> None:
    plain = a_policy(random_qwen3, BaseReference())
    for start, more in (("none", [AVERAGE]), ("stack", ["frozen", AVERAGE]), ("continue", ["frozen", AVERAGE])):
        policy = a_policy(random_qwen3, EMAReference(start=starts(earlier)[start]))
        names = {name for name, _ in policy.named_parameters()}
        added = [{name.replace(f".{LIVE}.", f".{one}.") for name in plain.adapter_parameters()} for one in more]
        assert names - {name for name, _ in plain.named_parameters()} == set(itertools.chain(*added))

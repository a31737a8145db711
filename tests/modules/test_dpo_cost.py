"""What a window of pairs costs, in counted products and in bytes kept for backward; each gate catches a fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_sft_cost import RANK, Formula, flops, path
from torch import Tensor

from lit_align.forest import TokenForest, TokenPath, Window
from lit_align.losses.preference import AOTLoss, IPOLoss, PreferenceLoss, SigmoidLoss, SimPOLoss
from lit_align.models import tree_attention
from lit_align.models.loading import LoRA, Weights
from lit_align.models.reference import CachedReference
from lit_align.models.tree_attention import AttentionPath
from lit_align.modules.dpo import DPOModule

CONTEXT, QUESTION, ANSWER = 60, 4, 2


def module_of(base: str, loss: PreferenceLoss, attention: AttentionPath = "tree_sdpa") -> DPOModule:
    module = DPOModule(base, Weights(dtype="float32"), LoRA(rank=RANK, alpha=8), attention, loss=loss)
    module.configure_model()
    data = SimpleNamespace(source_names=("",), windows_per_epoch=1)
    trainer = SimpleNamespace(datamodule=data, world_size=1, global_rank=0, global_step=0)
    module.trainer = trainer  # type: ignore[assignment]
    return module.train()


def table(number: int) -> list[list[TokenPath]]:
    """Six questions about one table, each with two answers."""
    context = [3 + token % 50 for token in range(CONTEXT)]
    pairs = []
    for question in range(6):
        prompt = [*context, *([7 + question] * QUESTION)]
        answers = ([20 + question] * ANSWER, [40 + question] * ANSWER)
        pairs.append([path(prompt, answer, f"{number} {question} {side}") for side, answer in enumerate(answers)])
    return pairs


def cost(module: DPOModule, *forests: Sequence[Sequence[TokenPath]]) -> int:
    return flops(step(module, *forests))


def step(module: DPOModule, *forests: Sequence[Sequence[TokenPath]]) -> Callable[[], None]:
    built = tuple(TokenForest.build(groups) for groups in forests)
    counts = module.counts(Window(built, 0, ()))

    def run() -> None:
        for forest_loss in module.window_losses(built, counts, 0):
            torch.autograd.backward(forest_loss()[0])

    return run


def whole(pairs: list[list[TokenPath]]) -> list[list[TokenPath]]:
    return [[one for pair in pairs for one in pair]]


def alone(pairs: list[list[TokenPath]]) -> list[list[TokenPath]]:
    return [[one] for pair in pairs for one in pair]


@pytest.fixture
def sigmoid(random_qwen3: str) -> DPOModule:
    return module_of(random_qwen3, SigmoidLoss())


def test_answers_alone_cost_what_the_closed_formula_says(sigmoid: DPOModule) -> None:
    length = CONTEXT + QUESTION + ANSWER
    rows, pairs, targets = 12 * length, 12 * length**2, 12 * ANSWER
    with_policy = Formula().plain(rows, pairs, targets, targets)
    expected = with_policy + Formula().forward(rows, pairs, 0, targets) + Formula().head(targets)
    assert cost(sigmoid, alone(table(0))) == expected


@pytest.mark.parametrize(
    ("share", "most"),
    [(lambda pairs: pairs, 0.56), (whole, 0.21)],
    ids=["a prompt shared by two answers", "a table shared by six questions"],
)
def test_sharing_saves_what_is_shared(
    share: Callable[[list[list[TokenPath]]], list[list[TokenPath]]], most: float, sigmoid: DPOModule
) -> None:
    ratio = cost(sigmoid, share(table(0))) / cost(sigmoid, alone(table(0)))
    assert ratio < most


def test_a_loss_without_reference_costs_a_pass_less(random_qwen3: str, sigmoid: DPOModule) -> None:
    forest = whole(table(0))
    with_reference, without = cost(sigmoid, forest), cost(module_of(random_qwen3, SimPOLoss()), forest)
    assert 0.6 < without / with_reference < 0.75


def test_a_cached_reference_costs_nothing_once_it_is_known(random_qwen3: str, sigmoid: DPOModule) -> None:
    forest, without = whole(table(0)), cost(module_of(random_qwen3, SimPOLoss()), whole(table(0)))
    live = cost(sigmoid, forest)
    sigmoid.reference = CachedReference()
    assert cost(sigmoid, forest) == live
    assert cost(sigmoid, forest) == without
    other = module_of(random_qwen3, IPOLoss())
    other.reference = CachedReference()
    halves = (whole(table(0)[:3]), whole(table(0)[3:]))
    assert cost(other, *halves) == cost(module_of(random_qwen3, SimPOLoss()), *halves)
    other.loss = SimPOLoss()
    other.reference = CachedReference(folder="untouched")
    assert cost(other, forest) == without
    assert not Path("untouched").exists()


def test_coupled_pairs_cost_a_forward_of_the_policy_more_and_none_in_one_forest(
    random_qwen3: str, sigmoid: DPOModule
) -> None:
    coupled = module_of(random_qwen3, AOTLoss())
    one = whole(table(0))
    assert cost(coupled, one) == cost(sigmoid, one)
    two = (whole(table(0)[:3]), whole(table(0)[3:]))
    assert 1.25 < cost(coupled, *two) / cost(sigmoid, *two) < 1.5


# ------------------------------------------------------------------------------------------------ bytes kept


def bytes_kept(module: DPOModule, forest: Sequence[Sequence[TokenPath]]) -> int:
    """What a forest keeps for backward: each storage once, as a whole; not the weights, which are there anyway."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is given out twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(module, forest)()
    return sum(storage.nbytes() for storage in kept.values())


Sharing = Callable[[list[list[TokenPath]]], list[list[TokenPath]]]
GATES: dict[str, tuple[Sharing, float]] = {
    "a prompt shared by two answers": (lambda pairs: pairs, 0.46),
    "a table shared by six questions": (whole, 0.14),
}
by_gate = pytest.mark.parametrize("gate", GATES)


def kept_of_padded(base: str, module: DPOModule, share: Sharing) -> float:
    """Bytes kept, as a share of what the rows of each answer keep, padded and alone."""
    padded = module_of(base, SigmoidLoss(), attention="padded")
    return bytes_kept(module, share(table(0))) / bytes_kept(padded, alone(table(0)))


@by_gate
def test_shared_rows_are_kept_once(gate: str, random_qwen3: str, sigmoid: DPOModule) -> None:
    share, most = GATES[gate]
    assert kept_of_padded(random_qwen3, sigmoid, share) < most


@by_gate
def test_rows_that_are_not_shared_are_caught(gate: str, random_qwen3: str, sigmoid: DPOModule) -> None:
    _, most = GATES[gate]
    assert kept_of_padded(random_qwen3, sigmoid, alone) > most


@by_gate
def test_keys_that_are_kept_for_each_query_head_are_caught(
    gate: str, random_qwen3: str, sigmoid: DPOModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_attention, "_widened", lambda rows, groups: rows.repeat_interleave(groups, dim=1))
    share, most = GATES[gate]
    assert kept_of_padded(random_qwen3, sigmoid, share) > most

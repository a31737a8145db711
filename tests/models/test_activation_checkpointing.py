"""Activations that are computed again change no bit of a gradient or of the random numbers, and are not kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L  # noqa: N812  the name that its users know
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.table_skills import TableSkills
from lit_align.evals.generate import generate
from lit_align.forest import TokenForest, TokenPath
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy, checkpoint_activations
from lit_align.models.reference import BaseReference
from lit_align.models.tree_attention import AttentionPath
from lit_align.modules.sft import SFTModule
from lit_align.modules.startup import _try_largest, refuse_other_start
from lit_align.schedule import ConstantSchedule

FP32 = Weights(dtype="float32")


@pytest.fixture(scope="module")
def six_layers(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("six")
    config = Qwen3Config(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def a_forest(answers: tuple[int, ...] = (4, 9, 2)) -> TokenForest:
    rng = np.random.default_rng(0)
    start = rng.integers(3, 61, 6)
    tokens = [np.concatenate([start, rng.integers(3, 61, length)]).astype(np.int32) for length in answers]
    return TokenForest.build([[TokenPath(t, (np.arange(len(t)) > 5).astype(np.uint8), "x") for t in tokens]])


def a_policy(base: str, again: bool, dropout: float = 0.3, attention: AttentionPath = "tree_sdpa") -> Policy:
    torch.manual_seed(2)
    policy = Policy(base, FP32, LoRA(rank=4, dropout=dropout), attention, activation_checkpointing=again)
    for parameter in policy.adapter_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy


def gradients(policy: Policy, forest: TokenForest) -> tuple[list[Tensor], Tensor]:
    """Of two forests after one another, and the random numbers that are next."""
    torch.manual_seed(5)
    for _ in range(2):
        policy.hidden(forest).square().mean().backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad for parameter in policy.adapter_parameters().values()]
    return [grad for grad in found if grad is not None], torch.rand(4)


@pytest.mark.parametrize("attention", ["tree_sdpa", "padded"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("base", ["six_layers", "random_llama"])
def test_gradients_and_random_numbers_are_the_same_to_the_bit(
    request: pytest.FixtureRequest, base: str, dropout: float, attention: AttentionPath
) -> None:
    path, forest = request.getfixturevalue(base), a_forest()
    plain, numbers = gradients(a_policy(path, False, dropout, attention), forest)
    again, numbers_again = gradients(a_policy(path, True, dropout, attention), forest)
    assert len(plain) == len(again) > 0
    assert all(bool(grad.any()) and torch.equal(grad, other) for grad, other in zip(plain, again, strict=True))
    assert torch.equal(numbers, numbers_again)


def test_the_comparison_catches_dropout_that_is_drawn_anew(six_layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(function: Callable[..., Any], *args: Any) -> Any:
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)

    forest = a_forest()
    plain, _ = gradients(a_policy(six_layers, False), forest)
    policy = a_policy(six_layers, True)
    for layer in policy.causal_lm.model.layers:
        monkeypatch.setattr(layer, "_gradient_checkpointing_func", forgetful)
    again, _ = gradients(policy, forest)
    assert not all(torch.equal(grad, other) for grad, other in zip(plain, again, strict=True))


def kept_bytes(policy: Policy, forest: TokenForest) -> int:
    """What a forward pass keeps for the backward pass, weights not counted."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.hidden(forest)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("attention", ["tree_sdpa", "padded"])
def test_less_than_half_is_kept_for_the_backward_pass(six_layers: str, attention: AttentionPath) -> None:
    forest = a_forest((40, 90, 20))
    plain = kept_bytes(a_policy(six_layers, False, attention=attention), forest)
    again = kept_bytes(a_policy(six_layers, True, attention=attention), forest)
    off = a_policy(six_layers, True, attention=attention).eval()
    assert 0 < again < plain / 2
    assert kept_bytes(off, forest) > plain / 2  # the bound can fail: where the layers do not do it, all is kept


def test_only_the_layers_themselves_are_in_train_mode(six_layers: str) -> None:
    policy, plain = a_policy(six_layers, True), a_policy(six_layers, False)
    modes = {name: part.training for name, part in policy.named_modules()}
    differing = {name for name, part in plain.named_modules() if part.training != modes[name]}
    assert {name.rpartition(".layers.")[2] for name in differing} == {"0", "1", "2", "3", "4", "5"}


def count_calls(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    for index, layer in enumerate(policy.causal_lm.model.layers):
        plain = layer._gradient_checkpointing_func

        def counted(*args: Any, plain: Any = plain, index: int = index) -> Any:
            calls.append(index)
            return plain(*args)

        monkeypatch.setattr(layer, "_gradient_checkpointing_func", counted)
    return calls


def test_references_and_answers_are_computed_once_and_training_goes_on_afterwards(
    six_layers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, forest = a_policy(six_layers, True), a_forest()
    calls = count_calls(policy, monkeypatch)
    with BaseReference().active(policy):
        reference = policy.hidden(forest)
    answers = generate(policy.causal_lm, [[4, 5, 6], [7]], max_new_tokens=4, stop_ids=[])
    assert calls == []
    policy.hidden(forest)
    assert calls == [0, 1, 2, 3, 4, 5]
    plain = a_policy(six_layers, False)
    with BaseReference().active(plain):
        assert torch.equal(plain.hidden(forest), reference)
    assert generate(plain.causal_lm, [[4, 5, 6], [7]], max_new_tokens=4, stop_ids=[]) == answers


def test_a_model_without_layers_that_can_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.config = SimpleNamespace(model_type="plain")  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"plain: no layer of this model .* set `activation_checkpointing: false`"):
        checkpoint_activations(model)


# ---------------------------------------------------------------------- whole runs


class Watch(L.Callback):
    """Which layers are in train mode at each window, and where a checkpoint is wanted."""

    def __init__(self, save: Path | None = None) -> None:
        self.save = save
        self.modes: list[list[bool]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        self.modes.append([layer.training for layer in pl_module.policy.causal_lm.model.layers])

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self.save is not None and trainer.global_step == 1:
            trainer.save_checkpoint(self.save)


def run(again: bool, watch: Watch, ckpt: Path | None = None) -> dict[str, Tensor]:
    module = SFTModule(
        weights=FP32,
        lora=LoRA(rank=4, dropout=0.2),
        optimizer=lambda groups: AdamW(groups, lr=1e-2),
        schedule=ConstantSchedule(),
        activation_checkpointing=again,
    )
    data = SFTDataModule(
        sources=[TableSkills(skills=["scale"], n=6, seed=1)],
        val_sources=[TableSkills(skills=["scale"], n=2, seed=2)],
        window=2,
    )
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=3, val_check_interval=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        callbacks=[watch],
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=None if ckpt is None else str(ckpt), weights_only=True)
    return {name: parameter.detach() for name, parameter in module.policy.adapter_parameters().items()}


def test_a_run_trains_the_same_bits_with_validation_between_and_may_be_resumed_the_other_way(tmp_path: Path) -> None:
    saved = tmp_path / "one.ckpt"
    watch, other = Watch(saved), Watch()
    again, plain, resumed = run(True, watch), run(False, other), run(False, Watch(), saved)
    assert watch.modes == [[True] * 4] * 3
    assert other.modes == [[False] * 4] * 3
    assert all(torch.equal(again[name], plain[name]) for name in plain)
    assert all(torch.equal(again[name], resumed[name]) for name in plain)


def test_a_base_whose_layers_would_drop_out_by_their_own_mode_is_refused_at_the_start(tmp_path: Path) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=61, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
        dropout=0.1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    OPTForCausalLM(config).save_pretrained(tmp_path)
    for again in (False, True):
        module = SFTModule(str(tmp_path), FP32, LoRA(rank=2), attention="padded", activation_checkpointing=again)
        module.configure_model()
        if again:
            with pytest.raises(RuntimeError, match=r"drops out; try `model\.activation_checkpointing: false`"):
                refuse_other_start(module, a_forest(), module.reference)
        else:
            refuse_other_start(module, a_forest(), module.reference)


@pytest.mark.parametrize("again", [False, True])
def test_a_forest_that_does_not_fit_names_what_is_left_to_try(
    six_layers: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("planted")

    module = SFTModule(six_layers, FP32, LoRA(rank=2), activation_checkpointing=again)
    module.configure_model()
    monkeypatch.setattr(module, "forest_loss", full)
    with pytest.raises(RuntimeError, match=r"set `data.token_budget` below 21, or .*`model.weights.quant") as caught:
        _try_largest(module, a_forest())
    assert ("`model.activation_checkpointing: true`" in str(caught.value)) == (not again)

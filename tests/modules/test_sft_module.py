"""The window's gradient is the plain formula's, however it is cut; a run spares the base and resumes to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import lightning as L  # noqa: N812  the name that its users know
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import SGD, AdamW

from lit_align.data.sft import SFTDataModule
from lit_align.forest import TokenForest, TokenPath, Window, targetless_forest
from lit_align.losses.anchor import Divergence, ForwardKL, KLAnchor, ReverseKL, TargetMaskedKL
from lit_align.models.loading import LoRA, Weights, load_base
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference
from lit_align.modules.nonfinite import NonFiniteError
from lit_align.modules.sft import SFTModule
from lit_align.schedule import ConstantSchedule
from lit_align.types import Conversation, ConversationSource, Message

# ---------------------------------------------------------------------- exact arithmetic against the plain formula


def talk(rng: np.random.Generator, name: str, turns: int, weight: float) -> list[TokenPath]:
    """The paths of a conversation: each turn's path repeats the history as its prompt."""
    paths: list[TokenPath] = []
    history: list[int] = []
    for turn in range(turns):
        prompt = rng.integers(3, 61, rng.integers(2, 6)).tolist()
        answer = rng.integers(3, 61, rng.integers(1, 7)).tolist()
        tokens = np.array(history + prompt + answer, np.int32)
        classes = (np.arange(len(tokens)) >= len(history) + len(prompt)).astype(np.uint8)
        paths.append(TokenPath(tokens, classes, f"{name}#{turn}", weight))
        history += prompt + answer
    return paths


def window_of_talks(seed: int) -> list[list[TokenPath]]:
    rng = np.random.default_rng(seed)
    trained = [talk(rng, f"talk {i}", turns, 1.0) for i, turns in enumerate((1, 3, 2, 1))]
    return [*trained, *(talk(rng, f"replayed {i}", turns, 0.0) for i, turns in enumerate((1, 2)))]


def cut(groups: Sequence[list[TokenPath]], sizes: Sequence[int]) -> Window:
    ends = np.cumsum(sizes)
    parts = [groups[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    return Window(tuple(TokenForest.build(part) for part in parts), 0, ())


def name_sources(module: SFTModule, *names: str) -> None:
    """Attach what the module asks of Lightning's trainer outside of a run: the names for its log."""
    data = SimpleNamespace(source_names=("", *names), windows_per_epoch=1)
    module.trainer = SimpleNamespace(datamodule=data, global_step=0)  # type: ignore[assignment]


@pytest.fixture
def exact(random_qwen3: str, monkeypatch: pytest.MonkeyPatch) -> SFTModule:
    """A module in float64, its adapter no longer that of step 0, without the float32 island in the norms."""
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    def norm(self: torch.nn.Module, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (x * scale)

    monkeypatch.setattr(Qwen3RMSNorm, "forward", norm)
    module = SFTModule(random_qwen3, Weights(dtype="float32"), LoRA(rank=4, alpha=8))
    module.configure_model()
    name_sources(module)
    module.double()
    generator = torch.Generator().manual_seed(3)
    for parameter in module.policy.adapter_parameters().values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
    return module


def window_gradient(module: SFTModule, window: Window) -> tuple[float, Tensor]:
    counts = module.counts(window)
    total = 0.0
    for parameter in module.policy.adapter_parameters().values():
        parameter.grad = None
    for forest in window.forests:
        loss, _ = module.forest_loss(forest, counts, step=0)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    grads = [parameter.grad for parameter in module.policy.adapter_parameters().values()]
    return total, torch.cat([grad.flatten() for grad in grads if grad is not None])


def naive_divergence(divergence: Divergence, log_p: Tensor, log_q: Tensor, target: int) -> Tensor:
    if isinstance(divergence, ReverseKL):
        return (log_p.exp() * (log_p - log_q)).sum()
    if isinstance(divergence, ForwardKL):
        return (log_q.exp() * (log_q - log_p)).sum()
    others = torch.arange(len(log_p)) != target
    p, q = log_p[others].log_softmax(0), log_q[others].log_softmax(0)
    return (q.exp() * (q - p)).sum()


def naive_loss(policy: Policy, paths: list[TokenPath], anchor: KLAnchor) -> Tensor:
    """Padded rows, full logits, two forward passes by transformers and PEFT alone."""
    longest = max(len(path.tokens) for path in paths)
    ids = torch.zeros(len(paths), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, path in enumerate(paths):
        ids[row, : len(path.tokens)] = torch.from_numpy(path.tokens.astype(np.int64))
        mask[row, : len(path.tokens)] = 1
    policy.causal_lm.set_attn_implementation("sdpa")
    with torch.no_grad(), policy.peft.disable_adapter():
        reference = policy.causal_lm(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    log_probs = policy.causal_lm(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    policy.causal_lm.set_attn_implementation("lit_align_forest")
    nll, divergences = [], []
    for row, path in enumerate(paths):
        answer = np.flatnonzero(path.classes == 1)
        tail = set(answer[-anchor.tail_tokens :].tolist())
        for at in answer.tolist():
            target = int(path.tokens[at])
            if path.weight:
                nll.append(-log_probs[row, at - 1, target])
            wanted = {"trained": path.weight > 0, "replayed": path.weight == 0, "both": True}[anchor.text]
            if wanted and at in tail:
                pair = (log_probs[row, at - 1], reference[row, at - 1])
                divergences.append(naive_divergence(anchor.divergence, *pair, target))
    return torch.stack(nll).mean() + anchor.coef * torch.stack(divergences).mean()


ANCHORS = [
    KLAnchor(ReverseKL(), coef=0.7),
    KLAnchor(ForwardKL(), coef=0.7, text="both"),
    KLAnchor(TargetMaskedKL(), coef=0.7),
    KLAnchor(ReverseKL(), coef=3.0, tail_tokens=2, text="both"),
    KLAnchor(ReverseKL(), coef=3.0, text="replayed"),
    KLAnchor(TargetMaskedKL(), coef=3.0, tail_tokens=1, text="replayed"),
]


@pytest.mark.parametrize("anchor", ANCHORS, ids=repr)
@pytest.mark.parametrize("sizes", [(6,), (1, 1, 1, 1, 1, 1), (4, 2)], ids=str)
def test_gradient_of_a_window_is_the_plain_formulas_however_it_is_cut(
    exact: SFTModule, anchor: KLAnchor, sizes: tuple[int, ...]
) -> None:
    groups = window_of_talks(seed=0)
    exact.anchor = anchor
    loss, gradient = window_gradient(exact, cut(groups, sizes))
    expected = naive_loss(exact.policy, [path for group in groups for path in group], anchor)
    found = torch.autograd.grad(expected, list(exact.policy.adapter_parameters().values()))
    assert abs(loss - float(expected.detach())) < 1e-10 * abs(loss)
    plain = torch.cat([part.flatten() for part in found])
    assert (gradient - plain).norm() < 1e-10 * plain.norm()


@pytest.mark.parametrize("fault", ["mean of means", "replayed text trained", "anchor on the prompt's neighbour"])
def test_the_comparison_catches_a_planted_fault(exact: SFTModule, fault: str) -> None:
    groups = window_of_talks(seed=0)
    exact.anchor = KLAnchor(ReverseKL(), coef=0.7, tail_tokens=2 if "neighbour" in fault else 0)
    window = cut(groups, (4, 2)) if fault != "mean of means" else cut(groups, (1, 1, 1, 1, 1, 1))
    expected = naive_loss(exact.policy, [path for group in groups for path in group], exact.anchor)
    if fault == "replayed text trained":
        window = cut([[TokenPath(p.tokens, p.classes, p.example) for p in group] for group in groups], (4, 2))
    elif fault == "mean of means":
        losses = [exact.forest_loss(f, exact.counts(Window((f,), 0, ())), 0)[0] for f in window.forests[:4]]
        assert abs(float(torch.stack(losses).mean().detach() - expected.detach())) > 1e-4
        return
    else:
        exact.anchor = KLAnchor(ReverseKL(), coef=0.7, tail_tokens=3)
    assert abs(window_gradient(exact, window)[0] - float(expected.detach())) > 1e-4


def test_a_rank_without_a_forest_adds_nothing_and_has_a_gradient(exact: SFTModule) -> None:
    empty = Window((), 0, ())
    assert exact.counts(empty).tolist() == [0.0, 0.0]
    forest = targetless_forest(torch.device("cpu"))
    loss, gradient = window_gradient(exact, Window((forest,), 0, ()))
    assert loss == 0
    assert not gradient.any()


def test_at_equality_the_divergence_and_its_gradient_are_exactly_zero(random_qwen3: str) -> None:
    for dtype in ("float32", "bfloat16"):
        module = SFTModule(random_qwen3, Weights(dtype=dtype), LoRA(rank=4, dropout=0.3))
        module.configure_model()
        module.anchor = KLAnchor(ReverseKL(), coef=1.0, text="replayed")
        name_sources(module)
        replayed = [group for group in window_of_talks(seed=1) if not group[0].weight]
        window = cut(replayed, (len(replayed),))
        loss, gradient = window_gradient(module, window)
        assert loss == 0.0
        assert not gradient.any()


def test_counts_are_those_of_tokens(random_qwen3: str) -> None:
    module = SFTModule(
        random_qwen3, Weights(dtype="float32"), LoRA(rank=2), anchor=KLAnchor(tail_tokens=2, text="both")
    )
    module.configure_model()
    groups = window_of_talks(seed=2)
    answers = [(path, int((path.classes == 1).sum())) for group in groups for path in group]
    trained = sum(number for path, number in answers if path.weight)
    assert module.counts(cut(groups, (6,))).tolist() == [trained, sum(min(2, number) for _, number in answers)]


def test_sums_by_source_are_those_of_its_conversations_alone_and_leave_out_what_is_replayed(exact: SFTModule) -> None:
    name_sources(exact, "a", "b")
    groups = [
        [replace(path, source=("a", "b", "a", "b", "replayed", "replayed")[number]) for path in paths]
        for number, paths in enumerate(window_of_talks(seed=5))
    ]

    def metrics(groups: Sequence[list[TokenPath]], sizes: Sequence[int]) -> dict[str, float]:
        window = cut(groups, sizes)
        counts = exact.counts(window)
        sums = torch.stack([exact.forest_loss(forest, counts, 0)[1] for forest in window.forests]).sum(0)
        return {key: float(value) for key, value in exact.window_metrics(sums, counts).items()}

    whole = metrics(groups, (2, 1, 3))
    parts = {name: [group for group in groups if group[0].source == name] for name in "ab"}
    tokens = {name: sum((path.classes == 1).sum() for group in part for path in group) for name, part in parts.items()}
    for name, part in parts.items():
        alone = metrics(part, (len(part),))
        for key in ("nll", "mean_token_accuracy"):
            assert whole[f"by_source/{name}/{key}"] == pytest.approx(alone[key], rel=1e-9)
        assert whole[f"by_source/{name}/share"] == pytest.approx(tokens[name] / sum(tokens.values()))
    assert {key.split("/")[1] for key in whole if key.endswith("/nll")} == {"a", "b"}

    trained = [group for group in groups if group[0].weight]
    totals = torch.stack([exact.validation_sums(forest) for forest in cut(trained, (1, 3)).forests]).sum(0)
    validated = exact.validation_metrics(totals)
    for key in ("nll", "share"):
        for name in "ab":
            assert float(validated[f"by_source/{name}/{key}"]) == pytest.approx(whole[f"by_source/{name}/{key}"])


def test_a_run_with_one_source_logs_nothing_by_source(exact: SFTModule) -> None:
    groups = window_of_talks(seed=5)
    window = cut(groups, (6,))
    counts = exact.counts(window)
    _, sums = exact.forest_loss(window.forests[0], counts, 0)
    assert not [key for key in exact.window_metrics(sums, counts) if "by_source" in key]


# ---------------------------------------------------------------------- whole runs


@dataclass(frozen=True)
class Given(ConversationSource):
    """Conversations as they are; each asks for one number and gets another."""

    first: int = 0
    number: int = 5

    def conversations(self) -> list[Conversation]:
        """See the class."""
        result = []
        for i in range(self.first, self.first + self.number):
            turns = [Message("user", f"Value of item {i}?"), Message("assistant", f"It is {i * 7 + 3}.")]
            if i % 2:
                turns += [Message("user", "Twice that?"), Message("assistant", f"{i * 14 + 6}")]
            result.append(Conversation(tuple(turns), id=f"item {i}", source="given"))
        return result


@dataclass(frozen=True)
class Counting(BaseReference):
    """The bare base, counting how often it is asked."""

    calls: list[int] = field(default_factory=list, repr=False)

    def active(self, policy: Policy) -> Any:
        """See the class."""
        self.calls.append(1)
        return super().active(policy)


def a_module(lr: float = 1e-3, dropout: float = 0.0, rank: int = 4, **options: Any) -> SFTModule:
    torch.manual_seed(11)
    settings = {"schedule": ConstantSchedule(), **options}
    module = SFTModule(
        weights=Weights(dtype="float32"),
        lora=LoRA(rank=rank, dropout=dropout),
        optimizer=lambda parameters: AdamW(parameters, lr=lr),
        **settings,
    )
    module.configure_model()  # so that the adapter's draw does not depend on what the trainer draws before
    return module


def some_data(**options: Any) -> SFTDataModule:
    return SFTDataModule(**{"sources": [Given()], "window": 2, **options})


def fit(
    module: SFTModule,
    data: SFTDataModule,
    steps: int,
    callbacks: Sequence[L.Callback] = (),
    ckpt: Path | None = None,
    precision: Any = "32-true",
) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=steps,
        val_check_interval=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )
    trainer.fit(module, datamodule=data, ckpt_path=None if ckpt is None else str(ckpt), weights_only=True)
    return trainer


def adapter_of(module: SFTModule) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.policy.adapter_parameters().items()}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class Gradients(L.Callback):
    """Keeps what the optimizer is given."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        found = [p.grad.flatten().clone() for p in pl_module.parameters() if p.grad is not None]
        self.seen.append(torch.cat(found))


class SaveEachStep(L.Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int, when: str = "step") -> Path:
        return self.folder / f"{when}-{step}.ckpt"

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        trainer.save_checkpoint(self.path(trainer.global_step))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.rand(3)
        np.random.rand(3)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.path(trainer.global_step, "validation"))


def test_gradient_that_the_optimizer_gets_does_not_depend_on_the_token_budget() -> None:
    seen = []
    for budget in (80, 4096):
        gradients = Gradients()
        module = SFTModule(
            weights=Weights(dtype="float32"),
            lora=LoRA(rank=4),
            anchor=KLAnchor(coef=1.0, text="both"),
            optimizer=lambda parameters: SGD(parameters, lr=1e-3),
            schedule=ConstantSchedule(),
            max_grad_norm=0.0,
        )
        torch.manual_seed(5)
        module.configure_model()
        data = some_data(token_budget=budget, window=5, replay=[Given(20, 3)], replay_share=0.6)
        fit(module, data, 3, [gradients])
        forests = [len(w.forests) for w in data.train_dataloader()]
        assert (max(forests) == 1) == (budget == 4096)
        seen.append(gradients.seen)
    for one, other in zip(*seen, strict=True):
        assert (one - other).norm() < 1e-4 * other.norm()


@pytest.mark.parametrize(("anchor", "expected"), [
    (KLAnchor(coef=0.0), [0, 0, 0, 0]),
    (KLAnchor(coef=0.1, start_step=2), [0, 0, 1, 1]),
    (KLAnchor(coef=0.1, start_step=1, warmup_steps=2), [0, 0, 1, 1]),
])  # fmt: skip
def test_the_reference_runs_only_where_the_anchor_weighs(anchor: KLAnchor, expected: list[int]) -> None:
    reference = Counting()
    counted: list[int] = []

    class Count(L.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            reference.calls.clear()

        def on_train_batch_end(self, *args: Any) -> None:
            counted.append(len(reference.calls))

    trainer = fit(a_module(reference=reference, anchor=anchor), some_data(), 4, [Count()])
    assert counted == expected
    assert ("train/kl" in trainer.callback_metrics) == (anchor.coef > 0)


def test_a_run_leaves_every_bit_of_the_base_alone_and_trains_the_adapter() -> None:
    module = a_module(lr=0.05)
    start = adapter_of(module)
    fit(module, some_data(), 3)
    fresh = load_base("tiny-qwen3", Weights(dtype="float32")).state_dict()
    here = {name.replace(".base_layer", ""): tensor for name, tensor in module.policy.causal_lm.state_dict().items()}
    base = {name: tensor for name, tensor in here.items() if "lora_" not in name}
    assert_same_bits(base, fresh)
    assert all(not torch.equal(start[name], tensor) for name, tensor in adapter_of(module).items())


def test_the_base_stays_in_evaluation_mode_while_adapters_train() -> None:
    modes: dict[str, bool] = {}

    class Look(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
            modes.update({name: part.training for name, part in pl_module.named_modules()})

    fit(a_module(dropout=0.1), some_data(val_sources=[Given(10, 2)]), 2, [Look()])
    dropout = {name for name in modes if "lora_dropout" in name}
    assert all(modes[name] for name in dropout)
    assert not any(training for name, training in modes.items() if name.endswith((".self_attn", ".mlp", ".base_layer")))


@pytest.mark.parametrize("coef", [0.0, 0.1])
def test_validation_reports_kl_in_both_directions_with_and_without_an_anchor(coef: float) -> None:
    module = a_module(lr=0.02, anchor=KLAnchor(coef=coef))
    data = some_data(val_sources=[Given(10, 3)], token_budget=80)
    metrics = fit(module, data, 3).callback_metrics
    policy = module.policy.eval()
    reverse, forward, nll = [], [], []
    with torch.no_grad():
        for window in data.val_dataloader():  # type: ignore[union-attr]
            for forest in window.forests:
                log_p = (policy.hidden(forest)[forest.pair_rows] @ policy.head.weight.T).log_softmax(-1)
                with policy.peft.disable_adapter():
                    log_q = (policy.hidden(forest)[forest.pair_rows] @ policy.head.weight.T).log_softmax(-1)
                at = forest.target_pairs
                reverse.append((log_p.exp() * (log_p - log_q)).sum(-1)[at])
                forward.append((log_q.exp() * (log_q - log_p)).sum(-1)[at])
                nll.append(-log_p.gather(1, forest.pair_tokens[:, None])[:, 0][at])
    for key, values in (("kl", reverse), ("kl_forward", forward), ("nll", nll), ("loss", nll)):
        mean = float(torch.cat(values).mean())
        assert mean > 0
        assert float(metrics[f"val/{key}"]) == pytest.approx(mean, rel=1e-4)


def test_training_with_and_without_validation_gives_the_same_bits(tmp_path: Path) -> None:
    plain, watched = a_module(dropout=0.2), a_module(dropout=0.2)
    torch.manual_seed(0)
    fit(plain, some_data(), 4)
    torch.manual_seed(0)
    fit(watched, some_data(val_sources=[Given(10, 3)]), 4, [SaveEachStep(tmp_path)])
    assert_same_bits(adapter_of(plain), adapter_of(watched))


def test_it_overfits_a_handful_of_conversations() -> None:
    module = a_module(lr=0.006, rank=16, anchor=KLAnchor(coef=0.0), schedule=ConstantSchedule(warmup_steps=5))
    metrics = fit(module, some_data(sources=[Given(0, 3)], window=3), 50).callback_metrics
    assert float(metrics["train/nll"]) < 0.5  # from about 5
    assert float(metrics["train/mean_token_accuracy"]) == 1.0


# ---------------------------------------------------------------------- stopping and resuming


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_window_examples_and_saved_state(value: float) -> None:
    module = a_module()

    class Plant(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Window, batch_idx: int) -> None:
            if trainer.global_step == 2:
                next(iter(module.policy.adapter_parameters().values())).data.fill_(value)

    data = some_data()
    with pytest.raises(NonFiniteError, match="window 2: loss is not finite") as caught:
        fit(module, data, 5, [Plant()])
    message = str(caught.value)
    last = window_names(data)[2]
    assert all(name in message for name in last)
    saved = Path(message.split("State before the window: ")[1].split(". Look")[0])
    state = torch.load(saved, weights_only=True)
    assert state["global_step"] == 2
    assert state["state_dict"].keys() == {f"policy.{name}" for name in module.policy.adapter_parameters()}


def window_names(data: SFTDataModule) -> list[tuple[str, ...]]:
    return [tuple(data._trained[i].name for i in data._plan.trained_in(w)) for w in range(data.windows_per_epoch)]


def test_only_the_examples_of_the_forest_that_is_not_finite_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = a_module()
    plain = module.forest_loss

    def poisoned(forest: TokenForest, counts: Tensor, step: int) -> tuple[Tensor, Tensor]:
        loss, sums = plain(forest, counts, step)
        bad = step < 100 and any(name.startswith("item 3") for name in forest.examples)
        return loss * (float("nan") if bad else 1.0), sums

    monkeypatch.setattr(module, "forest_loss", poisoned)
    with pytest.raises(NonFiniteError, match=r"window 0: loss is not finite; examples: item 3#1, item 3#3\. State"):
        fit(module, some_data(window=5, token_budget=80), 2)


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step() -> None:
    module = a_module()
    start = adapter_of(module)

    class Plant(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
            if trainer.global_step == 0:
                parameter = list(module.policy.adapter_parameters().values())[1]
                parameter.register_hook(lambda gradient: gradient / 0)

    with pytest.raises(NonFiniteError, match=r"window 0: gradient norm \((nan|inf)\) is not finite"):
        fit(module, some_data(), 2, [Plant()])
    assert_same_bits(adapter_of(module), start)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[SaveEachStep, dict[str, Tensor], float]:
    save = SaveEachStep(tmp_path_factory.mktemp("run"))
    module = a_module(dropout=0.2)
    torch.manual_seed(0)
    trainer = fit(module, some_data(val_sources=[Given(10, 3)], token_budget=80), 6, [save])
    return save, adapter_of(module), float(trainer.callback_metrics["train/num_tokens"])


@pytest.mark.parametrize("when", ["step", "validation"])
@pytest.mark.parametrize("step", [1, 3, 4])  # three windows an epoch: inside the first, at its end, inside the second
def test_a_resumed_run_ends_with_the_same_bits(
    whole_run: tuple[SaveEachStep, dict[str, Tensor], float], when: str, step: int, tmp_path: Path
) -> None:
    save, expected, tokens = whole_run
    torch.manual_seed(99)
    module = a_module(dropout=0.2)
    data = some_data(val_sources=[Given(10, 3)], token_budget=80)
    again = SaveEachStep(tmp_path)
    trainer = fit(module, data, 6, [again], save.path(step, when))
    assert_same_bits(adapter_of(module), expected)
    assert trainer.global_step == 6
    assert float(trainer.callback_metrics["train/num_tokens"]) == tokens


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 2e-3}, "optimizer.lr: 0.001 in the checkpoint, 0.002 now"),
        ({"anchor": KLAnchor(coef=0.5)}, r"coef=0.03.* in the checkpoint, .*coef=0.5"),
        ({"max_grad_norm": 0.5}, "max_grad_norm: 1.0 in the checkpoint, 0.5 now"),
        ({"data.window": 3}, "data.window: 2 in the checkpoint, 3 now"),
        ({"data.sources": [Given(1, 5)]}, "data: "),
        ({"dropout": 0.3}, "lora: "),
    ],
)
def test_a_resume_with_other_settings_is_refused_and_the_difference_named(
    whole_run: tuple[SaveEachStep, dict[str, Tensor], float], change: dict[str, Any], named: str
) -> None:
    module = a_module(**{"dropout": 0.2, **{key: value for key, value in change.items() if "." not in key}})
    changed = {key.split(".")[1]: value for key, value in change.items() if "." in key}
    data = some_data(**{"token_budget": 80, **changed})
    with pytest.raises(ValueError, match=named):
        fit(module, data, 6, ckpt=whole_run[0].path(3))


def test_a_schedule_that_depends_on_the_length_of_the_run_refuses_another_length(tmp_path: Path) -> None:
    save = SaveEachStep(tmp_path)
    fit(a_module(schedule=None), some_data(), 2, [save])
    with pytest.raises(ValueError, match="total steps: 2 in the checkpoint, 4 now"):
        fit(a_module(schedule=None), some_data(), 4, ckpt=save.path(1))


def test_a_checkpoint_of_another_adapter_is_refused(whole_run: tuple[SaveEachStep, dict[str, Tensor], float]) -> None:
    module = SFTModule(weights=Weights(dtype="float32"), lora=LoRA(rank=2))
    with pytest.raises(ValueError, match=r"lora: LoRA\(rank=4"):
        fit(module, some_data(), 6, ckpt=whole_run[0].path(3))


# ---------------------------------------------------------------------- what is refused, and number formats


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_number_formats_in_which_adapters_are_not_fp32_are_refused(precision: Literal["64-true", "bf16-true"]) -> None:
    with pytest.raises(ValueError, match=f"`trainer.precision` = {precision} is not supported"):
        fit(a_module(), some_data(), 1, precision=precision)


def test_a_bf16_base_trains_fp32_adapters_under_bf16_mixed() -> None:
    module = SFTModule(lora=LoRA(rank=4))
    fit(module, some_data(), 2, precision="bf16-mixed")
    assert {parameter.dtype for parameter in module.policy.adapter_parameters().values()} == {torch.float32}
    assert module.policy.head.weight.dtype == torch.bfloat16


def test_a_negative_gradient_norm_and_a_missing_length_are_refused() -> None:
    for value in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=f"`max_grad_norm` must be >= 0, got {value}"):
            SFTModule(max_grad_norm=value)
    trainer = L.Trainer(
        max_steps=-1,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    with pytest.raises(ValueError, match="`schedule` CosineSchedule needs the length of the run"):
        trainer.fit(a_module(schedule=None), datamodule=some_data())


def test_a_policy_that_is_not_its_reference_at_step_0_is_refused() -> None:
    module = a_module()
    list(module.policy.adapter_parameters().values())[1].data.fill_(0.1)
    with pytest.raises(RuntimeError, match="at step 0 the policy differs from its reference"):
        fit(module, some_data(), 1)


def test_a_base_with_a_trainable_weight_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = a_module()
    next(iter(module.policy.causal_lm.model.norm.parameters())).requires_grad_(True)
    with pytest.raises(ValueError, match=r"`.*model\.norm\.weight` is trainable but belongs to no LoRA adapter"):
        fit(module, some_data(), 1)

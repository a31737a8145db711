"""Pair loss and anchor are the plain formula's, however a window is cut; at weight 0 the anchor runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from test_dpo_module import ALL_PAIRS, GROUPS, exact_module, module_of, naive_scores, window_gradient
from test_sft_module import naive_divergence
from torch import Tensor

from lit_align.forest import TokenForest, TokenPath, Window
from lit_align.losses.anchor import ForwardKL, KLAnchor, ReverseKL, TargetMaskedKL
from lit_align.losses.preference import (
    AOTLoss,
    IPOLoss,
    ORPOLoss,
    PreferenceLoss,
    ShiftedBCOPairLoss,
    SigmoidLoss,
    SimPOLoss,
    WPOLoss,
)
from lit_align.models.reference import BaseReference
from lit_align.modules import dpo, pair_scoring
from lit_align.modules.dpo import DPOModule


def talk(tokens: Sequence[int], classes: Sequence[int], name: str) -> TokenPath:
    return TokenPath(np.array(tokens, np.int32), np.array(classes, np.uint8), name, weight=0.0, source="old")


# Two conversations, the second of two turns whose paths share the first one's prompt.
REPLAYED = [
    [talk([20, 21, 22, 23, 2], [0, 0, 1, 1, 1], "one")],
    [talk([24, 25, 26, 2], [0, 0, 1, 1], "turn 1"), talk([24, 25, 26, 2, 27, 28, 29, 2], [0] * 5 + [1] * 3, "turn 2")],
]


def window_of(*parts: tuple[int, int]) -> Window:
    """Forests of so many groups of pairs and so many replayed conversations each, taken in turn."""
    groups, replayed, forests = iter(GROUPS), iter(REPLAYED), []
    for pairs, talks in parts:
        trained = [[path for both in next(groups) for path in both] for _ in range(pairs)]
        forests.append(TokenForest.build([*trained, *(next(replayed) for _ in range(talks))]))
    return Window(tuple(forests), 0, ())


CUTS = [window_of((4, 2)), window_of((1, 0), (1, 1), (2, 1)), window_of((3, 1), (1, 0), (0, 1))]


@pytest.fixture(scope="module")
def exact(random_qwen3: str) -> Iterator[DPOModule]:
    with exact_module(random_qwen3) as module:
        yield module


def naive_anchor(module: DPOModule, anchor: KLAnchor) -> Tensor:
    """Mean divergence over the anchored tokens, each path alone, two forwards by transformers and PEFT."""
    chosen = [both[0] for both in ALL_PAIRS] if anchor.text != "replayed" else []
    old = [path for talk in REPLAYED for path in talk] if anchor.text != "trained" else []
    model, values = module.policy.causal_lm, []
    model.set_attn_implementation("sdpa")
    for path in [*chosen, *old]:
        ids = torch.from_numpy(path.tokens.astype(np.int64))[None]
        with torch.no_grad(), module.policy.peft.disable_adapter():
            base = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        own = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        for at in np.flatnonzero(path.classes == 1)[-anchor.tail_tokens :].tolist():
            values.append(naive_divergence(anchor.divergence, own[at - 1], base[at - 1], int(path.tokens[at])))
    model.set_attn_implementation("lit_align_forest")
    return torch.stack(values).mean()


def naive_gradient(module: DPOModule) -> tuple[float, Tensor]:
    value = module.loss(naive_scores(module, ALL_PAIRS)).mean() + module.anchor.coef * naive_anchor(
        module, module.anchor
    )
    found = torch.autograd.grad(value, list(module.policy.adapter_parameters().values()))
    return float(value.detach()), torch.cat([part.flatten() for part in found])


def agrees(module: DPOModule, window: Window, plain: tuple[float, Tensor]) -> bool:
    value, gradient, _ = window_gradient(module, window)
    return bool(abs(value - plain[0]) < 1e-9 * abs(plain[0])) and bool(
        (gradient - plain[1]).norm() < 1e-8 * plain[1].norm()
    )


BOTH: list[tuple[PreferenceLoss, KLAnchor]] = [
    (SigmoidLoss(beta=0.3), KLAnchor(ReverseKL(), coef=0.7)),
    (SigmoidLoss(beta=0.3), KLAnchor(ReverseKL(), coef=2.0, text="replayed")),
    (WPOLoss(SigmoidLoss(beta=0.3)), KLAnchor(TargetMaskedKL(), coef=0.7, tail_tokens=2, text="both")),
    (IPOLoss(beta=0.3), KLAnchor(ForwardKL(), coef=0.7, tail_tokens=1)),
    (SimPOLoss(), KLAnchor(ReverseKL(), coef=0.7)),
    (ORPOLoss(), KLAnchor(ForwardKL(), coef=0.7, text="replayed")),
    (AOTLoss(beta=0.3), KLAnchor(ReverseKL(), coef=0.7, text="both")),
    (ShiftedBCOPairLoss(beta=0.3), KLAnchor(ReverseKL(), coef=0.7)),
]


@pytest.mark.parametrize(("loss", "anchor"), BOTH, ids=str)
def test_value_and_gradient_of_a_window_are_the_plain_formulas_however_it_is_cut(
    exact: DPOModule, loss: PreferenceLoss, anchor: KLAnchor
) -> None:
    exact.loss, exact.anchor = loss, anchor
    plain = naive_gradient(exact)
    for window in CUTS:
        assert agrees(exact, window, plain)


FAULTS = ["anchor on rejected answers", "replayed text as an answer", "mean of means", "anchor forgotten once coupled"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(exact: DPOModule, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    exact.loss, exact.anchor = AOTLoss(beta=0.3), KLAnchor(ReverseKL(), coef=0.7, text="both")
    plain = naive_gradient(exact)
    assert agrees(exact, CUTS[1], plain)
    if fault == FAULTS[0]:
        monkeypatch.setattr(dpo, "chosen_targets", lambda forest: ~forest.replayed)
    elif fault == FAULTS[1]:
        monkeypatch.setattr(pair_scoring, "chosen_targets", lambda forest: forest.target_examples % 2 == 0)
        monkeypatch.setattr(pair_scoring, "count_pairs", lambda forest: (len(forest.examples) + 1) // 2)
    elif fault == FAULTS[2]:
        whole = exact._share

        def by_forest(loss: Tensor, scored: Any, counts: Tensor, step: int) -> Tensor:
            return whole(loss, scored, torch.stack([counts[0], counts[1] / 3]), step)

        monkeypatch.setattr(exact, "_share", by_forest)
    else:
        monkeypatch.setattr(exact, "_share", lambda loss, scored, counts, step: loss / counts[0])
    try:
        assert not agrees(exact, CUTS[1], plain)
    except (RuntimeError, IndexError):
        assert fault == FAULTS[1]  # there are more answers than pairs


def test_the_rejected_answer_alone_moves_no_anchor(exact: DPOModule) -> None:
    exact.loss, exact.anchor = SigmoidLoss(), KLAnchor(coef=1.0)
    chosen = [len(np.flatnonzero(both[0].classes == 1)) for both in ALL_PAIRS]
    assert exact.counts(CUTS[0]).tolist() == [len(ALL_PAIRS), sum(chosen)]
    exact.anchor = KLAnchor(coef=1.0, text="both", tail_tokens=1)
    assert exact.counts(CUTS[0]).tolist() == [len(ALL_PAIRS), len(ALL_PAIRS) + 3]


@pytest.mark.parametrize("window", CUTS, ids=["whole", "three", "replayed alone"])
def test_metrics_hold_the_mean_divergence_and_replayed_text_changes_no_other(exact: DPOModule, window: Window) -> None:
    exact.loss, exact.anchor = SigmoidLoss(beta=0.3), KLAnchor(coef=0.5, text="both")
    _, _, sums = window_gradient(exact, window)
    metrics = exact.window_metrics(sums, exact.counts(window))
    assert float(metrics.pop("kl")) == pytest.approx(float(naive_anchor(exact, exact.anchor).detach()), rel=1e-9)
    assert metrics.pop("kl_coef") == 0.5
    exact.anchor = KLAnchor(coef=0.0)
    bare = window_of((4, 0))
    _, _, sums = window_gradient(exact, bare)
    expected = exact.window_metrics(sums, exact.counts(bare))
    assert "kl" not in expected
    assert expected.pop("kl_coef") == 0.0
    assert {key: float(value) for key, value in metrics.items()} == pytest.approx(
        {key: float(value) for key, value in expected.items()}, rel=1e-9
    )


def test_an_equal_policy_has_an_anchor_of_exactly_zero(random_qwen3: str) -> None:
    module = module_of(random_qwen3, SimPOLoss(), anchor=KLAnchor(coef=3.0, text="both"))
    value, gradient, sums = window_gradient(module, CUTS[1])
    module.anchor = KLAnchor(coef=0.0)
    bare, bare_gradient, _ = window_gradient(module, CUTS[1])
    assert (value, float(sums[-1])) == (bare, 0.0)
    assert (gradient - bare_gradient).norm() < 1e-6 * bare_gradient.norm()  # the products are of other sizes


LATER = KLAnchor(coef=1.0, start_step=5, warmup_steps=2, text="both")


@pytest.mark.parametrize(
    ("loss", "anchor", "step", "runs"),
    [
        (SimPOLoss(), LATER, 0, 0),
        (SimPOLoss(), LATER, 5, 0),  # the first step of the warm-up has weight 0
        (SimPOLoss(), LATER, 6, 3),
        (SimPOLoss(), KLAnchor(coef=1.0), 0, 2),  # a forest of replayed text alone has no chosen answer
        (SigmoidLoss(), LATER, 0, 2),  # log-probs of pairs, for which it runs anyway
        (SigmoidLoss(), LATER, 6, 3),  # one run gives both
        (AOTLoss(), LATER, 0, 2),
        (AOTLoss(), LATER, 6, 3),
        (SigmoidLoss(), KLAnchor(coef=1.0, text="replayed"), 0, 3),
    ],
)
def test_the_reference_runs_once_a_forest_and_only_for_what_weighs(
    exact: DPOModule, monkeypatch: pytest.MonkeyPatch, loss: PreferenceLoss, anchor: KLAnchor, step: int, runs: int
) -> None:
    seen = []

    @contextmanager
    def counted(self: BaseReference, policy: Any) -> Iterator[None]:
        seen.append(policy)
        with original(self, policy):
            yield

    original = BaseReference.active
    monkeypatch.setattr(BaseReference, "active", counted)
    exact.loss, exact.anchor = loss, anchor
    window_gradient(exact, CUTS[2], step)
    assert len(seen) == runs


def test_replayed_text_before_a_pair_is_refused() -> None:
    paths = [path for both in GROUPS[1] for path in both]
    with pytest.raises(ValueError, match="replayed examples must stand after those of all pairs"):
        pair_scoring.count_pairs(TokenForest.build([REPLAYED[0], paths]))
    assert pair_scoring.count_pairs(TokenForest.build([paths, REPLAYED[0]])) == 1
    assert pair_scoring.count_pairs(TokenForest.build(REPLAYED)) == 0


def test_a_resume_with_another_anchor_is_another_run(random_qwen3: str) -> None:
    first, second = (module_of(random_qwen3, anchor=KLAnchor(coef=coef)).objective_identity() for coef in (0.0, 0.1))
    assert first != second

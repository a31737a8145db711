"""How far two models agree: exactly 0 for one and the same, as counted by hand else, and told as it is."""

from __future__ import annotations

import math

import pytest
import torch

from lit_align.evals.agreement import agreement, agreement_table, token_agreement


def logits(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 50, generator=torch.Generator().manual_seed(seed))


def test_a_model_agrees_with_itself_exactly() -> None:
    found = agreement([token_agreement(logits(4, seed), logits(4, seed)) for seed in range(12)], [True] * 12)
    assert (found.kl.mean, found.largest_kl, found.gap.mean, found.largest_gap) == (0.0, 0.0, 0.0, 0.0)
    assert (found.same_token.mean, found.positions) == (1.0, 48)
    assert math.isinf(found.kl.high), "no difference bounds nothing"
    assert found.kl_at_most == 0.0


def test_the_divergence_is_that_of_the_trained_model_from_the_other() -> None:
    one, other = logits(30, 0).double(), logits(30, 1).double()
    p, q = one.softmax(-1), other.softmax(-1)
    found = token_agreement(one, other)
    torch.testing.assert_close(found[:, 0], (p * (p / q).log()).sum(-1))
    likeliest = p.argmax(-1)
    gap = [abs(math.log(float(p[i, t] / q[i, t]))) for i, t in enumerate(likeliest)]
    assert found[:, 1].tolist() == pytest.approx(gap)
    assert found[:, 2].tolist() == [float(t == int(q[i].argmax())) for i, t in enumerate(likeliest)]
    assert not torch.allclose(found[:, 0], token_agreement(other, one)[:, 0])


def test_the_positions_of_an_answer_are_one_cluster() -> None:
    alike = [torch.tensor([[kl, 0.0, 1.0]] * 50, dtype=torch.float64) for kl in (1.0, 2.0) * 6]
    mixed = [torch.tensor([[1.0, 0.0, 1.0], [2.0, 0.0, 1.0]] * 25, dtype=torch.float64) for _ in range(12)]
    apart, together = agreement(alike, None).kl, agreement(mixed, None).kl
    assert apart.mean == together.mean == 1.5
    assert apart.high - apart.low > 0.5, "twelve answers, not six hundred tokens"


def test_the_table_says_what_was_not_tried_and_where_prompts_are_few() -> None:
    few = agreement([torch.tensor([[0.25, 0.5, 0.0]], dtype=torch.float64)] * 3, [True, False, True])
    table = agreement_table({"trained": agreement([torch.zeros(1, 3).double() + 0.5] * 3, None), "exported": few})
    rows = [[cell.strip() for cell in line.split("|")][1:-1] for line in table.splitlines() if line.startswith("|")]
    assert (rows[2][0], rows[2][-1]) == ("trained", "–")
    assert rows[3][:2] == ["exported", "3"]
    assert rows[3][3] == "5.0e-01, 5.0e-01"
    assert rows[3][-1].startswith("0.667 [")
    assert "Too few: fewer than 10 prompts" in table

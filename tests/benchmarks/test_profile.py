"""FLOPs worked out by hand, readings dealt out to parts, and a step taken apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks.contender import ModelShape
from benchmarks.dpo.command import made_pairs
from benchmarks.dpo.ours import Ours
from benchmarks.dpo.pairs import PairWorkload
from benchmarks.profile.command import Part, WindowProfile, profile
from benchmarks.profile.flops import flop_counter, matrix_product_rate
from benchmarks.profile.meter import BACKWARD, HEAD, OTHER, PACKING, PARTS, POLICY, REFERENCE, Meter

# ------------------------------------------------------------------------------------------------ FLOPs


@pytest.mark.parametrize(("causal", "factor"), [(False, 1.0), (True, 0.5)])
def test_attention_on_a_cpu_is_counted(causal: bool, factor: float) -> None:
    query = torch.randn(1, 2, 6, 8, requires_grad=True)
    key, value = (torch.randn(1, 2, 6, 8) for _ in range(2))
    with flop_counter() as counter:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    assert counter.get_total_flops() == factor * 2 * (2 * 2 * 6 * 6 * 8)  # two products, two heads
    with flop_counter() as counter:
        torch.autograd.backward(out.sum())
    assert counter.get_total_flops() == factor * 5 * (2 * 2 * 6 * 6 * 8)  # scores again, and four gradients


def test_a_masked_call_is_counted_as_dense() -> None:
    query, key = torch.randn(1, 1, 3, 8), torch.randn(1, 1, 5, 8)
    with flop_counter() as counter:
        F.scaled_dot_product_attention(query, key, key, attn_mask=torch.ones(3, 5, dtype=torch.bool))
    assert counter.get_total_flops() == 2 * 2 * 3 * 5 * 8


def test_the_machine_has_a_rate() -> None:
    assert 1e8 < matrix_product_rate(torch.float32, size=256) < 1e13


# ------------------------------------------------------------------------------------------------ the meter


def test_a_part_inside_another_counts_for_itself_alone() -> None:
    readings = iter([0.0, 1.0, 3.0, 7.0])
    meter = Meter(lambda: next(readings))
    with meter.part("outer"), meter.part("inner"):
        pass
    assert meter.shares == {"outer": 1.0 + 4.0, "inner": 2.0}


def test_what_lies_between_two_windows_is_nobodys() -> None:
    readings = iter([0.0, 1.0, 5.0, 6.0])
    meter = Meter(lambda: next(readings))
    for _ in range(2):
        with meter.part("window"):
            pass
    assert meter.shares == {"window": 2.0}


def test_a_part_ends_where_it_fails() -> None:
    meter = Meter(lambda: 0.0)
    with pytest.raises(ZeroDivisionError), meter.part("outer"):
        meter.around(lambda: 1 / 0, "inner")()
    assert meter._open == []


# ------------------------------------------------------------------------------------------------ a step


def test_flops_of_a_step_are_those_of_its_layers(tmp_path: Path) -> None:
    shape = ModelShape(200, hidden=32, layers=1)
    workload = PairWorkload(shape, made_pairs(200, part=0.05)["TAT-QA, one question"], batch=2, rank=4)
    found = profile("one", Ours().prepare(workload, shape.save(tmp_path)), rounds=1, rate=1e9)
    parts = {part.name: part for part in found.parts}
    assert tuple(parts) == PARTS
    assert parts[PACKING].flops == parts[OTHER].flops == 0
    assert all(parts[name].flops > 0 for name in (REFERENCE, POLICY, HEAD, BACKWARD))
    assert all(part.seconds > 0 for part in parts.values())

    forest = workload.rows.window().forests[0]
    rows, needed = len(forest), len(set(forest.pair_rows.tolist()))
    # Queries 32 x 512, keys and values 32 x 256, output 512 x 32 at all rows; the last layer's MLP at its needed rows.
    everywhere = 32 * (512 + 2 * 256) + 4 * (3 * 32 + 512 + 2 * 256)
    at_needed = 3 * 32 * 96 + 4 * 3 * (32 + 96)
    base_alone = 2 * rows * (32 * (512 + 2 * 256) + 512 * 32) + 2 * needed * 3 * 32 * 96
    attention = parts[REFERENCE].flops - base_alone
    with_lora = 2 * rows * (everywhere + 512 * 32 + 4 * (512 + 32)) + 2 * needed * at_needed
    assert parts[POLICY].flops - attention == with_lora
    assert 0 < attention < 2 * 2 * rows * rows * 512  # less than dense
    # Values once for the reference, values and their gradients for the policy.
    assert parts[HEAD].flops == 3 * 2 * len(forest.pair_rows) * 32 * 200


def test_shares_add_up_in_the_table() -> None:
    found = WindowProfile("one", (Part("head", 1.0, 10**9), Part("other", 3.0, 0)), rate=2e9)
    assert found.markdown().splitlines()[2:] == [
        "| head | 25.0% | 1.000 | 1.00 | 1.0 | 50% |",
        "| other | 75.0% | 3.000 | 0.00 |  |  |",
        "| all | 100.0% | 4.000 | 1.00 | 0.2 | 12% |",
    ]

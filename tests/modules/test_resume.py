"""Random numbers come back to the bit from a checkpoint, and a checkpoint of another run is refused by name."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_align.modules.resume import refuse_differences, refuse_other_tensors, restore_rng, rng_state


def draws() -> tuple[Any, ...]:
    return (
        torch.rand(5).tolist(),
        torch.randn(3).tolist(),
        random.random(),
        random.gauss(0, 1),
        np.random.rand(4).tolist(),
        np.random.standard_normal(),
        np.random.randint(1 << 30),
    )


@pytest.mark.parametrize("used", [0, 1, 3])  # an odd number of Gaussians leaves one set aside in Python's and numpy's
def test_all_generators_come_back_from_a_file_of_tensors_and_plain_types(tmp_path: Path, used: int) -> None:
    torch.manual_seed(used)
    random.seed(used)
    np.random.seed(used)
    for _ in range(used):
        random.gauss(0, 1)
        np.random.standard_normal()
    state = rng_state()
    expected = [draws() for _ in range(700)]  # past one block of the Mersenne twisters
    torch.save(state, tmp_path / "state.pt")
    draws()
    restore_rng(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [draws() for _ in range(700)] == expected


def test_reading_the_state_draws_nothing_and_the_state_does_not_move() -> None:
    first = rng_state()
    second = rng_state()
    draws()
    assert torch.equal(first["torch"], second["torch"])
    restore_rng(first)
    one = draws()
    restore_rng(second)
    assert draws() == one


def test_the_same_identity_is_accepted() -> None:
    assert refuse_differences({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, "last.ckpt") is None


def test_every_difference_is_named_with_both_values() -> None:
    saved, now = {"lr": "0.1", "seed": "0", "gone": "x"}, {"lr": "0.2", "seed": "0", "new": "y"}
    with pytest.raises(ValueError, match=r"last\.ckpt belongs to another run") as caught:
        refuse_differences(saved, now, "last.ckpt")
    lines = str(caught.value).splitlines()
    assert lines[1:4] == [
        "  gone: x in the checkpoint, not set now",
        "  lr: 0.1 in the checkpoint, 0.2 now",
        "  new: not set in the checkpoint, y now",
    ]
    assert "seed" not in str(caught.value)


@pytest.mark.parametrize(
    ("saved", "named"),
    [
        ({}, r"`a` is missing in the checkpoint \(1 differences\)"),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(1)}, "`b` is in the checkpoint only"),
        ({"a": torch.zeros(3, 2)}, r"`a` has shape \(3, 2\) in the checkpoint, \(2, 3\) here"),
        ({"b": torch.zeros(2, 3)}, r"`a` is missing in the checkpoint \(2 differences\)"),
    ],
)
def test_an_adapter_that_is_not_the_policys_is_refused_by_tensor(saved: dict[str, torch.Tensor], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        refuse_other_tensors(saved, {"a": torch.zeros(2, 3)}, "last.ckpt")
    refuse_other_tensors({"a": torch.ones(2, 3)}, {"a": torch.zeros(2, 3)}, "last.ckpt")

"""What stages draw at random: adapters are the same on all ranks, dropout is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_align.models.loading import LoRA, Weights
from lit_align.modules.dpo import DPOModule
from lit_align.stage import Stage


def _drawn(base: str, rank: int, patch: pytest.MonkeyPatch) -> list[tuple[dict[str, Tensor], Tensor]]:
    """What a rank has at the start of each of two stages: its new adapter, and what the first window drops out."""
    patch.setattr(DPOModule, "global_rank", rank)
    module = DPOModule(base, weights=Weights("float32"))
    stages = [Stage(name, reference="base", lora=LoRA(rank=2, dropout=0.5)) for name in ("one", "two")]
    module.take_stages(stages, {"one": range(2), "two": range(2, 4)}, seed=0)
    torch.manual_seed(0)  # as `seed_everything` leaves all ranks
    module.configure_model()
    drawn = []
    assert module.stages is not None
    for number in (0, 1):
        if number:
            module.stages.keep(module)
            module.stages.end(module, back=False)
            module.stages.number = number
            module.stages.begin(module)
        module.on_train_batch_start([], 0)
        adapter = {name: value.detach().clone() for name, value in module.policy.adapter_parameters().items()}
        drop_out = next(
            part for part in module.policy.modules() if isinstance(part, torch.nn.Dropout) and part.p == 0.5
        )
        drop_out.train()
        drawn.append((adapter, torch.stack([drop_out(torch.ones(64)) for _ in range(2)])))
    return drawn


def test_in_each_stage_ranks_start_with_one_adapter_and_draw_dropout_of_their_own(
    random_qwen3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, again = (_drawn(random_qwen3, rank, monkeypatch) for rank in (0, 1, 0))
    for (adapter, mask), (other_adapter, other_mask), (_, same_mask) in zip(first, second, again, strict=True):
        assert adapter.keys() == other_adapter.keys()
        assert all(torch.equal(value, other_adapter[name]) for name, value in adapter.items())
        assert any(value.any() for value in adapter.values())
        assert torch.equal(mask, same_mask)
        assert 0.3 < (mask != other_mask).float().mean() < 0.7, "independent masks of one half differ in one half"
        assert not torch.equal(mask[0], mask[1])
    assert not torch.equal(first[0][1], first[1][1]), "each stage draws its own"

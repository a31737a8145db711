"""Metrics by source of windows that lack a source."""

from __future__ import annotations

import torch

from lit_align.modules.pair_metrics import BASIC, pair_metrics
from lit_align.modules.source_metrics import source_metrics


def test_a_source_that_a_window_lacks_has_a_share_of_zero_and_no_mean() -> None:
    tokens = torch.tensor([0.0, 0.0, 0.0, 10.0, 5.0, 9.0], dtype=torch.float64)
    pairs = torch.zeros(2, len(BASIC), dtype=torch.float64)
    pairs[1] = 2.0
    for found in (source_metrics(tokens, ["none", "all"]), pair_metrics(pairs.flatten(), ["none", "all"], False)):
        assert [key for key in found if "/none/" in key] == ["by_source/none/share"]
        assert float(found["by_source/none/share"]) == 0.0
        assert float(found["by_source/all/share"]) == 1.0
        assert len([key for key in found if "/all/" in key]) > 2

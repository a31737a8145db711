"""The step as anyone would write it first: what the others are held against in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contender import PAD, Contender, PreparedStep
from benchmarks.dpo.pairs import Pair, PairWorkload
from benchmarks.sft_kl.contenders import peft_model
from lit_align.data.lengths import prompt_size


@dataclass(frozen=True)
class Naive(Contender[PairWorkload]):
    """Padded rows, full logits of policy and base, DPO's loss (arXiv:2305.18290, equation 7) in plain torch."""

    @property
    def name(self) -> str:
        """See :class:`~benchmarks.contender.Contender`."""
        return "naive"

    def prepare(self, workload: PairWorkload, base: str) -> PreparedStep:
        """See :class:`~benchmarks.contender.Contender`."""
        model, adapter = peft_model(base, workload.rank, workload.setting)
        pairs = workload.rows.pairs()
        batches = [_padded(pairs[at : at + workload.batch]) for at in range(0, len(pairs), workload.batch)]

        def logps(ids: Tensor, mask: Tensor, scored: Tensor) -> Tensor:
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            of_targets = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
            sums: Tensor = (of_targets * scored[:, 1:]).sum(-1)
            return sums

        def run() -> Tensor:
            total = torch.zeros((), dtype=torch.float64)
            for batch in batches:
                with torch.no_grad(), model.disable_adapter():
                    reference = logps(*batch)
                chosen, rejected = (logps(*batch) - reference).chunk(2)
                loss = -nn.functional.logsigmoid(workload.beta * (chosen - rejected)).sum() / len(pairs)
                torch.autograd.backward(loss)
                total += loss.detach()
            return total

        return PreparedStep(run, model, adapter)


def _padded(pairs: list[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, attention mask, scored tokens, padded on the right; first all chosen answers, then all rejected."""
    paths = [pair[side] for side in (0, 1) for pair in pairs]
    ids = torch.full((len(paths), max(len(path.tokens) for path in paths)), PAD)
    mask, scored = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, path in enumerate(paths):
        length = len(path.tokens)
        ids[row, :length], mask[row, :length] = torch.from_numpy(path.tokens.astype(np.int64)), 1
        scored[row, prompt_size(path) : length] = 1
    return ids, mask, scored

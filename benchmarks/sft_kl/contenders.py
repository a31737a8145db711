"""The SFT+KL step on synthetic rows: what is computed, and who computes it with this project and in the naive form."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contender import PAD, Contender, ModelShape, PreparedStep, fill, filled_adapter, lora_config
from benchmarks.setting import Setting
from lit_align.forest import TokenClass, TokenForest, TokenPath, Window
from lit_align.losses.anchor import KLAnchor
from lit_align.models.loading import LoRA
from lit_align.modules.sft import SFTModule

IGNORED = -100
"""Label of a position without a target, in the convention of transformers and TRL."""


@dataclass(frozen=True)
class Rows:
    """Rows of random tokens: a prompt, then an answer that is trained on.

    Attributes:
        count: Number of rows, that is the batch.
        longest: Tokens of the longest row.
        padding: Share of the padded rectangle that is padding, in [0, 0.5]; lengths fall evenly from ``longest``.
        prompt: Tokens of each prompt.

    Example:
        >>> [len(path.tokens) for path in Rows(count=3, longest=100, padding=0.2, prompt=10).paths(50)]
        [100, 80, 60]
    """

    count: int
    longest: int
    padding: float = 0.0
    prompt: int = 128

    def paths(self, vocabulary: int) -> list[TokenPath]:
        """The rows; no two share a beginning, and none holds a special token."""
        generator = np.random.default_rng(0)
        paths = []
        for row, share in enumerate(np.linspace(1, 1 - 2 * self.padding, self.count)):
            length = round(self.longest * share)
            classes = np.full(length, TokenClass.ANSWER, np.uint8)
            classes[: self.prompt] = TokenClass.PROMPT
            tokens = generator.integers(3, vocabulary, length).astype(np.int32)
            paths.append(TokenPath(tokens, classes, f"row {row}"))
        return paths

    def padded(self, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
        """The same rows as token ids, attention mask and labels, padded on the right, each ``(count, longest)``."""
        ids = torch.full((self.count, self.longest), PAD)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for row, path in enumerate(self.paths(vocabulary)):
            tokens = torch.from_numpy(path.tokens.astype(np.int64))
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
            labels[row, self.prompt : len(tokens)] = tokens[self.prompt :]
        return ids, mask, labels


@dataclass(frozen=True)
class Workload:
    """What every contender computes: one step's loss and its LoRA gradients, without an optimizer step.

    Attributes:
        model: The base.
        rows: The batch.
        anchor: The reverse KL to the base; coefficient 0 is plain SFT.
        rank: Rank of the adapter on all linear layers but the head; alpha is twice it, dropout 0.
        setting: Number format and device.
    """

    model: ModelShape
    rows: Rows
    anchor: KLAnchor
    rank: int = 8
    setting: Setting = Setting()


@dataclass(frozen=True)
class Ours(Contender[Workload]):
    """``SFTModule.forest_loss`` and backward on a window of one forest; building the forest is part of the step."""

    @property
    def name(self) -> str:
        """See :class:`Contender`."""
        return "lit_align"

    def prepare(self, workload: Workload, base: str) -> PreparedStep:
        """See :class:`Contender`."""
        lora = LoRA(rank=workload.rank, alpha=2 * workload.rank)
        module = SFTModule(base, workload.setting.weights, lora, workload.setting.attention, anchor=workload.anchor)
        module.configure_model()
        module.to(workload.setting.device).train()
        # What the module asks of Lightning's trainer: names for its log.
        data = SimpleNamespace(source_names=("",), windows_per_epoch=1)
        module.trainer = SimpleNamespace(datamodule=data)  # type: ignore[assignment]
        adapter = fill({name.removeprefix("peft."): p for name, p in module.policy.adapter_parameters().items()})
        paths = workload.rows.paths(workload.model.vocabulary)

        def run() -> Tensor:
            forest = TokenForest.build([[path] for path in paths]).to(workload.setting.device)
            with workload.setting.autocast():
                loss, _ = module.forest_loss(forest, module.counts(Window((forest,), 0, ())), step=0)
            torch.autograd.backward(loss)
            return loss.detach()

        return PreparedStep(run, module, adapter)


@dataclass(frozen=True)
class Naive(Contender[Workload]):
    """What a user writes first: padded rows, full logits of policy and base, cross entropy and KL in plain torch."""

    @property
    def name(self) -> str:
        """See :class:`Contender`."""
        return "naive"

    def prepare(self, workload: Workload, base: str) -> PreparedStep:
        """See :class:`Contender`."""
        model, adapter = peft_model(base, workload.rank, workload.setting)
        padded = workload.rows.padded(workload.model.vocabulary)
        ids, mask, labels = (tensor.to(workload.setting.device) for tensor in padded)
        anchored = anchored_positions(workload, labels)
        coefficient = workload.anchor.weight(0)

        def run() -> Tensor:
            with torch.no_grad(), model.disable_adapter():
                reference = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            loss: Tensor = nn.functional.cross_entropy(
                logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
            )
            log_p, log_q = logits[anchored].log_softmax(-1), reference[anchored].log_softmax(-1)
            loss = loss + coefficient * (log_p.exp() * (log_p - log_q)).sum(-1).mean()
            torch.autograd.backward(loss)
            return loss.detach()

        return PreparedStep(run, model, adapter)


def peft_model(base: str, rank: int, setting: Setting) -> tuple[Any, dict[str, nn.Parameter]]:
    """The base with transformers' own attention under PEFT, in training mode, with the adapter of all contenders."""
    from peft import get_peft_model

    plain: Any = setting.load(base, attention="sdpa")
    model = get_peft_model(plain.to(setting.device), lora_config(rank)).train()
    return model, filled_adapter(model)


def anchored_positions(workload: Workload, labels: Tensor) -> Tensor:
    """The positions ``(count, longest - 1)`` whose next token is anchored: those of each row's last targets."""
    target = labels[:, 1:] != IGNORED
    from_end = target.flip(1).cumsum(1).flip(1)
    tail = workload.anchor.tail_tokens
    return target & (from_end <= tail) if tail else target

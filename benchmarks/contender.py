"""Who computes a training step and on which model: what the comparisons with other libraries have in common."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.setting import Setting

PAD, END, UNKNOWN = 0, 1, 2
"""Ids of the special tokens of the models made here."""


@dataclass(frozen=True)
class ModelShape:
    """A Qwen3 model with random weights.

    Attributes:
        vocabulary: Number of tokens.
        hidden: Hidden size.
        layers: Number of layers.
        heads: Query heads.
        key_value_heads: Key and value heads.
        head_dim: Size of a head.
        intermediate: Intermediate size; None is three times the hidden size, as in Qwen3-0.6B and 1.7B.
    """

    vocabulary: int
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    key_value_heads: int = 2
    head_dim: int = 128
    intermediate: int | None = None

    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> str:
        """Write the model in transformers' format, embedding and head tied; return the folder."""
        from transformers import AutoModelForCausalLM, Qwen3Config

        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate or 3 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            head_dim=self.head_dim,
            tie_word_embeddings=True,
            initializer_range=0.04,  # twice the default: logits with a spread, as a trained model has
            pad_token_id=PAD,
            bos_token_id=END,
            eos_token_id=END,
        )
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
        model.save_pretrained(folder)
        return str(folder)


class Workload(Protocol):
    """What all contenders of a case compute."""

    @property
    def model(self) -> ModelShape:
        """The base."""

    @property
    def setting(self) -> Setting:
        """Number format and device."""


Work = TypeVar("Work", bound=Workload)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a step computed.

    Attributes:
        loss: The loss.
        gradients: All LoRA gradients in one vector, in the order of their names.
    """

    loss: float
    gradients: NDArray[np.floating[Any]]


@dataclass(frozen=True)
class PreparedStep:
    """A step ready to run.

    Attributes:
        run: Forward and backward; returns the loss.
        model: Holds all weights.
        adapter: The trained parameters, by their names in PEFT's model.
    """

    run: Callable[[], Tensor]
    model: nn.Module
    adapter: Mapping[str, nn.Parameter]

    def read_weights(self) -> None:
        """Have all weights in memory: they are mapped from their file, and each page is read at its first use."""
        for parameter in self.model.parameters():
            parameter.detach().sum()

    def fresh(self) -> Tensor:
        """Run with no gradient left from before, as after ``zero_grad``."""
        for parameter in self.adapter.values():
            parameter.grad = None
        return self.run()

    def outcome(self) -> Outcome:
        """Run and keep loss and gradients."""
        loss = float(self.fresh())
        grads = [self.adapter[name].grad for name in sorted(self.adapter)]
        whole = torch.cat([grad.flatten() for grad in grads if grad is not None]).cpu()
        return Outcome(loss, (whole.float() if whole.dtype == torch.bfloat16 else whole).numpy().copy())


class Contender(ABC, Generic[Work]):
    """One way to compute the step; a frozen dataclass that travels to the process that runs it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As it stands in the tables."""

    @abstractmethod
    def prepare(self, workload: Work, base: str) -> PreparedStep:
        """Load the model of ``base`` (a folder), give it the adapter of all contenders, hold the rows ready."""


def lora_config(rank: int) -> Any:
    """PEFT's settings of the adapter that all contenders train."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", bias="none", task_type="CAUSAL_LM"
    )


def filled_adapter(model: nn.Module) -> dict[str, nn.Parameter]:
    """Give a PEFT model the adapter of all contenders; return its parameters by name."""
    return fill({name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad})


def fill(adapter: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Random factors; B is not zero, so that policy and base differ and each factor has a gradient.

    Args:
        adapter: The trained parameters, by their names in PEFT's model.
    """
    generator = torch.Generator().manual_seed(1)
    for name in sorted(adapter):
        spread = 0.05 if "lora_B" in name else adapter[name].shape[1] ** -0.5
        adapter[name].data.copy_(torch.randn(adapter[name].shape, generator=generator) * spread)
    return adapter


def silence_libraries() -> None:
    """Hide progress bars and deprecation notes of libraries among themselves; the tables are what this prints."""
    from datasets import disable_progress_bars
    from transformers.utils import logging

    disable_progress_bars()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*` is deprecated", category=FutureWarning)

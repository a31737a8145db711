"""In which forms a trained model can be exported: written so that plain transformers and PEFT open it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lit_align.checkpoint import write_adapter
from lit_align.commands.trained_model import TrainedModel
from lit_align.models.adapter_sum import peft_files, put_into
from lit_align.models.dequantized import dequantized_base
from lit_align.models.loading import Weights, bar_for_large_weights, empty_base, plain_base, quiet_peft
from lit_align.tokenizer import end_of_turn_ids, load_tokenizer, resolve_base

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ExportForm(ABC):
    """What is written, and how it is opened."""

    @abstractmethod
    def name(self, trained: TrainedModel) -> str:
        """What a line of the table calls it."""

    @abstractmethod
    def size(self, trained: TrainedModel) -> int:
        """Bytes that its files will take, nearly."""

    @abstractmethod
    def write(self, trained: TrainedModel, folder: Path) -> None:
        """Write its files.

        Args:
            trained: The model, checked.
            folder: There and empty.

        Raises:
            OSError: The disk is full or the folder cannot be written.
            ValueError: The form cannot hold this model.
        """

    @abstractmethod
    def open(self, trained: TrainedModel, folder: Path) -> PreTrainedModel:
        """Open the files with nothing but transformers and PEFT, in evaluation mode on the CPU."""

    @abstractmethod
    def tokenizer(self, trained: TrainedModel, folder: Path) -> PreTrainedTokenizerBase:
        """The tokenizer that whoever opens the files will use."""

    def check(self, trained: TrainedModel) -> None:  # noqa: B027  most forms hold every model
        """Refuse a model that the form is not for, before weights are read; nothing by default."""


@dataclass(frozen=True)
class OneAdapter(ExportForm):
    """All adapters as one LoRA adapter in fp32, exactly: the ranks add up, every scaling is 1.

    On a 4-bit base this is the most faithful form, if whoever opens it loads the base in 4 bits too.

    Args:
        on: Number format and quantisation of the base on which it will be used, to measure that; null is the base as
            it was trained. The files are the same.
    """

    on: Weights | None = None

    def name(self, trained: TrainedModel) -> str:
        """See :class:`ExportForm`."""
        return f"one adapter on {_described(self._weights(trained))}"

    def size(self, trained: TrainedModel) -> int:
        """See :class:`ExportForm`."""
        return sum(4 * part.numel() for one in trained.factors.values() for part in (one.a, one.b))

    def write(self, trained: TrainedModel, folder: Path) -> None:
        """See :class:`ExportForm`."""
        layers = [name for name, _ in empty_base(trained.base).named_modules()]
        tensors, config = peft_files(trained.factors, layers)
        location = resolve_base(trained.base)
        # A GGUF file has no name by which PEFT could load it.
        config["base_model_name_or_path"] = location.path if location.gguf_file is None else None
        write_adapter(folder, {name: tensor.float() for name, tensor in tensors.items()}, config)

    def open(self, trained: TrainedModel, folder: Path) -> PreTrainedModel:
        """See :class:`ExportForm`."""
        from peft import PeftModel

        with quiet_peft():
            model: Any = PeftModel.from_pretrained(plain_base(trained.base, self._weights(trained)), folder)
        opened: PreTrainedModel = model.get_base_model().eval()
        return opened

    def tokenizer(self, trained: TrainedModel, folder: Path) -> PreTrainedTokenizerBase:
        """That of the base."""
        del folder
        return load_tokenizer(trained.base)

    def _weights(self, trained: TrainedModel) -> Weights:
        return trained.weights if self.on is None else self.on


@dataclass(frozen=True)
class MergedWeights(ExportForm):
    """A model without adapters: they are added to the weights of the base, in fp32, and rounded once.

    A base that was 4-bit while it was trained is not: the adapters then lie on the weights before quantisation, which
    they have not seen. ``MergedDequantized`` is for those.

    Args:
        dtype: Number format of all weights.
        max_shard_size: Largest file, such as ``5GB``.
    """

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    max_shard_size: str = "5GB"

    def name(self, trained: TrainedModel) -> str:
        """See :class:`ExportForm`."""
        before = "" if trained.weights.quantization == "none" else " before quantisation"
        return f"merged into the weights{before}, {self.dtype}"

    def size(self, trained: TrainedModel) -> int:
        """See :class:`ExportForm`."""
        # Tied weights count once, here as in the file.
        return sum(part.numel() for part in empty_base(trained.base).parameters()) * self._dtype.itemsize

    def write(self, trained: TrainedModel, folder: Path) -> None:
        """See :class:`ExportForm`."""
        model = self._base(trained)
        put_into(model, trained.factors, self._dtype)
        tokenizer = load_tokenizer(trained.base)
        _end_turns(model, tokenizer)
        with bar_for_large_weights(self.size(trained)):
            _save(model, tokenizer, folder, self.max_shard_size)

    def open(self, trained: TrainedModel, folder: Path) -> PreTrainedModel:
        """See :class:`ExportForm`."""
        from transformers import AutoModelForCausalLM

        with bar_for_large_weights(self.size(trained)):
            opened: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        return opened

    def tokenizer(self, trained: TrainedModel, folder: Path) -> PreTrainedTokenizerBase:
        """That beside the weights."""
        from transformers import AutoTokenizer

        del trained
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        return tokenizer

    def _base(self, trained: TrainedModel) -> PreTrainedModel:
        return plain_base(trained.base, replace(trained.weights, quantization="none"))

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


@dataclass(frozen=True)
class MergedDequantized(MergedWeights):
    """As ``MergedWeights``, into the weights that the 4-bit base stands for: those that the adapters were trained on.

    It needs four times the memory of the 4-bit base.
    """

    def name(self, trained: TrainedModel) -> str:
        """See :class:`ExportForm`."""
        return f"merged into the dequantised {trained.weights.quantization} weights, {self.dtype}"

    def check(self, trained: TrainedModel) -> None:
        """Refuse a base that was not quantised."""
        if trained.weights.quantization == "none":
            raise ValueError(
                "`form` MergedDequantized is for 4-bit bases, and this one was trained without quantisation: take "
                "MergedWeights"
            )

    def _base(self, trained: TrainedModel) -> PreTrainedModel:
        return dequantized_base(trained.base, trained.weights)


def all_forms(trained: TrainedModel) -> list[ExportForm]:
    """The forms among which a user may choose."""
    if trained.weights.quantization == "none":
        return [OneAdapter(), MergedWeights()]
    return [OneAdapter(), OneAdapter(on=Weights("bfloat16", "none")), MergedDequantized(), MergedWeights()]


def _described(weights: Weights) -> str:
    return f"the {weights.dtype if weights.quantization == 'none' else weights.quantization} base"


def _end_turns(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let ``generate`` end where the chat template ends a turn: the config of a base model may know another end."""
    config = model.generation_config
    if config is None:  # a model that does not generate
        return
    own = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = dict.fromkeys(one for one in [*own, *end_of_turn_ids(tokenizer)] if one is not None)
    config.eos_token_id = next(iter(ends)) if len(ends) == 1 else list(ends)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, max_shard_size: str) -> None:
    from safetensors import SafetensorError

    try:
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        tokenizer.save_pretrained(os.fspath(folder))
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(f"{folder}: the weights could not be written, and nothing was kept: {error}") from error

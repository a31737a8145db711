"""Loading a base: where it lies, its number format, its quantisation, its LoRA adapter."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lit_align.models.lean_lora import use_lean_forward
from lit_align.models.tree_attention import ATTENTION_NAME, register_forest_attention
from lit_align.tokenizer import BaseLocation, resolve_base

if TYPE_CHECKING is True:  # in this form jsonargparse does not import them to read the annotations of LoRA
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

_LARGE_BYTES = 500_000_000  # read within a second or two


@dataclass(frozen=True)
class Weights:
    """How the frozen base is kept in memory.

    Attributes:
        dtype: Number format of the base (with NF4: of its products). Adapters are fp32 in any case.
        quantization: ``nf4`` is bitsandbytes' 4-bit NormalFloat with double quantisation (Dettmers et al. 2023,
            arXiv:2305.14314); it saves memory and costs time, since each pass unpacks the weights.
    """

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    quantization: Literal["none", "nf4"] = "none"


@dataclass(frozen=True)
class LoRA:
    """The trained adapter (Hu et al. 2021, arXiv:2106.09685): W + (alpha / rank) · B A.

    Attributes:
        rank: Rank of the update, > 0.
        alpha: Scale of the update, > 0.
        dropout: Probability that an input of the adapter is dropped while training, in [0, 1).
        target_modules: Names of the adapted linear layers, or ``all-linear`` for all but the head.

    Raises:
        ValueError: A value is out of its range.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: Literal["all-linear"] | list[str] = "all-linear"

    def __post_init__(self) -> None:
        if self.rank <= 0:
            raise ValueError(f"`lora.rank` must be > 0, got {self.rank}")
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"`lora.alpha` must be > 0, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`lora.dropout` must be in [0, 1), got {self.dropout}")


def load_base(base: str, weights: Weights) -> PreTrainedModel:
    """Load a causal language model, frozen and in evaluation mode.

    Args:
        base: See :func:`lit_align.tokenizer.resolve_base`.
        weights: Number format and quantisation.

    Returns:
        The model with our attention function; its linear layers are plain or 4-bit.

    Raises:
        FileNotFoundError: The base is not where ``base`` points.
        ImportError: A GGUF file without the extra ``[gguf]``.
        ValueError: An encoder-decoder or otherwise unsupported model.
    """
    register_forest_attention()
    location = resolve_base(base)
    with bar_for_large_weights(_size(Path(location.path))):
        model = _from_pretrained(location, weights, ATTENTION_NAME)
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"base {base}: an encoder-decoder model has no causal forest; choose a decoder-only one")
    model.config.use_cache = False
    model.requires_grad_(False)
    parts: Iterator[Any] = model.modules()
    for part in parts:
        # On CPUs with bf16 instructions bitsandbytes 0.50 repacks 4-bit weights at the first pass without gradient, for
        # a kernel that has no backward: gradients would be wrong from then on, by a tenth of their size.
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False
    frozen: PreTrainedModel = model.eval()  # type: ignore[no-untyped-call]
    return frozen


def plain_base(base: str, weights: Weights) -> PreTrainedModel:
    """Load a base as plain transformers does: its own attention, no setting of ours.

    Args:
        base: See :func:`lit_align.tokenizer.resolve_base`.
        weights: Number format and quantisation.

    Raises:
        FileNotFoundError, ImportError: As of :func:`load_base`.
    """
    location = resolve_base(base)
    with bar_for_large_weights(_size(Path(location.path))):
        return _from_pretrained(location, weights, None)


def empty_base(base: str) -> PreTrainedModel:
    """The layers of a base without their weights, to see in a moment what fits it.

    Args:
        base: See :func:`lit_align.tokenizer.resolve_base`.

    Raises:
        FileNotFoundError: The base is not where ``base`` points.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    location = resolve_base(base)
    options = {"gguf_file": location.gguf_file} if location.gguf_file else {}
    config = AutoConfig.from_pretrained(location.path, **options)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return model


def _from_pretrained(location: BaseLocation, weights: Weights, attention: str | None) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": getattr(torch, weights.dtype), "attn_implementation": attention}
    if location.gguf_file is None:
        if weights.quantization == "nf4":
            options["quantization_config"] = _nf4(weights)
        model = AutoModelForCausalLM.from_pretrained(location.path, **options)
    else:
        model = AutoModelForCausalLM.from_pretrained(location.path, gguf_file=location.gguf_file, **options)
        _forget_gguf(model)
        if weights.quantization == "nf4":
            # transformers cannot quantise while it unpacks a GGUF file: write the unpacked weights once, read 4-bit.
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=_nf4(weights), **options)
    return model


@contextmanager
def bar_for_large_weights(size: int) -> Iterator[None]:
    """Hide transformers' progress bar where reading or writing takes no time.

    Args:
        size: Of the weights, bytes.
    """
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if size < _LARGE_BYTES:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _size(folder: Path) -> int:
    """Bytes of the files of a folder; those of a hub's base, which may have to come first, are many."""
    return sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else _LARGE_BYTES


def _nf4(weights: Weights) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, weights.dtype),
    )


def _forget_gguf(model: Any) -> None:
    # The unpacked layers are plain linear ones; the marks that transformers leaves make it refuse to save or adapt.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        if name in model.__dict__:
            delattr(model, name)


def add_lora(model: PreTrainedModel, lora: LoRA) -> PeftModel:
    """Put a fresh adapter on the base; its B factors are zero, so the policy starts as the base.

    Raises:
        ValueError: No layer has one of the target names (PEFT's message names them).
    """
    from peft import get_peft_model

    with quiet_peft():
        adapted = get_peft_model(model, lora_config(lora))
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise ValueError(f"adapter `{name}` is {parameter.dtype}; adapters must be float32")
    use_lean_forward(adapted)
    return adapted


def lora_config(lora: LoRA) -> LoraConfig:
    """What PEFT needs to make an adapter; each call makes another one, since PEFT changes what it is given."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT annotates int and computes with any number
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        bias="none",
        task_type="CAUSAL_LM",
    )


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Add adapters without a warning for which a user can do nothing."""
    with warnings.catch_warnings():
        # PEFT 0.21 reads a property that transformers 5.23 has renamed.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def weights_fingerprint(model: nn.Module) -> str:
    """A short hash of all parameters and buffers that a checkpoint would hold, bit by bit.

    Returns:
        16 hexadecimal digits.
    """
    return tensors_fingerprint({name: part for name, part in model.state_dict().items() if isinstance(part, Tensor)})


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A short hash of tensors and their names, bit by bit.

    Two sums over the raw integers of each tensor (plain, and weighted by place) run at memory speed on any device.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {_checksum(tensor)}\n".encode())
    return digest.hexdigest()[:16]


def _checksum(tensor: Tensor) -> tuple[int, int]:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    flat = flat.view(torch.int32) if flat.numel() % 4 == 0 else flat
    plain = weighted = 0
    step = 1 << 22
    place = torch.arange(1, min(step, flat.numel()) + 1, device=flat.device) % 65521
    for number, start in enumerate(range(0, flat.numel(), step), start=1):
        part = flat[start : start + step].to(torch.int64)
        total = int(part.sum())
        plain = (plain + total) % (1 << 61)
        weighted = (weighted + int((part * place[: part.numel()]).sum()) + number * total) % (1 << 61)
    return plain, weighted

"""Number format and device of a step, and what depends on them: loading, autocast, the clock, peak memory."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from lit_align.models.loading import Weights
from lit_align.models.tree_attention import AttentionPath

NumberFormat = Literal["float32", "bfloat16", "nf4"]


@dataclass(frozen=True)
class Setting:
    """How a step is computed.

    Attributes:
        dtype: Of the base; adapters are fp32 (TRL makes them bf16 over 4-bit weights), and what is not fp32 runs under
            autocast, as `bf16-mixed` does.
        device: ``cpu`` or ``cuda``.
        attention: How ours attends; the peers take torch's own.
    """

    dtype: NumberFormat = "float32"
    device: str = "cpu"
    attention: AttentionPath = "tree_sdpa"

    @property
    def weights(self) -> Weights:
        """Of the base, for this package."""
        if self.dtype == "nf4":
            return Weights(dtype="bfloat16", quantization="nf4")
        return Weights(dtype=self.dtype)

    @property
    def number_format(self) -> torch.dtype:
        """Of the base's weights before they are quantised."""
        dtype: torch.dtype = getattr(torch, self.weights.dtype)
        return dtype

    def load(self, base: str, attention: str | None = None) -> Any:
        """A peer's model of a folder, as transformers loads it.

        Args:
            base: The folder.
            attention: transformers' name of it; None is its choice.
        """
        from transformers import AutoModelForCausalLM

        options: dict[str, Any] = {"dtype": self.number_format, "attn_implementation": attention}
        if self.dtype == "nf4":
            options["quantization_config"] = _nf4()
        model: Any = AutoModelForCausalLM.from_pretrained(base, **options)
        for part in model.modules():
            # As in lit_align/models/loading.py: else bitsandbytes' gradients on a CPU are wrong after a pass without.
            if hasattr(part, "support_avx512bf16_for_cpu"):
                part.support_avx512bf16_for_cpu = False
        return model

    def autocast(self) -> AbstractContextManager[Any]:
        """As Lightning and transformers' trainers run a step in this number format."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype != "float32")

    def seconds(self) -> float:
        """A clock: CPU time of the process, or on CUDA the time until the device is done."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def _nf4() -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )

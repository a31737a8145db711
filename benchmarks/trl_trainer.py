"""TRL 1.16's trainers as peers: driven by ``compute_loss``, and made to compute on a CPU what they do on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from benchmarks.contender import END, PAD, UNKNOWN


@contextmanager
def positions_with_a_label_alone() -> Iterator[None]:
    """Make TRL's fused head take the branch that it takes where Triton runs; the kernel itself stays torch's.

    This patches TRL (``trl.trainer.utils._use_triton``): as shipped, its head scores every position on a CPU, which
    would make the comparison unfair to it.
    """
    module: Any = import_module("trl.trainer.utils")
    before = module._use_triton
    module._use_triton = lambda _device: True
    try:
        yield
    finally:
        module._use_triton = before


def begin_training(trainer: Any, gradient_checkpointing: bool) -> None:
    """Bring a trainer's model into the state in which ``Trainer.train()`` takes its first step.

    Raises:
        ValueError: Gradient checkpointing is not as it should be.
    """
    if trainer.args.activation_checkpointing:
        trainer.model.activation_checkpointing_enable(trainer.args.activation_checkpointing_kwargs)
    trainer.model.train()
    if trainer.model.get_base_model().is_activation_checkpointing != gradient_checkpointing:
        raise ValueError(
            f"gradient checkpointing should be {gradient_checkpointing} in {type(trainer).__name__} and is not"
        )


def word_tokenizer(vocabulary: int) -> Any:
    """A tokenizer whose token 7 is the text ``w7``, so that TRL's own tokenisation gives the ids asked for.

    Args:
        vocabulary: Number of tokens, the special ones included.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    words = dict(zip(special.values(), (PAD, END, UNKNOWN), strict=True))
    words |= {f"w{token}": token for token in range(len(words), vocabulary)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(" ", "removed")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]

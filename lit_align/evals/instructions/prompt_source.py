"""Prompts with instructions as prompts to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lit_align.evals.instructions.reading import OWN_FILE, read_prompts
from lit_align.types import Message, PromptSource, SamplePrompt, stop_at


@dataclass(frozen=True)
class InstructionPrompts(PromptSource):
    """The prompts of ``InstructionBenchmark``, in English and Russian, for whatever wants to be answered.

    Args:
        path: A file in IFEval's format; empty for the prompts that come with the package.
        every: Take every so-manyth prompt, at least 1.

    Raises:
        ValueError: ``every`` is below 1.

    Example:
        >>> [prompt.id for prompt in InstructionPrompts(every=30).prompts()]
        ['en-01', 'en-31', 'ru-01']
    """

    path: str = ""
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"InstructionPrompts: every must be at least 1, got {self.every}")

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """See :class:`PromptSource`; a file that breaks a rule is refused as a whole."""
        del refuse
        file = Path(self.path) if self.path else OWN_FILE
        return [
            SamplePrompt(one.key, (Message("user", one.text),), "", "instructions")
            for one in read_prompts(file)[:: self.every]
        ]

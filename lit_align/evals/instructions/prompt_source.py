"""Prompts with instructions as prompts to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lit_align.data.sources.json_rows import read_json_rows
from lit_align.evals.instructions.reading import OWN_FILE
from lit_align.types import Message, PromptSource, SamplePrompt, stop_at


@dataclass(frozen=True)
class InstructionPrompts(PromptSource):
    """The bundled prompts of ``InstructionBenchmark``, 60 in English and 29 in Russian, for what wants to be answered.

    Whether the answers follow the instructions is not looked at, so nothing is needed but the package itself.

    Args:
        every: Take every so-manyth prompt, at least 1.

    Raises:
        ValueError: ``every`` is below 1.

    Example:
        >>> [prompt.id for prompt in InstructionPrompts(every=30).prompts()]
        ['en-01', 'en-31', 'ru-01']
    """

    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"InstructionPrompts: every must be at least 1, got {self.every}")

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """See :class:`PromptSource`."""
        del refuse
        return [
            SamplePrompt(row.text("key"), (Message("user", row.text("prompt")),), "", "instructions")
            for row in list(read_json_rows(OWN_FILE))[:: self.every]
        ]

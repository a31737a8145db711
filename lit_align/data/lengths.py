"""Token limits: which examples fit, and what becomes of those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lit_align.forest import TokenClass, TokenPath


@dataclass(frozen=True)
class Lengths:
    """Token limits of an example.

    Attributes:
        max_length: Prompt and answer together, > 0.
        max_prompt_length: The prompt alone; 0 leaves it to ``max_length``. A longer one drops the example: a prompt is
            never cut.
        overlong: What happens to an answer that does not fit: ``drop`` the example, or ``cut`` the answer, which then
            has no end-of-turn token.
    """

    max_length: int = 4096
    max_prompt_length: int = 0
    overlong: Literal["drop", "cut"] = "drop"

    def __post_init__(self) -> None:
        if self.max_length <= 1:
            raise ValueError(f"`data.lengths.max_length` must be > 1, got {self.max_length}")
        if not 0 <= self.max_prompt_length <= self.max_length:
            raise ValueError(
                f"`data.lengths.max_prompt_length` must be in [0, max_length = {self.max_length}], got "
                f"{self.max_prompt_length}"
            )

    def fit(self, path: TokenPath) -> tuple[TokenPath | None, str]:
        """Hold an example to the limits.

        Returns:
            The path, perhaps cut, or None; and what happened: ``kept``, ``cut``, ``prompt too long``, ``too long``.
        """
        answer = np.flatnonzero(path.classes == TokenClass.ANSWER)
        prompt = int(answer[0])
        if prompt > (self.max_prompt_length or self.max_length):
            return None, "prompt too long"
        if len(path.tokens) <= self.max_length:
            return path, "kept"
        if self.overlong == "drop" or prompt >= self.max_length:
            return None, "too long"
        end = self.max_length
        return TokenPath(path.tokens[:end], path.classes[:end], path.example, path.weight), "cut"

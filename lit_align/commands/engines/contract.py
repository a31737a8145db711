"""What an engine is: something that answers prompts, some at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align.evals.sampling import Sampling
from lit_align.types import SamplePrompt


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn.

    Attributes:
        sampling: How the next token is drawn.
        seed: Seed of the run, >= 0; a completion's random numbers hang on it, on the prompt's id and on its number.
        max_new_tokens: Cap on the length of an answer in tokens.
        thinking: The chat template's ``enable_thinking`` switch.
    """

    sampling: Sampling
    seed: int
    max_new_tokens: int
    thinking: bool


@dataclass(frozen=True)
class Request:
    """One completion that is asked for.

    Attributes:
        prompt: What is to be answered.
        number: Which of the prompt's completions, from 0.
        tokens: The prompt as :meth:`Engine.render` gave it.
    """

    prompt: SamplePrompt
    number: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """One completion.

    Attributes:
        text: Without the end-of-turn token; other special tokens and thoughts are kept.
        finished: Whether the model ended it, not the cap.
        tokens: Its length in tokens.
    """

    text: str
    finished: bool
    tokens: int


class Engine(ABC):
    """Where answers come from; a frozen dataclass whose fields are the options of the YAML.

    Attributes:
        renders: Whether :meth:`render` gives token ids; without them the length of a prompt is not known.
    """

    renders: ClassVar[bool]

    @abstractmethod
    def check(self) -> None:
        """Refuse what can be seen to be wrong before weights or prompts are read."""

    @abstractmethod
    def render(self, prompts: Sequence[SamplePrompt], thinking: bool) -> list[tuple[int, ...]]:
        """Token ids of each prompt, the beginning of the answer's turn included; empty where a server renders.

        Raises:
            ValueError: The chat template cannot render a prompt as it stands; the message names the prompt's id.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What answers, as far as no weights are needed; a resumed run must have the same, ``path`` and ``name`` apart.

        Plain types, for the manifest.
        """

    @abstractmethod
    def load(self) -> str:
        """Make ready to answer, which may take minutes.

        Returns:
            Fingerprint of the base's weights; empty where they are out of sight.
        """

    @abstractmethod
    def answers(
        self, requests: Sequence[Request], done: Collection[int], decoding: Decoding
    ) -> Generator[list[tuple[int, Answer]]]:
        """Answer some requests after others.

        Args:
            requests: All of the run, also those that an earlier process has answered: what is computed together is the
                same whenever a run was killed.
            done: Places in ``requests`` of what is answered already.
            decoding: How answers are drawn.

        Yields:
            Places in ``requests``, and their answers; each place once, none that is ``done``.

        Raises:
            RuntimeError: There is no answer to be had; what was yielded before stays good.
            OSError: As before, where the cause lies in a connection.
        """

"""How a benchmark has its questions answered, and what counts of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from lit_align.data.chat import ChatFormat
from lit_align.evals.generate import Completion, generate
from lit_align.evals.sampling import GREEDY, Draw, Sampling
from lit_align.models.policy import Policy
from lit_align.tokenizer import end_of_turn_ids
from lit_align.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Prompt:
    """A question as the model is asked it.

    Attributes:
        id: Names it in messages, and names its random numbers.
        tokens: The turns by the chat template, the beginning of the answer's turn included.
    """

    id: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What the model wrote, without its thoughts.

    Attributes:
        prompt: The rendered prompt, exactly as the model saw it.
        text: The answer that is scored: special tokens inside of it are kept, thoughts are not; empty where the model
            never stopped thinking.
        hit_cap: Whether the length cap ended it.
        tokens: All that was generated, in tokens, without the stop token.
        think_tokens: How many of them are thoughts.
        ties: How many were chosen among two that tie, see :class:`~lit_align.evals.generate.Completion`.
    """

    prompt: str
    text: str
    hit_cap: bool
    tokens: int
    think_tokens: int
    ties: int


@dataclass(frozen=True)
class Generation:
    """How answers are generated: one object, so that the baseline and all later measurements share it.

    Args:
        max_new_tokens: Cap on the length of an answer in tokens, thoughts included, at least 1.
        batch_size: Questions that are generated at once, at least 1.
        sampling: How the next token is drawn; greedy by default.
        seed: Seed of the sampling, >= 0; of no effect under greedy decoding.
        thinking: The chat template's ``enable_thinking`` switch. Thoughts are counted and taken off before scoring.

    Raises:
        ValueError: A value is out of its range.

    Example:
        >>> Generation(max_new_tokens=0)
        Traceback (most recent call last):
        ValueError: generation.max_new_tokens must be at least 1, got 0
    """

    max_new_tokens: int = 256
    batch_size: int = 16
    sampling: Sampling = GREEDY
    seed: int = 0
    thinking: bool = False

    def __post_init__(self) -> None:
        for option, least in (("max_new_tokens", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, option) < least:
                raise ValueError(f"generation.{option} must be at least {least}, got {getattr(self, option)}")

    def conditions(self) -> dict[str, str | int]:
        """What must be the same before and after, in plain types."""
        sampling = "greedy" if self.sampling.is_greedy else f"{asdict(self.sampling)}, seed {self.seed}"
        return {
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.batch_size,
            "sampling": sampling,
            "thinking": int(self.thinking),
        }

    def render(self, chat: ChatFormat, questions: Iterable[tuple[str, Sequence[Message]]]) -> list[Prompt]:
        """Questions as the model is asked them.

        Args:
            chat: The chat format of the training data; ``thinking`` here goes before its own.
            questions: An id and the turns of each; the last one is the user's.

        Raises:
            ValueError: See :meth:`~lit_align.data.chat.ChatFormat.prompt_ids`.
        """
        asked = chat if chat.thinking == self.thinking else replace(chat, thinking=self.thinking)
        return [Prompt(id, tuple(asked.prompt_ids(turns, id))) for id, turns in questions]

    def answers(
        self, policy: Policy, chat: ChatFormat, prompts: Sequence[Prompt], *, progress: str | None = None
    ) -> list[Answer]:
        """Have prompts answered, under ``torch.distributed`` by all ranks together.

        Args:
            policy: The model, with the adapters that are to answer active.
            chat: Its tokenizer reads the answers.
            prompts: From :meth:`render`.
            progress: Label of the progress bar, none if ``None``.

        Returns:
            One answer a prompt, in the order of the prompts, on every rank.
        """
        tokenizer = chat.tokenizer
        completions = generate(
            policy.causal_lm,
            [prompt.tokens for prompt in prompts],
            max_new_tokens=self.max_new_tokens,
            stop_ids=end_of_turn_ids(tokenizer),
            batch_size=self.batch_size,
            progress=progress,
            sampling=self.sampling,
            draws=None if self.sampling.is_greedy else [Draw(self.seed, prompt.id, 0) for prompt in prompts],
        )
        return [_answer(tokenizer, prompt, one) for prompt, one in zip(prompts, completions, strict=True)]


def without_thoughts(written: str, asked: str = "") -> str:
    """An answer without the thoughts before it; empty where they never end.

    Args:
        written: What the model wrote.
        asked: Its prompt; some templates open the block there, so that the model closes what it did not open.

    Example:
        >>> without_thoughts("<think>Hm.</think> 2"), without_thoughts("<think>Hm"), without_thoughts("2 </think> 3")
        ('2', '', '2 </think> 3')
    """
    if not (asked.rstrip().endswith(_OPEN) or written.lstrip().startswith(_OPEN)):
        return written
    return written.partition(_CLOSE)[2].lstrip()


def _answer(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, completion: Completion) -> Answer:
    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))

    asked, written = text(prompt.tokens), text(completion.tokens)
    answer, thoughts = without_thoughts(written, asked), 0
    if answer != written and _CLOSE not in written:
        thoughts = len(completion.tokens)
    elif answer != written:
        few, many = 0, len(completion.tokens)  # the fewest tokens whose text holds the closing tag, by bisection
        while few + 1 < many:
            middle = (few + many) // 2
            few, many = (few, middle) if _CLOSE in text(completion.tokens[:middle]) else (middle, many)
        thoughts = many
    return Answer(asked, answer, completion.hit_cap, len(completion.tokens), thoughts, completion.ties)

"""What an answer as a whole is made of: how it begins, ends, is wrapped, or falls into two."""

from __future__ import annotations

from dataclasses import dataclass

from lit_align.evals.instructions.contract import Instruction, Text


@dataclass(frozen=True)
class TwoResponses(Instruction):
    r"""Two different responses parted by ``******``, which may also begin or end the text.

    Example:
        >>> TwoResponses().is_followed("Tea.\\n******\\nCoffee."), TwoResponses().is_followed("Tea.******Tea.")
        (True, False)
    """

    def is_followed(self, answer: str) -> bool:
        """Whether there are two."""
        parts = [part.strip() for part in answer.split("******")]
        said = [part for part in parts if part]
        return all(parts[1:-1]) and len(said) == 2 and said[0] != said[1]


@dataclass(frozen=True)
class RepeatPrompt(Instruction):
    """The answer begins with the given text, in any case; that something comes after it is not asked.

    Example:
        >>> RepeatPrompt("Name a fruit.").is_followed("name a fruit. An apple.")
        True
    """

    prompt_to_repeat: Text

    def is_followed(self, answer: str) -> bool:
        """Whether it begins so."""
        return answer.strip().lower().startswith(self.prompt_to_repeat.strip().lower())


@dataclass(frozen=True)
class EndPhrase(Instruction):
    """The answer ends with the phrase, in any case; white space and ``"`` after it do not count.

    Example:
        >>> EndPhrase("The end.").is_followed('"… and so they lived. The end."')
        True
    """

    end_phrase: Text

    def is_followed(self, answer: str) -> bool:
        """Whether it ends so."""
        return answer.strip().strip('"').lower().endswith(self.end_phrase.strip().lower())


@dataclass(frozen=True)
class Quotation(Instruction):
    """The answer begins and ends with ``"``; other quotation marks do not count, nor do quotes in between.

    Example:
        >>> Quotation().is_followed('"Yes."'), Quotation().is_followed("«Да.»")
        (True, False)
    """

    def is_followed(self, answer: str) -> bool:
        """Whether it is wrapped."""
        text = answer.strip()
        return len(text) > 1 and text.startswith('"') and text.endswith('"')

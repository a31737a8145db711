"""Which instructions an answer follows, strictly and loosely, and what needs no model to follow them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lit_align.evals.instructions.contract import Instruction
from lit_align.evals.instructions.reading import InstructionPrompt


def follows(instruction: Instruction, answer: str) -> bool:
    """Whether an answer follows an instruction to the letter; a blank one follows none."""
    return bool(answer.strip()) and instruction.is_followed(answer)


def loose_variants(answer: str) -> list[str]:
    r"""The texts of which one that follows an instruction is enough for the loose score.

    The answer; without its first line ("Sure, here it is:"), its last one, or both; and each of these without ``*``
    (markdown's emphasis). Section 2.2 of Zhou et al. 2023.

    Args:
        answer: The answer as it is.

    Example:
        >>> loose_variants("Sure:\n**Yes**")
        ['Sure:\n**Yes**', '**Yes**', 'Sure:', '', 'Sure:\nYes', 'Yes']
    """
    lines = answer.split("\n")
    cut = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys([*cut, *(text.replace("*", "") for text in cut)]))


@dataclass(frozen=True)
class Followed:
    """Which instructions of a prompt an answer follows, one entry an instruction.

    Attributes:
        strict: By the answer as it is.
        loose: By any of its :func:`loose_variants`.
    """

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]

    def scores(self) -> dict[str, float]:
        """The measures of the benchmark, each in [0, 1].

        Example:
            >>> Followed((True, False), (True, True)).scores()
            {'prompt_strict': 0.0, 'prompt_loose': 1.0, 'instruction_strict': 0.5, 'instruction_loose': 1.0}
        """
        return {
            "prompt_strict": float(all(self.strict)),
            "prompt_loose": float(all(self.loose)),
            "instruction_strict": sum(self.strict) / len(self.strict),
            "instruction_loose": sum(self.loose) / len(self.loose),
        }


def followed(prompt: InstructionPrompt, answer: str) -> Followed:
    """Check an answer against every instruction of its prompt.

    Args:
        prompt: What was asked.
        answer: What came, without its thinking.
    """
    variants = loose_variants(answer)
    return Followed(
        tuple(follows(one, answer) for one in prompt.instructions),
        tuple(any(follows(one, text) for text in variants) for one in prompt.instructions),
    )


def follows_all(prompt: InstructionPrompt, answer: str) -> bool:
    """Whether an answer follows every instruction of its prompt to the letter; stops at the first that it does not."""
    return all(follows(one, answer) for one in prompt.instructions)


def strict_share(prompts: Sequence[InstructionPrompt], answers: Sequence[str]) -> float:
    """Share of the prompts whose answer follows all of their instructions to the letter.

    Args:
        prompts: At least one.
        answers: One a prompt.
    """
    return sum(map(follows_all, prompts, answers)) / len(prompts)

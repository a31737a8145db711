"""What scores without a model: the prompt itself, and the best of some constant answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lit_align.evals.instructions.formats import OPTIONS
from lit_align.evals.instructions.keywords import Existence, Frequency
from lit_align.evals.instructions.reading import InstructionPrompt
from lit_align.evals.instructions.scoring import strict_share

_SENTENCE = "The weather is very nice today and we will go outside with our friends."
_MARKS = (
    "<<A title>>\n\nSection 1\n[one] [two] [three]\nSection 2\n*first* and *second* and *third*\n"
    f"- one\n- two\n- three\n\n{' '.join(OPTIONS)}\n\nP.S. Goodbye.\nP.P.S. Goodbye."
)


@dataclass(frozen=True)
class Baselines:
    """Shares of the prompts that are wholly followed to the letter without reading them, in [0, 1].

    Attributes:
        echo: By the prompt, given back as the answer.
        constant: By the best of the constant answers.
        constant_answer: That answer.
    """

    echo: float
    constant: float
    constant_answer: str


def constant_answers(prompts: Sequence[InstructionPrompt]) -> list[str]:
    """Answers that were made to follow many instructions at once, whatever is asked.

    A sentence without a comma, a long text of it, every format mark at once, and a soup of all the keywords that the
    prompts want, as often as they want them; each as it is, small and capital, bare and in quotation marks; then JSON
    and two responses.

    Args:
        prompts: From which the keywords are taken.
    """
    wanted: dict[str, int] = {}
    for prompt in prompts:
        for one in prompt.instructions:
            words = one.keywords if isinstance(one, Existence) else ()
            if isinstance(one, Frequency) and one.relation == "at least":
                wanted[one.keyword] = max(one.frequency, wanted.get(one.keyword, 0))
            wanted |= {word: max(1, wanted.get(word, 0)) for word in words}
    soup = " ".join(f"{word} " * count for word, count in wanted.items())
    long = " ".join([_SENTENCE] * 60)
    texts = [_SENTENCE, long, _MARKS, f"{soup} {_SENTENCE}", f"{long} {soup}\n\n{_MARKS}"]
    bare = [case for text in texts for case in (text, text.lower(), text.upper())]
    return [*bare, *(f'"{text}"' for text in bare), f'{{"answer": "{_SENTENCE}"}}', f"{_SENTENCE}\n******\n{long}"]


def baselines(prompts: Sequence[InstructionPrompt]) -> Baselines:
    """Score what needs no model, to be read beside a model's score.

    Args:
        prompts: At least one.
    """
    shares = {answer: strict_share(prompts, [answer] * len(prompts)) for answer in constant_answers(prompts)}
    best = max(shares, key=lambda answer: shares[answer])
    return Baselines(strict_share(prompts, [prompt.text for prompt in prompts]), shares[best], best)

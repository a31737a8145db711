"""Which prompts ``lit-align sample`` has answered: those of a source, checked before anything is drawn."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from lit_align.data.tokenising import BadRows
from lit_align.types import PromptSource, SamplePrompt

logger = logging.getLogger(__name__)


def read_prompts(source: PromptSource, limit: int | None, bad_rows: BadRows) -> list[SamplePrompt]:
    """Read the prompts of a source.

    Args:
        source: Where they come from.
        limit: The first so many only, at least 1; None takes all.
        bad_rows: Whether a row that the source cannot read stops the command, or is counted in the log (``drop``).

    Raises:
        ValueError: A row breaks a rule and ``bad_rows`` is ``stop``; there is no prompt; two have one id; or one does
            not end with a user turn.
    """
    refused: Counter[str] = Counter()
    first: dict[str, str] = {}

    def refuse(name: str, error: ValueError) -> None:
        if bad_rows == "stop":
            raise error
        refused[name] += 1
        first.setdefault(name, str(error))

    prompts = source.prompts(refuse)[:limit]
    for name, number in refused.items():
        logger.info(f"{name}: {number} rows refused; first refusal: {first[name]}")
    _refuse_unfit(prompts, repr(source))
    return prompts


def _refuse_unfit(prompts: Sequence[SamplePrompt], source: str) -> None:
    if not prompts:
        raise ValueError(f"`source` {source} has no prompts: nothing to answer")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise ValueError(f"`source` {source} has two prompts with the id {prompt.id!r}: drop one of the rows")
        seen.add(prompt.id)
        if not prompt.messages or prompt.messages[-1].role != "user":
            last = f"with {prompt.messages[-1].role}'s" if prompt.messages else "without any turn"
            raise ValueError(f"prompt {prompt.id!r} must end with a user turn, not {last}: drop the row")

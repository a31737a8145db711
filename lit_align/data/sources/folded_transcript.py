"""A dialogue that was written into one text: back to its turns."""

from __future__ import annotations

import re

from lit_align.types import Message, Role

_LABEL = re.compile(r"^[ \t]*(?:#+[ \t]*|\*\*)?(user|human|assistant|chatbot|gpt)[ \t]*:(?:\*\*)?", re.I | re.M)
_USERS = ("user", "human")


def unfold(text: str) -> tuple[Message, ...] | None:
    r"""The turns of a transcript.

    A transcript begins with ``User:`` or ``Human:`` and has a line that begins with ``Assistant:``, ``Chatbot:`` or
    ``GPT:``; an empty label of the assistant at its end, which asks for the next turn, is no turn.

    Args:
        text: What a user said, or a transcript that ends with what a user said.

    Returns:
        The turns, the first and the last the user's; None for a text that is no transcript.

    Raises:
        ValueError: The text is a transcript whose turns do not alternate, are blank, or end with the assistant's.

    Example:
        >>> [one.content for one in unfold("User: Hi\nAssistant: Hello!\nUser: What is\na bond?") or ()]
        ['Hi', 'Hello!', 'What is\na bond?']
        >>> unfold("What does the line 'Assistant: hello' mean?")
    """
    labels = list(_LABEL.finditer(text))
    roles: list[Role] = ["user" if one[1].lower() in _USERS else "assistant" for one in labels]
    if not labels or text[: labels[0].start()].strip() or roles[0] != "user" or "assistant" not in roles:
        return None
    ends = [*(one.start() for one in labels[1:]), len(text)]
    turns = [Message(role, text[one.end() : end].strip()) for role, one, end in zip(roles, labels, ends, strict=True)]
    if turns[-1] == Message("assistant", ""):
        del turns[-1]
    for number, turn in enumerate(turns):
        expected = "assistant" if number % 2 else "user"
        if turn.role != expected:
            raise ValueError(f"a transcript whose turn {number + 1} is the {turn.role}'s, not the {expected}'s")
        if not turn.content:
            raise ValueError(f"a transcript whose turn {number + 1} is blank")
    if turns[-1].role != "user":
        raise ValueError("a transcript that ends with the assistant's turn: it asks nothing")
    return tuple(turns)

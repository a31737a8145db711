"""Greetings and their replies: the skill of the tiny model that needs no table."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from lit_align.data.sources.finance_tables import Split, split_of

GREETINGS = ("Hello", "Hi", "Hey", "Greetings", "Welcome")
NAMES = (
    "Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irina", "Jonas", "Karin", "Lukas",
    "Maria", "Nina", "Oskar", "Paula", "Robert", "Sofia", "Thomas", "Ulla", "Viktor", "Wanda", "Yuri", "Zoe",
)  # fmt: skip
CITIES = (
    "Athens", "Berlin", "Cairo", "Dublin", "Geneva", "Kazan", "Lima", "London", "Madrid", "Moscow", "Oslo", "Paris",
    "Prague", "Rome", "Tokyo", "Vienna",
)  # fmt: skip
REPLIES = {
    "Who are you?": "I am a small model.",
    "What can you do?": "I read tables and answer questions.",
    "Can you help me?": "I can answer questions about tables.",
    "How are you?": "I am well, thank you.",
    "Are you free?": "I am free, please ask.",
    "Thank you for the table.": "You are welcome.",
}


@dataclass(frozen=True)
class SmallTalk:
    """One exchange.

    Attributes:
        said: What the user says.
        reply: What the model should reply; it repeats the greeting, the name and the city.
    """

    said: str
    reply: str


def draw_small_talk(rng: Random, split: Split) -> SmallTalk:
    """Draw an exchange of one split.

    There are 11,520 of them, and the same hash as for the tables keeps one in eight for evaluation: every word
    of a held-out exchange occurs in training, its combination of words does not.

    Args:
        rng: Where the randomness comes from; it moves on.
        split: Draws of the other split are thrown away.

    Returns:
        The exchange.
    """
    while True:
        greeting, name, city = rng.choice(GREETINGS), rng.choice(NAMES), rng.choice(CITIES)
        question, answer = rng.choice(tuple(REPLIES.items()))
        said = f"{greeting}, I am {name} from {city}. {question}"
        if split_of(said) == split:
            return SmallTalk(said, f"{greeting}, {name} from {city}. {answer}")

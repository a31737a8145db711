"""Which language a text is in."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

DETECTOR = "py3langid"
"""The package that names languages."""


def language_of(text: str) -> str:
    """Name the language of a text, by py3langid (maintained, over a hundred languages, the model in the package).

    On texts of a word or two it is not to be believed.

    Args:
        text: Any.

    Returns:
        ISO 639-1; empty for a text without any letter.

    Example:
        >>> language_of("Сегодня хорошая погода."), language_of("17 + 4")
        ('ru', '')
    """
    return str(detector().classify(text)[0]) if any(map(str.isalpha, text)) else ""


@cache
def detector() -> LanguageIdentifier:
    """The detector; its ``labels`` are the languages that it knows."""
    # Not the package's own instance, which any code in the process can restrict to a few languages.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)

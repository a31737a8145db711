"""Which language an answer is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align.evals.instructions.contract import Instruction, LanguageCode
from lit_align.metrics.language import DETECTOR, detector, language_of


def is_in_language(text: str, code: str) -> bool:
    """Whether a text is in a language, by :func:`~lit_align.metrics.language.language_of`.

    IFEval asks langdetect, which has had no release since 2021 and draws at random. Of IFEval's 541 prompts both call
    all English, and in capital letters 541 (py3langid) and 532 (langdetect); one short sentence each in the 22 other
    languages that the file asks for, both name all right. On texts of a word or two neither is to be believed. As
    there, a text without any letter is in every language.

    Args:
        text: The answer.
        code: ISO 639-1.

    Example:
        >>> is_in_language("Сегодня хорошая погода.", "ru"), is_in_language("The weather is good today.", "ru")
        (True, False)
    """
    return language_of(text) in ("", code)


@dataclass(frozen=True)
class ResponseLanguage(Instruction):
    """The answer as a whole is in the language: see :func:`is_in_language`.

    Example:
        >>> ResponseLanguage("de").is_followed("Heute ist das Wetter sehr schön.")
        True
    """

    package: ClassVar[str] = DETECTOR

    language: LanguageCode

    def check(self) -> None:
        """Refuse a language that the detector does not know."""
        super().check()
        if self.language not in detector().labels:
            raise ValueError(f"language must be one of {', '.join(sorted(detector().labels))}, got {self.language!r}")

    def is_followed(self, answer: str) -> bool:
        """Whether the detector names this language."""
        return is_in_language(answer, self.language)

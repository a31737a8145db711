"""The names that IFEval's file has for instructions, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches

from lit_align.evals.instructions import formats, keywords, length, letter_case, whole_answer
from lit_align.evals.instructions.contract import Instruction
from lit_align.evals.instructions.language import ResponseLanguage

INSTRUCTIONS: Mapping[str, type[Instruction]] = {
    "change_case:capital_word_frequency": letter_case.CapitalWordFrequency,
    "change_case:english_capital": letter_case.EnglishCapital,
    "change_case:english_lowercase": letter_case.EnglishLowercase,
    "combination:repeat_prompt": whole_answer.RepeatPrompt,
    "combination:two_responses": whole_answer.TwoResponses,
    "detectable_content:number_placeholders": formats.NumberPlaceholders,
    "detectable_content:postscript": formats.Postscript,
    "detectable_format:constrained_response": formats.ConstrainedResponse,
    "detectable_format:json_format": formats.JsonFormat,
    "detectable_format:multiple_sections": formats.MultipleSections,
    "detectable_format:number_bullet_lists": formats.NumberBulletLists,
    "detectable_format:number_highlighted_sections": formats.NumberHighlightedSections,
    "detectable_format:title": formats.Title,
    "keywords:existence": keywords.Existence,
    "keywords:forbidden_words": keywords.ForbiddenWords,
    "keywords:frequency": keywords.Frequency,
    "keywords:letter_frequency": keywords.LetterFrequency,
    "language:response_language": ResponseLanguage,
    "length_constraints:nth_paragraph_first_word": length.NthParagraphFirstWord,
    "length_constraints:number_paragraphs": length.NumberParagraphs,
    "length_constraints:number_sentences": length.NumberSentences,
    "length_constraints:number_words": length.NumberWords,
    "punctuation:no_comma": keywords.NoComma,
    "startend:end_checker": whole_answer.EndPhrase,
    "startend:quotation": whole_answer.Quotation,
}
"""All that the file has; a name that is not here is an error, never a guess."""


def make(name: str, parameters: Mapping[str, object]) -> Instruction:
    """The instruction of a name and parameters, as they stand in a file.

    Args:
        name: A key of :data:`INSTRUCTIONS`.
        parameters: The instruction's own; one that is None counts as not given, since tables that were made from the
            file fill every column so.

    Raises:
        ValueError: The name is unknown, or a parameter is missing, unknown or breaks its rule.

    Example:
        >>> make("length_constraints:number_words", {"num_words": 30, "relation": "less than", "keyword": None})
        NumberWords(num_words=30, relation='less than')
    """
    if name not in INSTRUCTIONS:
        near = get_close_matches(name, INSTRUCTIONS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(INSTRUCTIONS)}"
        raise ValueError(f"unknown instruction '{name}'; {hint}")
    kind = INSTRUCTIONS[name]
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in parameters.items()}
    given = {key: value for key, value in given.items() if value is not None}
    takes = [field.name for field in fields(kind)]
    for key in takes:
        if key not in given:
            raise ValueError(f"{name}: {key} is missing; it takes {', '.join(takes)}")
    for key in given:
        if key not in takes:
            raise ValueError(f"{name}: has no parameter {key}; it takes {', '.join(takes) or 'none'}")
    try:
        return kind(**given)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error

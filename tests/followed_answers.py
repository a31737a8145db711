"""Answers that follow the instructions of a prompt, put together from its parameters: what no model has to write."""

from __future__ import annotations

import json
from typing import TypeVar

from lit_align.evals.instructions import formats, keywords, language, length, letter_case, whole_answer
from lit_align.evals.instructions.reading import InstructionPrompt

# Neither commas nor the letter s, which prompts forbid.
FILLER = {
    "en": "A warm wind blew over the wide water and the boat began to move.",
    "ru": "Тёплый ветер подул над широкой водой и лодка медленно поплыла вперёд.",
    "de": "Heute ist das Wetter sehr schön und wir gehen mit den Kindern nach draußen.",
    "fr": "Le temps est très beau et nous allons manger dehors avec nos amis.",
}
MENTION = {"en": "We talk about {}.", "ru": "Мы говорим про {}.", "de": "Wir sehen {}.", "fr": "Nous aimons le {}."}

T = TypeVar("T")


def followed_answer(prompt: InstructionPrompt) -> str:
    """An answer that follows all of them to the letter, for the combinations that our own file has."""

    def asked(kind: type[T]) -> list[T]:
        return [one for one in prompt.instructions if isinstance(one, kind)]

    tongue = next((one.language for one in asked(language.ResponseLanguage)), "ru" if "ru" in prompt.key else "en")
    filler, mention = FILLER[tongue], MENTION[tongue]
    wanted = [word for one in asked(keywords.Existence) for word in one.keywords]
    if asked(formats.JsonFormat):
        return json.dumps({word.strip('"'): "x" for word in wanted or ["a"]}, ensure_ascii=False)
    wanted += [one.keyword for one in asked(keywords.Frequency) for _ in range(one.frequency)]
    said = [mention.format(word) for word in wanted]
    for letters in asked(keywords.LetterFrequency):
        said += [letters.letter * letters.let_frequency + "."] if letters.let_relation == "at least" else []
    for capital in asked(letter_case.CapitalWordFrequency):
        said.append(" ".join(["FUN"] * capital.capital_frequency) + ".")
    said += ["My answer is maybe."] if asked(formats.ConstrainedResponse) else []
    said += [" ".join([f"*{filler}*"] * one.num_highlights) for one in asked(formats.NumberHighlightedSections)]
    said += [" ".join(f"[blank {i}]" for i in range(one.num_placeholders)) for one in asked(formats.NumberPlaceholders)]
    for words in asked(length.NumberWords):
        said += [filler] * (words.num_words // 10 + 1) if words.relation == "at least" else []
    for sentences in asked(length.NumberSentences):
        said = said + [filler] * sentences.num_sentences if sentences.relation == "at least" else [" ".join(said)[:-1]]
    text = (" ".join(said) or filler).replace("..", ".")
    for one in asked(formats.NumberBulletLists):
        text = "\n".join([text, *(f"- {filler}" for _ in range(one.num_bullets))])
    for part in asked(formats.MultipleSections):
        text = "\n".join(f"{part.section_spliter} {i + 1}\n{text}" for i in range(part.num_sections))
    for number in asked(length.NumberParagraphs):
        text = "\n***\n".join([text] * number.num_paragraphs)
    for nth in asked(length.NthParagraphFirstWord):
        text = "\n\n".join([f"{nth.first_word} {text}"] * nth.num_paragraphs)
    text = f"{text}\n******\n{filler}" if asked(whole_answer.TwoResponses) else text
    text = f"<<Title>>\n{text}" if asked(formats.Title) else text
    for begin in asked(whole_answer.RepeatPrompt):
        text = f"{begin.prompt_to_repeat} {text}"
    for end in [*asked(formats.Postscript), *asked(whole_answer.EndPhrase)]:
        text += f"\n\n{end.postscript_marker if isinstance(end, formats.Postscript) else end.end_phrase}"
    text = text.upper() if asked(letter_case.EnglishCapital) else text
    text = text.lower() if asked(letter_case.EnglishLowercase) else text
    return f'"{text}"' if asked(whole_answer.Quotation) else text

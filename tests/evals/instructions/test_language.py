from __future__ import annotations

import pytest

from lit_align.evals.instructions.language import ResponseLanguage

SAID = {
    "en": "Today the weather is very nice and we will go outside.",
    "ru": "Сегодня очень хорошая погода, и мы пойдём гулять.",
    "bg": "Днес времето е много хубаво и ние ще излезем навън.",
    "de": "Heute ist das Wetter sehr schön und wir gehen nach draußen.",
    "vi": "Hôm nay thời tiết rất đẹp và chúng tôi sẽ đi ra ngoài.",
    "hi": "आज मौसम बहुत अच्छा है और हम बाहर जाएंगे।",
    "ko": "오늘은 날씨가 매우 좋아서 우리는 밖에 나갈 것입니다.",
}


@pytest.mark.parametrize("code", SAID)
def test_a_text_is_in_its_own_language_and_in_no_other(code: str) -> None:
    assert [other for other in SAID if ResponseLanguage(other).is_followed(SAID[code])] == [code]


def test_the_language_of_the_greater_part_counts() -> None:
    mixed = f"{SAID['ru']} {SAID['ru']} Okay."

    assert ResponseLanguage("ru").is_followed(mixed)
    assert not ResponseLanguage("en").is_followed(mixed)


def test_what_has_no_letter_is_in_every_language() -> None:
    assert ResponseLanguage("ru").is_followed("12 + 3 = 15 😀")


def test_the_answer_does_not_depend_on_what_other_code_does_to_the_detector() -> None:
    import py3langid

    py3langid.set_languages(["fr", "it"])
    try:
        assert ResponseLanguage("en").is_followed(SAID["en"])
    finally:
        py3langid.set_languages(None)


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match=r"language must be one of .* de, .* ru, .*, got 'xx'"):
        ResponseLanguage("xx").check()

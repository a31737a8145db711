"""What texts tell: near-repeats, evaluation questions, languages, addresses and keys, answers told by their form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from made_chats import chats, words

from lit_align.data.audit.contamination import Asked, contamination
from lit_align.data.audit.examples import Text, drawn, examples, read_texts
from lit_align.data.audit.language import languages
from lit_align.data.audit.near import near_repeats
from lit_align.data.audit.personal import kinds_in, masked, personal_data
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.surface import surface_accuracy
from lit_align.data.audit.table import Measured
from lit_align.data.overlap import EvaluationSets
from lit_align.data.sft import SFTDataModule
from lit_align.data.window_module import WindowDataModule
from lit_align.types import EvalItem, EvalSource, Message, SamplePrompt

Make = Callable[..., Any]

RUSSIAN = "Сегодня хорошая погода, и мы пойдём гулять в парк вместе с друзьями номер "
ENGLISH = "The weather is fine today, and we shall take a long walk in the park, number "


def texts(data: WindowDataModule, most: int = 1000) -> list[Text]:
    data.setup("fit")
    return read_texts(drawn(examples(data), most), data.chat.tokenizer)


def failed(found: Measured) -> dict[str, float]:
    return {check.limit: check.found for check in found.failed}


def rows(found: Measured) -> list[dict[str, Any]]:
    [table] = found.tables
    return table.records()


def test_texts_are_read_back_as_they_were_given(conversations: Make) -> None:
    [first, second] = texts(
        conversations([["Hello\nuser", "Привет, «мир»."], ["One?", "1", "Two?", "2"]], turns="last")
    )
    assert (first.turns, first.answers) == (("Hello\nuser",), ("Привет, «мир».",))
    assert (second.turns, second.answers) == (("One?", "1", "Two?"), ("2",))


def test_pairs_are_read_back_with_both_answers(pairs: Make) -> None:
    [one] = texts(pairs([("Which?", "This one.", "That one.")]))
    assert (one.turns, one.answers, one.example.id) == (("Which?",), ("This one.", "That one."), "pairs.jsonl:1")


def test_a_drawing_takes_so_many_of_each_source_whatever_the_order(conversations: Make) -> None:
    data = conversations(chats(40), chats(5, "val"))
    data.setup("fit")
    every = list(examples(data))
    some = drawn(every, 10)
    assert [one.part for one in some] == ["training"] * 10 + ["validation"] * 5
    assert {one.id for one in drawn(every[::-1], 10)} == {one.id for one in some}
    assert [one.id for one in some] != [one.id for one in every[:10]] + [one.id for one in every[40:]]
    assert [one.id for one in drawn(every, 99)] == [one.id for one in every]


def _with_a_word_changed(text: str) -> str:
    return text.replace(text.split()[0], "changed", 1)


def test_a_text_with_a_word_changed_is_a_near_repeat_and_a_leak(conversations: Make) -> None:
    train = [[words(60, f"q{i}"), words(8, f"a{i}")] for i in range(8)]
    changed = [[_with_a_word_changed(train[i][0]), train[i][1]] for i in (0, 1, 2, 3)]
    read = texts(conversations([*train, *changed[:2]], [changed[2], chats(1, "val")[0]]))
    found = near_repeats(read, AuditSettings(max_near_repeated=0.1))
    assert failed(found) == {"audit.max_near_repeated": 0.2, "audit.max_near_leaked": 0.5}
    training, validation = rows(found)
    assert (training["near-repeats"], validation["nearly trained too"]) == (2, 1)
    assert "train.jsonl:9#1 ~ train.jsonl:1#1" in training["such as"]
    assert "val.jsonl:1#1 ~ train.jsonl:3#1" in validation["such as"]
    assert not near_repeats(read, AuditSettings(jaccard=0.99)).failed


def test_texts_that_have_little_in_common_are_no_near_repeats(conversations: Make) -> None:
    read = texts(conversations([[f"{words(20, 'same')} {words(20, i)}", words(8, i)] for i in range(20)]))
    [row] = rows(near_repeats(read, AuditSettings()))
    assert (row["compared"], row["near-repeats"]) == (20, 0)


def test_questions_about_one_table_are_no_near_repeats(pairs: Make) -> None:
    table = words(60, "table")
    read = texts(pairs([(f"{table} {i}?", f"yes {i}", f"no {i}", "t1") for i in range(6)]))
    assert [row["near-repeats"] for row in rows(near_repeats(read, AuditSettings()))] == [0]
    read = texts(pairs([(f"{table} {i}?", f"yes {i}", f"no {i}", f"t{i}") for i in range(6)]))
    assert [row["near-repeats"] for row in rows(near_repeats(read, AuditSettings()))] == [5]


QUESTION = "Imagine you are writing a blog post comparing two popular smartphone models, and say which one you prefer."


def _asked(published: bool, *questions: str) -> dict[str, Asked]:
    prompts = [SamplePrompt(f"e{i}", (Message("user", text),), "", "exam") for i, text in enumerate(questions)]
    return {"exam": Asked(prompts, published)}


def test_a_published_question_inside_of_a_training_text_is_found(conversations: Make) -> None:
    folded = f"User: Hello! User: {QUESTION.upper()}\n{words(12, 'more')}"
    data = conversations([*chats(9), [folded, words(6, "a")]])
    found = contamination(texts(data), _asked(True, QUESTION), AuditSettings())
    assert failed(found) == {"audit.max_overlap": 0.1}
    assert "train.jsonl:10#1 says 'imagine you are writing" in str(found.failed[0])
    assert not contamination(texts(data), _asked(True, words(20, "another")), AuditSettings()).failed


def test_of_a_benchmark_that_shares_its_wording_with_training_whole_prompts_alone_count(conversations: Make) -> None:
    instruction = "Write the answer alone, one item on a line, and end with a line that says the scale of the table."
    held_out = f"{instruction}\n{words(40, 'held out')}"
    data = conversations([[f"{instruction}\n{words(40, i)}", words(4, i)] for i in range(10)])
    assert not contamination(texts(data), _asked(False, held_out), AuditSettings()).failed
    leaked = conversations([[f"{instruction}\n{words(40, i)}", words(4, i)] for i in range(9)] + [[held_out, "yes"]])
    found = contamination(texts(leaked), _asked(False, held_out), AuditSettings())
    assert failed(found) == {"audit.max_overlap": 0.1}
    assert "train.jsonl:10#1 ~ e0 (1.00)" in str(found.failed[0])


def test_sets_that_the_configuration_names_are_looked_for_too(conversations: Make) -> None:
    class Exam(EvalSource):
        def items(self) -> list[EvalItem]:
            return [EvalItem("one", (Message("user", QUESTION),), "", "", "one")]

    data = conversations([*chats(3), [QUESTION, "I do."]])
    found = contamination(texts(data), {}, AuditSettings(against=EvaluationSets({"exam": Exam()})))
    assert failed(found) == {"audit.max_overlap": 0.25}
    assert contamination(texts(data), {}, AuditSettings()) == Measured()


def test_answers_in_a_wrong_language_are_found(conversations: Make) -> None:
    data = conversations([[f"q {i}", f"{RUSSIAN if i % 4 else ENGLISH} {i}"] for i in range(12)])
    found = languages(texts(data), AuditSettings(languages=("ru",)))
    assert failed(found) == {"audit.max_other_language": 0.25}
    assert "train.jsonl:1#1 (en)" in str(found.failed[0])
    [row] = rows(found)
    assert row["languages"] == "ru 75.0%, en 25.0%"
    assert not languages(texts(data), AuditSettings(languages=("ru", "en"))).failed
    assert not languages(texts(data), AuditSettings()).failed


def test_answers_of_a_word_are_in_no_language(conversations: Make) -> None:
    [row] = rows(languages(texts(conversations([["q", "yes"], ["p", "12 %"]])), AuditSettings(languages=("ru",))))
    assert (row["answers"], row["too short to tell"]) == (0, 2)


# In parts, so that no scanner of repositories takes them for real ones; none of them is.
SECRETS = {
    "AWS key": "AKIA" + "IOSFODNN7EXAMPLE",
    "GitHub token": "ghp_" + "a1B2" * 9,
    "Slack token": "xoxb-" + "123456789012-abcdefABCDEF",
    "Google key": "AIza" + "SyA1" * 8 + "abc",
    "Hugging Face token": "hf_" + "AbCd" * 9,
    "sk- key": "sk-" + "proj-" + "Ab1" * 10,
    "JSON web token": "eyJ" + "hbGciOiJIUzI1" + ".eyJ" + "zdWIiOiIxMjM0" + ".SflKxwRJSMeKKF2QT4",
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    "URL with password": "postgres://admin:" + "hunter22@db.internal/x",
    "assigned secret": 'api_key = "' + 'q8Zt71LmPw"',
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_found_and_never_shown(conversations: Make, kind: str) -> None:
    secret = SECRETS[kind]
    assert kind in kinds_in(f"use {secret} here")
    found = personal_data(
        texts(conversations([*chats(3), ["Which key?", f"It is {secret} as you know."]])), AuditSettings()
    )
    assert failed(found) == {"audit.max_secrets": 1}
    told = f"{found}"
    longest = max(secret.replace("\n", " ").split("-----"), key=len).split("://")[-1].split('"')[-1] or secret
    assert longest not in told
    assert f"[{kind}]" in rows(found)[0]["such as"]
    assert masked(masked(secret)) == masked(secret)


def test_an_address_is_found_and_never_shown(conversations: Make) -> None:
    data = conversations([*chats(4), ["Whom do I ask?", "Write to anna.b+x@mail.example.org, please."]])
    found = personal_data(texts(data), AuditSettings())
    assert failed(found) == {"audit.max_emails": 0.2}
    assert "anna" not in str(found)
    assert not personal_data(texts(data), AuditSettings(max_emails=0.2)).failed


@pytest.mark.parametrize(
    "text",
    [
        "The password: is it long enough?", "a @ b, see fig@home", "sk-learn and risk-taking-is-fun", "hf_short",
        "https://example.org/a:b@c", "token budget = 4096 tokens", "1,496.5 at 12:30", "secret: nobody knows it",
    ],
)  # fmt: skip
def test_ordinary_text_holds_no_secret(text: str) -> None:
    assert kinds_in(text) == set()


def _pairs_told_by(sign: str, n: int = 60) -> list[tuple[str, ...]]:
    return [
        (q, f"{words(6, f'c{i}')}{sign}", words(6 + len(sign.split()), f"r{i}")) for i, (q, _) in enumerate(chats(n))
    ]


@pytest.mark.parametrize("sign", [" Certainly!", " indeed so", "\n- a list\n- of things"])
def test_answers_that_their_form_tells_apart_are_found(pairs: Make, sign: str) -> None:
    found = surface_accuracy(texts(pairs(_pairs_told_by(sign))), AuditSettings(max_surface_accuracy=0.8))
    assert list(failed(found)) == ["audit.max_surface_accuracy"]
    [row] = rows(found)
    assert row["accuracy, share"] > 0.9


def test_answers_without_a_sign_are_told_apart_by_chance_alone(pairs: Make) -> None:
    found = surface_accuracy(texts(pairs(_pairs_told_by("", n=200))), AuditSettings(max_surface_accuracy=0.55))
    [row] = rows(found)
    assert 0.35 < row["accuracy, share"] < 0.65
    assert not found.failed


def test_what_a_group_has_in_common_tells_nothing_of_other_groups(pairs: Make) -> None:
    # The chosen answer names its group: learned by heart, and of no use for a group that was not seen.
    names = [words(2, f"group {g}") for g in range(30)]
    held = [
        (words(8, f"{g} {i}"), f"{names[g]} a{i}", f"{names[(g + 7) % 30]} a{i}", f"g{g}")
        for g in range(30)
        for i in range(4)
    ]
    [row] = rows(surface_accuracy(texts(pairs(held)), AuditSettings()))
    assert row["accuracy, share"] < 0.6


def test_few_groups_are_not_classified(pairs: Make) -> None:
    [row] = rows(surface_accuracy(texts(pairs(_pairs_told_by(" Certainly!", n=10))), AuditSettings()))
    assert row["accuracy, share"] is None


def test_conversations_have_no_measure_of_pairs(conversations: Make) -> None:
    data: SFTDataModule = conversations(chats(3))
    assert surface_accuracy(texts(data), AuditSettings()) == Measured()

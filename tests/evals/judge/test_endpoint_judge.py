"""The judge at an endpoint, against a server of our own: what it is asked, what it says, and what is kept."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from openai_server import Reply, Server, refusal, reply, serving

import lit_align
from lit_align.evals.judge import EndpointJudge, Judged
from lit_align.evals.judge.endpoint import rating_of
from lit_align.evals.judge.mt_bench_prompts import judge_messages
from lit_align.types import Message

pytest.importorskip("openai")

CPU = torch.device("cpu")
TURNS = (Message("user", "Question {1}?"), Message("assistant", "First answer"), Message("user", "And then?"))
PROMPTS = Path(lit_align.__file__).parent / "assets" / "mt_bench" / "judge_prompts.jsonl"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as made:
        made.script = lambda *_: reply("Fine. Rating: [[7]]")
        yield made


def judge(server: Server, **options: Any) -> EndpointJudge:
    return EndpointJudge(server.url, "m", **{"cache": "ratings.sqlite", "retries": 1, "timeout_s": 20.0, **options})


def one(answer: str = "4", name: str = "q1", **parts: Any) -> Judged:
    return Judged(name, (Message("user", "2 + 2?"),), answer, **parts)


def ratings(scorer: EndpointJudge, *answers: Judged) -> list[float]:
    return [found["rating"] for found in scorer.scores(answers, CPU)]


def official(name: str) -> dict[str, str]:
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    [row] = [row for row in rows if row["name"] == name]
    return row


def test_the_first_turn_is_asked_in_the_official_form(server: Server) -> None:
    assert ratings(judge(server), one("It is {4}.")) == [7.0]
    [body] = server.bodies
    form = official("single-v1")
    filled = form["prompt_template"].replace("{question}", "2 + 2?").replace("{answer}", "It is {4}.")
    assert body == {
        "model": "m", "temperature": 0.0, "max_tokens": 2048,
        "messages": [{"role": "system", "content": form["system_prompt"]}, {"role": "user", "content": filled}],
    }  # fmt: skip


def test_the_second_turn_is_asked_with_the_first_one_in_view() -> None:
    system, user = judge_messages(Judged("q", TURNS, "Second answer", category="writing"))
    form = official("single-v1-multi-turn")
    filled = form["prompt_template"]
    for key, text in {
        "question_1": "Question {1}?", "answer_1": "First answer", "question_2": "And then?",
        "answer_2": "Second answer",
    }.items():  # fmt: skip
        filled = filled.replace(f"{{{key}}}", text)
    assert (system.content, user.content) == (form["system_prompt"], filled)


@pytest.mark.parametrize("category", ["math", "reasoning", "coding"])
def test_questions_with_one_right_answer_are_judged_against_the_reference(category: str) -> None:
    _, first = judge_messages(one("5", reference="Four", category=category))
    assert "[The Start of Reference Answer]\nFour\n[The End of Reference Answer]" in first.content
    _, second = judge_messages(
        Judged("q", TURNS, "Second answer", reference="R2", category=category, earlier_references=("R1",))
    )
    begin, _, rest = second.content.partition("<|The End of Reference Answer|>")
    assert begin.endswith(
        "### User:\nQuestion {1}?\n\n### Reference answer:\nR1\n\n### User:\nAnd then?\n\n### Reference answer:\nR2\n\n"
    )
    assert "First answer" in rest


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        (one(category="math"), "^q1: a question of the category 'math' .* each of its 1 turns, and has 0"),
        (Judged("q", TURNS, "a", "R2", "coding"), "^q: .* each of its 2 turns, and has 1"),
        (Judged("q", (Message("system", "s"), *TURNS[:1]), "a"), "^q: .*not for the turns system, user"),
    ],
)
def test_what_has_no_official_form_is_refused_before_anything_is_asked(
    server: Server, judged: Judged, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        ratings(judge(server), one(), judged)
    assert server.bodies == []


@pytest.mark.parametrize(
    ("said", "rating"),
    [
        ("Rating: [[10]]", 10.0), ("[[1]] or [[9]]", 1.0), ("[[7.5]]", 7.5), ("<think>[[2]]</think>[[8]]", 8.0),
        ("[[0]]", None), ("[[11]]", None), ("[[10.5]]", None), ("[[N/A]]", None), ("[[-3]]", None),
        ("Rating: [5]", None),
        ("Rating: 5", None), ("[[rating]]", None), ("", None), ("[[ 5 ]]", None), ("[[5/10]]", None),
    ],
)  # fmt: skip
def test_a_rating_is_read_strictly(said: str, rating: float | None) -> None:
    assert rating_of(said) == rating


def test_garbage_is_asked_again_so_often_and_no_more(server: Server) -> None:
    server.script = lambda _, place: reply("Well..." if place < 2 else "[[3]]")
    assert ratings(judge(server), one()) == [3.0]
    assert len(server.bodies) == 3


@pytest.mark.parametrize("said", ["Rating: [[11]]", "[[0]]", "[[N/A]]", "Great!", ""])
def test_garbage_for_ever_is_an_error_that_names_the_answer_and_what_was_said(server: Server, said: str) -> None:
    server.script = lambda *_: reply(said)
    with pytest.raises(RuntimeError, match=r"'q1': gave no rating \[\[1\]\] to \[\[10\]\] in 2 att") as told:
        ratings(judge(server, attempts=2), one())
    assert repr(said) in str(told.value)
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (refusal(429, "slow down"), "still rate-limited after 1 retries (Error code: 429 - slow down): lower "),
        (refusal(500), "after 1 retries: look into the server's log"),
        (refusal(401), "name a file with the right key in `scorer.api_key_file`"),
        ((200, {"Content-Type": "application/json"}, b"<html>"), "answered no JSON"),
        ((200, {"Content-Type": "application/json"}, b"{}"), "answered without choices"),
    ],
    ids=["rate-limited", "broken", "locked", "no json", "other json"],
)  # fmt: skip
def test_a_server_that_does_not_serve_is_an_error_that_names_it_and_the_answer(
    server: Server, given: Reply, said: str
) -> None:
    server.script = lambda *_: given
    with pytest.raises((RuntimeError, OSError)) as told:
        ratings(judge(server), one())
    assert str(told.value).startswith(f"{server.url}, judging 'q1': ")
    assert said in str(told.value)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(server: Server, status: int) -> None:
    server.script = lambda _, place: refusal(status) if place < 1 else reply("[[4]]")
    assert ratings(judge(server), one()) == [4.0]


def test_a_server_that_does_not_answer_in_time_is_an_error(server: Server) -> None:
    def slow(body: dict[str, Any], place: int) -> Reply:
        time.sleep(0.5)
        return reply("[[4]]")

    server.script = slow
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s, after 0 retries: raise `scorer\.timeout_s`"):
        ratings(judge(server, timeout_s=0.05, retries=0), one())


def test_what_is_kept_is_not_asked_for_again(server: Server) -> None:
    scorer = judge(server)
    assert ratings(scorer, one("4"), one("5", "q2")) == [7.0, 7.0]
    server.script = lambda *_: reply("[[1]]")
    assert ratings(scorer, one("5", "another name"), one("6"), one("4")) == [7.0, 1.0, 7.0]
    assert len(server.bodies) == 3
    assert ratings(replace(scorer, url="http://nowhere/v1"), one("4")) == [7.0], "the server may move"


@pytest.mark.parametrize("changes", [{"model": "n"}, {"max_tokens": 9}], ids=str)
def test_another_judge_does_not_share_what_is_kept(server: Server, changes: dict[str, Any]) -> None:
    ratings(judge(server), one())
    ratings(replace(judge(server), **changes), one())
    assert len(server.bodies) == 2


def test_equal_answers_are_asked_for_once(server: Server) -> None:
    server.script = lambda _, place: reply(f"[[{place + 1}]]")
    a, b, other, c = ratings(judge(server, cache=""), one(name="a"), one(name="b"), one("5"), one(name="c"))
    assert a == b == c != other, "whichever of the two requests came first"
    assert len(server.bodies) == 2


def test_what_came_before_a_failure_is_kept(server: Server) -> None:
    server.script = lambda body, _: refusal(404) if "bad" in str(body) else reply("[[5]]")
    scorer = judge(server, concurrency=1)
    with pytest.raises(RuntimeError, match="judging 'q3'"):
        ratings(scorer, one("1"), one("2"), one("bad", "q3"), one("3"))
    asked = len(server.bodies)
    assert ratings(scorer, one("1"), one("2")) == [5.0, 5.0]
    assert len(server.bodies) == asked == 3


def test_all_that_the_judge_said_is_kept_beside_the_rating(server: Server) -> None:
    ratings(judge(server), one())
    with sqlite3.connect("ratings.sqlite") as connection:
        assert connection.execute("SELECT judge, rating, said FROM ratings").fetchall() == [
            ("m", 7.0, "Fine. Rating: [[7]]")
        ]


def test_a_file_that_is_no_cache_is_refused_at_the_start_and_left_alone(server: Server) -> None:
    Path("ratings.sqlite").write_text("mine " * 500)
    with pytest.raises(ValueError, match=r"cache of ratings ratings\.sqlite: file is not a database"):
        judge(server).check()
    assert Path("ratings.sqlite").read_text() == "mine " * 500
    with sqlite3.connect("other.sqlite") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ValueError, match="is another program's database"):
        judge(server, cache="other.sqlite").check()


def test_the_key_is_read_from_its_file_and_kept_nowhere(server: Server) -> None:
    Path("key").write_text("secret-key\n")
    scorer = judge(server, api_key_file="key")
    scorer.check()
    ratings(scorer, one())
    assert server.headers[0]["authorization"] == "Bearer secret-key"
    assert b"secret-key" not in Path("ratings.sqlite").read_bytes()
    assert "secret-key" not in str(scorer.identity())


def test_without_the_package_the_extra_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_align.evals.chat_server.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'EndpointJudge needs one more package: pip install "lit_align\[endpoint\]"'):
        judge(server).check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "localhost"}, "`scorer.url` must begin with http"),
        ({"attempts": 0}, "`scorer.attempts` must be at least 1, got 0"),
        ({"max_tokens": 0}, "`scorer.max_tokens` must be at least 1, got 0"),
    ],
    ids=str,
)
def test_an_option_out_of_its_range_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="must") as told:
        EndpointJudge(**{"url": "http://x/v1", "model": "m", **options})
    assert said in str(told.value)

"""The engine that asks a server, against a server of our own: good answers, bad ones, and none."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai_server import Reply, Server, refusal, reply, serving

from lit_align.commands.engines import Answer, Decoding, EndpointEngine, Request
from lit_align.commands.engines.endpoint import request_seed
from lit_align.commands.sample import Sample
from lit_align.evals.sampling import Sampling
from lit_align.types import Message, PromptSource, SamplePrompt, stop_at

pytest.importorskip("openai")

DECODING = Decoding(Sampling(0.8, 0.9), 5, 32, False)
PROMPTS = [SamplePrompt(f"p{i}", (Message("user", f"Question {i}"),), "gold", "source") for i in range(4)]
REQUESTS = [Request(one, number, ()) for one in PROMPTS for number in (0, 1)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as made:
        yield made


def engine(server: Server, **options: Any) -> EndpointEngine:
    return EndpointEngine(server.url, "m", **{"retries": 2, "timeout_s": 20.0, **options})


def answered(asked: EndpointEngine, requests: list[Request] = REQUESTS, **options: Any) -> dict[int, Answer]:
    done = options.pop("done", set())
    batches = list(asked.answers(requests, done, replace(DECODING, **options)))
    return {place: answer for batch in batches for place, answer in batch}


def test_each_completion_is_asked_for_with_all_that_decides_it(server: Server) -> None:
    server.script = lambda body, _: reply(body["messages"][0]["content"] + f" {body['seed']}")
    found = answered(engine(server))
    assert found == {
        place: Answer(f"{one.prompt.messages[0].content} {request_seed(5, one.prompt.id, one.number)}", True, 7)
        for place, one in enumerate(REQUESTS)
    }
    [first] = [body for body in server.bodies if body["seed"] == request_seed(5, "p0", 0)]
    assert first == {
        "model": "m", "messages": [{"role": "user", "content": "Question 0"}], "temperature": 0.8, "top_p": 0.9,
        "max_tokens": 32, "seed": request_seed(5, "p0", 0), "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0,
        "skip_special_tokens": False, "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
    assert len({body["seed"] for body in server.bodies}) == len(REQUESTS)


def test_top_k_and_thinking_reach_the_server(server: Server) -> None:
    answered(engine(server), REQUESTS[:1], sampling=Sampling(1.0, 1.0, 20), thinking=True)
    assert server.bodies[0]["top_k"] == 20
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": True}


def test_what_is_done_is_not_asked_again(server: Server) -> None:
    assert set(answered(engine(server), done={0, 2, 3, 6, 7})) == {1, 4, 5}
    assert len(server.bodies) == 3


def test_so_many_requests_as_said_are_under_way_and_no_more(server: Server) -> None:
    def slow(body: dict[str, Any], place: int) -> Reply:
        time.sleep(0.05)
        return reply()

    server.script = slow
    assert len(answered(engine(server, concurrency=3))) == len(REQUESTS)
    assert server.most_under_way == 3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (reply("cut", "length"), Answer("cut", False, 7)),
        (reply("", "stop"), Answer("", True, 7)),
        (reply("<think>\nso\n</think>\n\nYes", "stop"), Answer("<think>\nso\n</think>\n\nYes", True, 7)),
        (reply(None, "content_filter"), Answer("", False, 7)),
    ],
    ids=["length", "empty", "thought", "filtered"],
)
def test_an_answer_is_read_as_the_server_gives_it(server: Server, given: Reply, expected: Answer) -> None:
    server.script = lambda *_: given
    assert answered(engine(server), REQUESTS[:1]) == {0: expected}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (reply(None, "tool_calls"), "finish_reason 'tool_calls', content None, without a thought apart"),
        (reply(None, "stop"), "finish_reason 'stop', content None"),
        (reply("x", None), "finish_reason None, content x"),
        (reply("x", "stop", reasoning_content="so"), "with a thought apart): start the server without a"),
        ((200, {"Content-Type": "application/json"}, b"<html>"), "answered no JSON"),
        ((200, {"Content-Type": "text/html"}, b"<html>Welcome"), "answered without choices: <html>Welcome"),
        ((200, {"Content-Type": "application/json"}, b'{"a": 1}'), "answered without choices"),
        ((200, {"Content-Type": "application/json"}, b"[1]"), "answered without choices"),
        ((200, {"Content-Type": "application/json"}, b'{"choices": []}'), "answered without choices"),
        ((200, {"Content-Type": "application/json"}, b'{"choices": "x"}'), "answered without choices"),
        (
            (200, {"Content-Type": "application/json"}, b'{"choices": [{"message": {}, "finish_reason": "stop"}]}'),
            "answered without usage.completion_tokens",
        ),
        (
            (200, {"Content-Type": "application/json"}, b'{"choices": [null], "usage": {"completion_tokens": 1}}'),
            "answered without choices",
        ),
        (refusal(404, "The model `m` does not exist."), "Error code: 404 - The model `m` does not exist.: does it"),
        (refusal(404), "does it serve `engine.model` 'm' (http://127.0.0.1:"),
        (refusal(401), "name a file with the right key in `engine.api_key_file`"),
        (refusal(400, "maximum context length"), "is the prompt too long for it?"),
        (refusal(500), "after 2 retries: look into the server's log"),
        (refusal(429, "slow down"), "still rate-limited after 2 retries (Error code: 429 - slow down)"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_an_error_that_names_server_and_prompt(
    server: Server, given: Reply, said: str
) -> None:
    server.script = lambda *_: given
    with pytest.raises((RuntimeError, OSError)) as told:
        answered(engine(server), REQUESTS[:1])
    assert said in str(told.value)
    assert str(told.value).startswith(f"{server.url}, prompt 'p0': ")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: Server, status: int) -> None:
    server.script = lambda _, place: refusal(status) if place < 2 else reply()
    assert answered(engine(server), REQUESTS[:1]) == {0: Answer("Yes", True, 7)}
    assert len(server.bodies) == 3


def test_a_server_that_does_not_answer_in_time_is_an_error(server: Server) -> None:
    def slow(body: dict[str, Any], place: int) -> Reply:
        time.sleep(1)
        return reply()

    server.script = slow
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s, after 0 retries: raise `engine.timeout_s`"):
        answered(engine(server, timeout_s=0.05, retries=0), REQUESTS[:1])


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ConnectionError, match=r"cannot be reached after 0 retries .*is the server running"):
        answered(EndpointEngine(url, "m", retries=0), REQUESTS[:1])


def test_after_a_failure_what_was_under_way_is_kept_and_nothing_more_is_asked(server: Server) -> None:
    def script(body: dict[str, Any], place: int) -> Reply:
        if body["messages"][0]["content"] == "Question 0":
            return refusal(404)
        time.sleep(0.1)
        return reply()

    server.script = script
    kept: dict[int, Answer] = {}
    batches = engine(server, concurrency=4).answers(REQUESTS, set(), DECODING)
    with pytest.raises(RuntimeError, match="404"):
        kept.update(pair for batch in batches for pair in batch)
    assert set(kept) == {2, 3}
    assert len(server.bodies) == 4


class Four(PromptSource):
    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        del refuse
        return PROMPTS


def test_a_run_that_is_rate_limited_for_ever_keeps_what_it_has_and_the_same_command_goes_on(server: Server) -> None:
    server.script = lambda _, place: reply() if place < 3 else refusal(429)
    sample = Sample(Four(), engine(server, concurrency=1, retries=1), "out.jsonl", k=2)
    with pytest.raises(ConnectionError, match="still rate-limited"):
        sample.run()
    assert Path("out.jsonl.part").read_bytes().count(b"\n") == 3
    server.script = lambda *_: reply()
    before = len(server.bodies)
    sample.run()
    assert len(server.bodies) - before == 5
    lines = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(one["id"], one["sample"]) for one in lines] == [(one.prompt.id, one.number) for one in REQUESTS]
    manifest = json.loads(Path("out.manifest.json").read_text(encoding="utf-8"))
    assert (manifest["engine"], manifest["model"], manifest["base_fingerprint"]) == ("EndpointEngine", "m", "")


def test_another_model_is_another_run_and_another_address_is_not(server: Server) -> None:
    Sample(Four(), engine(server), "out.jsonl").run()
    Sample(Four(), replace(engine(server), url="http://elsewhere/v1"), "out.jsonl").run()
    with pytest.raises(ValueError, match="`model` was 'm' and is 'n'"):
        Sample(Four(), replace(engine(server), model="n"), "out.jsonl").run()


def test_no_setting_is_taken_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID", "BASE_URL"):
        monkeypatch.setenv(f"OPENAI_{name}", "from-the-environment")
    answered(engine(server), REQUESTS[:1])
    assert "from-the-environment" not in str(server.headers)
    assert server.headers[0]["authorization"] == "Bearer none"


def test_the_key_is_read_from_its_file_and_shown_nowhere(server: Server) -> None:
    Path("key").write_text("secret-key\n", encoding="utf-8")
    Sample(Four(), engine(server, api_key_file="key"), "out.jsonl").run()
    assert server.headers[0]["authorization"] == "Bearer secret-key"
    assert "secret-key" not in Path("out.jsonl").read_text("utf-8") + Path("out.manifest.json").read_text("utf-8")


@pytest.mark.parametrize("text", ["", "two words", "two\nlines", "ключ"])
def test_a_file_that_holds_no_key_is_refused(server: Server, text: str) -> None:
    Path("key").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"`engine\.api_key_file` key must hold the key alone"):
        engine(server, api_key_file="key").check()


def test_an_absent_key_file_is_refused(server: Server) -> None:
    with pytest.raises(OSError, match=r"`engine\.api_key_file` none\.txt cannot be read \(No such file"):
        engine(server, api_key_file="none.txt").check()


def test_without_the_package_the_extra_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_align.evals.chat_server.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'pip install "lit_align\[endpoint\]"'):
        engine(server).check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "localhost:8000"}, "`engine.url` must begin with http:// or https://, got 'localhost:8000'"),
        ({"model": ""}, "`engine.model` must not be empty"),
        ({"timeout_s": 0.0}, "`engine.timeout_s` must be finite and > 0, got 0.0"),
        ({"timeout_s": float("nan")}, "`engine.timeout_s` must be finite"),
        ({"concurrency": 0}, "`engine.concurrency` must be at least 1, got 0"),
        ({"retries": -1}, "`engine.retries` must be >= 0, got -1"),
    ],
    ids=str,
)
def test_an_option_out_of_its_range_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="must") as told:
        EndpointEngine(**{"url": "http://x/v1", "model": "m", **options})
    assert said in str(told.value)


def test_the_length_of_a_prompt_cannot_be_limited() -> None:
    with pytest.raises(ValueError, match="EndpointEngine does not know the lengths of prompts; set it to 0"):
        Sample(Four(), EndpointEngine("http://x/v1", "m"), "out.jsonl", max_prompt_length=5)

"""Answers from an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lit_align.commands.engines.contract import Answer, Decoding, Engine, Request
from lit_align.types import SamplePrompt

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_SHOWN = 300  # characters of what a server says


@dataclass(frozen=True)
class EndpointEngine(Engine):
    """A server that speaks the chat-completions protocol of OpenAI, such as vLLM or SGLang, for one machine's limits.

    The server renders the prompts, so their lengths are not known here; it is sent every sampling option, so that none
    is filled from the model's own generation config. Whether the same seed gives the same completion again is the
    server's affair: batching alone makes most of them differ. Rate limits (429), errors of the server (5xx) and
    timeouts are tried again, each time after twice as long, up to 8 seconds, or as long as the server asks for. Needs
    the extra ``[endpoint]``.

    Args:
        url: Where the protocol begins, with ``/v1``: ``http://localhost:8000/v1``.
        model: The model's name there; vLLM and SGLang serve an adapter under a name of its own.
        api_key_file: A file that holds the key alone; empty for a server that asks for none.
        timeout_s: Seconds to wait for one answer, > 0.
        concurrency: Requests that are under way at once, at least 1.
        retries: How often a request is tried again, >= 0.

    Raises:
        ValueError: A value is out of its range.

    Example:
        >>> EndpointEngine("localhost:8000", "m")
        Traceback (most recent call last):
        ValueError: `engine.url` must begin with http:// or https://, got 'localhost:8000'
    """

    renders: ClassVar[bool] = False

    url: str
    model: str
    api_key_file: str = ""
    timeout_s: float = 120.0
    concurrency: int = 8
    retries: int = 6

    def __post_init__(self) -> None:
        for option, holds, rule in (
            ("url", self.url.startswith(("http://", "https://")), "begin with http:// or https://"),
            ("model", bool(self.model), "not be empty"),
            ("timeout_s", 0 < self.timeout_s < float("inf"), "be finite and > 0"),
            ("concurrency", self.concurrency >= 1, "be at least 1"),
            ("retries", self.retries >= 0, "be >= 0"),
        ):
            if not holds:
                raise ValueError(f"`engine.{option}` must {rule}, got {getattr(self, option)!r}")

    def check(self) -> None:
        """Refuse to begin without the package ``openai`` or the key."""
        if find_spec("openai") is None:
            raise ImportError('EndpointEngine needs one more package: pip install "lit_align[endpoint]"')
        self._key()

    def render(self, prompts: Sequence[SamplePrompt], thinking: bool) -> list[tuple[int, ...]]:
        """Nothing: the server renders the prompts."""
        del thinking
        return [()] * len(prompts)

    def identity(self) -> dict[str, Any]:
        """The model's name; the server may move."""
        return {"engine": type(self).__name__, "url": self.url, "model": self.model}

    def load(self) -> str:
        """Nothing: the weights are the server's."""
        return ""

    def answers(
        self, requests: Sequence[Request], done: Collection[int], decoding: Decoding
    ) -> Generator[list[tuple[int, Answer]]]:
        """See :meth:`Engine.answers`; answers come as the server gives them."""
        from openai import AsyncOpenAI

        waiting = (place for place in range(len(requests)) if place not in done)
        running: dict[asyncio.Task[Answer], int] = {}
        failure: BaseException | None = None
        with asyncio.Runner() as runner:  # cancels on leaving what is still under way
            client = AsyncOpenAI(
                api_key=self._key() or "none", base_url=self.url, timeout=self.timeout_s, max_retries=self.retries
            )
            client.organization = client.project = None  # which it takes from the environment
            loop = runner.get_loop()
            try:
                while True:
                    while failure is None and len(running) < self.concurrency:
                        if (place := next(waiting, None)) is None:
                            break
                        running[loop.create_task(self._answer(client, requests[place], decoding))] = place
                    if not running:
                        break
                    ended, _ = runner.run(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                    places = {running.pop(task): task for task in ended}
                    failure = failure or next(filter(None, (task.exception() for task in ended)), None)
                    # After a failure too: what was under way is answered and kept.
                    if batch := [(place, task.result()) for place, task in places.items() if not task.exception()]:
                        yield batch
            finally:
                runner.run(client.close())
        if failure is not None:
            raise failure

    async def _answer(self, client: AsyncOpenAI, request: Request, decoding: Decoding) -> Answer:
        import openai

        sampling = decoding.sampling
        messages: list[Any] = [{"role": one.role, "content": one.content} for one in request.prompt.messages]
        where = f"{self.url}, prompt {request.prompt.id!r}"
        again = f"after {self.retries} retries"
        try:
            completion = await client.chat.completions.create(
                model=self.model,
                messages=messages,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=decoding.max_new_tokens,
                seed=request_seed(decoding.seed, request.prompt.id, request.number),
                extra_body={
                    "top_k": sampling.top_k or -1,  # -1 is no limit for vLLM and SGLang
                    "min_p": 0.0,
                    "repetition_penalty": 1.0,
                    "skip_special_tokens": False,
                    "chat_template_kwargs": {"enable_thinking": decoding.thinking},
                },
            )
        except openai.APITimeoutError as error:
            raise TimeoutError(
                f"{where}: no answer within {self.timeout_s:g} s, {again}: raise `engine.timeout_s` or lower "
                "`engine.concurrency`"
            ) from error
        except openai.APIConnectionError as error:
            raise ConnectionError(
                f"{where}: cannot be reached {again} ({error.__cause__ or error}): is the server running, and is "
                "`engine.url` its address?"
            ) from error
        except openai.RateLimitError as error:
            raise ConnectionError(
                f"{where}: still rate-limited {again} ({_short(error)}): lower `engine.concurrency` (now "
                f"{self.concurrency}) or raise `engine.retries`"
            ) from error
        except openai.APIStatusError as error:
            raise RuntimeError(f"{where}: {_short(error)}{self._hint(error)}") from error
        except (openai.APIResponseValidationError, ValueError) as error:  # the second where JSON is broken
            raise RuntimeError(f"{where}: answered no JSON ({error}); {self._no_server}") from error
        return self._read(completion, where)

    def _read(self, completion: Any, where: str) -> Answer:
        # The package checks no types: whatever the server sent stands there.
        choices = getattr(completion, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        tokens = getattr(getattr(completion, "usage", None), "completion_tokens", None)
        if message is None or not isinstance(tokens, int):
            lacking = "usage.completion_tokens" if message is not None else "choices"
            raise RuntimeError(f"{where}: answered without {lacking}: {_short(completion)}; {self._no_server}")
        reason, content = getattr(choice, "finish_reason", None), getattr(message, "content", None)
        if reason == "content_filter":
            return Answer(content or "", False, tokens)
        thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
        if reason not in ("stop", "length") or content is None or thought:
            raise RuntimeError(
                f"{where}: gave no plain text (finish_reason {reason!r}, content {_short(content)}, "
                f"{'with' if thought else 'without'} a thought apart): start the server without a tool or reasoning "
                "parser, so that an answer stays as the model wrote it"
            )
        return Answer(str(content), reason == "stop", tokens)

    def _key(self) -> str:
        if not self.api_key_file:
            return ""
        try:
            key = Path(self.api_key_file).expanduser().read_text(encoding="utf-8").strip()
        except OSError as error:
            raise OSError(
                error.errno, f"`engine.api_key_file` {self.api_key_file} cannot be read ({error.strerror})"
            ) from error
        if not key or len(key.split()) > 1 or not key.isascii():
            raise ValueError(f"`engine.api_key_file` {self.api_key_file} must hold the key alone, on one line")
        return key

    def _hint(self, error: Any) -> str:
        if error.status_code == 404:
            return f": does it serve `engine.model` {self.model!r} ({self.url}/models lists), and is /v1 in the url?"
        if error.status_code in (401, 403):
            return ": name a file with the right key in `engine.api_key_file`"
        if error.status_code >= 500:
            return f", after {self.retries} retries: look into the server's log"
        return ": the server refuses this request; is the prompt too long for it?"

    @property
    def _no_server(self) -> str:
        return "`engine.url` must be that of an OpenAI-compatible server, with /v1"


def request_seed(seed: int, prompt: str, number: int) -> int:
    """The seed of one completion, 31 bits, as all servers take it.

    Args:
        seed: Seed of the run.
        prompt: Id of the prompt.
        number: Which of its completions.

    Example:
        >>> request_seed(0, "a", 0) == request_seed(0, "a", 0), request_seed(0, "a", 0) == request_seed(0, "a", 1)
        (True, False)
    """
    digest = hashlib.sha256(f"{seed}/{number}/{prompt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

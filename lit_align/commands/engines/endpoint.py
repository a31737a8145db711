"""Answers from an OpenAI-compatible server."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lit_align.commands.engines.contract import Answer, Decoding, Engine, Request
from lit_align.evals.chat_server import ChatServer, first_choice, short
from lit_align.types import SamplePrompt

if TYPE_CHECKING:
    from openai import AsyncOpenAI


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
        self._server  # noqa: B018  refuses values out of range

    def check(self) -> None:
        """Refuse to begin without the package ``openai`` or the key."""
        self._server.check(type(self).__name__)

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
        waiting = (place for place in range(len(requests)) if place not in done)
        yield from self._server.side_by_side(
            waiting, lambda client, place: self._answer(client, requests[place], decoding)
        )

    async def _answer(self, client: AsyncOpenAI, request: Request, decoding: Decoding) -> Answer:
        sampling = decoding.sampling
        where = self._server.where(f"prompt {request.prompt.id!r}")
        completion = await self._server.complete(
            client,
            list(request.prompt.messages),
            where,
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
        return self._read(completion, where)

    def _read(self, completion: Any, where: str) -> Answer:
        choice = first_choice(completion)
        message = getattr(choice, "message", None)
        tokens = getattr(getattr(completion, "usage", None), "completion_tokens", None)
        if message is None or not isinstance(tokens, int):
            lacking = "usage.completion_tokens" if message is not None else "choices"
            raise RuntimeError(f"{where}: answered without {lacking}: {short(completion)}; {self._server.no_server}")
        reason, content = getattr(choice, "finish_reason", None), getattr(message, "content", None)
        if reason == "content_filter":
            return Answer(content or "", False, tokens)
        thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
        if reason not in ("stop", "length") or content is None or thought:
            raise RuntimeError(
                f"{where}: gave no plain text (finish_reason {reason!r}, content {short(content)}, "
                f"{'with' if thought else 'without'} a thought apart): start the server without a tool or reasoning "
                "parser, so that an answer stays as the model wrote it"
            )
        return Answer(str(content), reason == "stop", tokens)

    @property
    def _server(self) -> ChatServer:
        return ChatServer(
            self.url, self.model, self.api_key_file, self.timeout_s, self.concurrency, self.retries, "engine"
        )


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

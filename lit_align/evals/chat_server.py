"""A server that speaks OpenAI's chat-completions protocol: requests side by side, retries, and what errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lit_align.types import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

_SHOWN = 300  # characters of what a server says


@dataclass(frozen=True)
class ChatServer:
    """Where a server is and how it is asked. Needs the extra ``[endpoint]``.

    Rate limits (429), errors of the server (5xx) and timeouts are tried again, each time after twice as long, up to 8
    seconds, or as long as the server asks for.

    Args:
        url: Where the protocol begins, with ``/v1``.
        model: The model's name there.
        api_key_file: A file that holds the key alone; empty for a server that asks for none.
        timeout_s: Seconds to wait for one answer, > 0.
        concurrency: Requests that are under way at once, at least 1.
        retries: How often a request is tried again, >= 0.
        option: The key that these are the options of, for messages.

    Raises:
        ValueError: A value is out of its range.
    """

    url: str
    model: str
    api_key_file: str
    timeout_s: float
    concurrency: int
    retries: int
    option: str

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("url", self.url.startswith(("http://", "https://")), "begin with http:// or https://"),
            ("model", bool(self.model), "not be empty"),
            ("timeout_s", 0 < self.timeout_s < float("inf"), "be finite and > 0"),
            ("concurrency", self.concurrency >= 1, "be at least 1"),
            ("retries", self.retries >= 0, "be >= 0"),
        ):
            if not holds:
                raise ValueError(f"`{self.option}.{name}` must {rule}, got {getattr(self, name)!r}")

    def check(self, asker: str) -> None:
        """Refuse to begin without the package ``openai`` or the key.

        Args:
            asker: Who needs the package, for the message.
        """
        if find_spec("openai") is None:
            raise ImportError(f'{asker} needs one more package: pip install "lit_align[endpoint]"')
        self._key()

    def side_by_side(
        self, places: Iterable[int], ask: Callable[[AsyncOpenAI, int], Awaitable[T]]
    ) -> Generator[list[tuple[int, T]]]:
        """Ask for many things, :attr:`concurrency` at once.

        Args:
            places: What to ask for, in this order.
            ask: Given a client and a place, asks for it.

        Yields:
            Places and what came of them, as the server answers. After a failure what was under way is waited for and
            yielded too, before the failure is raised.
        """
        from openai import AsyncOpenAI

        async def one(client: AsyncOpenAI, place: int) -> T:
            return await ask(client, place)

        waiting = iter(places)
        running: dict[asyncio.Task[T], int] = {}
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
                        running[loop.create_task(one(client, place))] = place
                    if not running:
                        break
                    ended, _ = runner.run(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                    done = {running.pop(task): task for task in ended}
                    failure = failure or next(filter(None, (task.exception() for task in ended)), None)
                    if batch := [(place, task.result()) for place, task in done.items() if not task.exception()]:
                        yield batch
            finally:
                runner.run(client.close())
        if failure is not None:
            raise failure

    async def complete(self, client: AsyncOpenAI, messages: list[Message], where: str, **options: Any) -> Any:
        """One answer of the server, as it sent it: the package checks no types.

        Args:
            client: As :meth:`side_by_side` gives it.
            messages: The turns.
            where: What is asked for, for messages; see :meth:`where`.
            options: Further parts of the request.

        Raises:
            RuntimeError: The server refuses the request, or answers no JSON.
            OSError: It cannot be reached, does not answer in time, or stays rate-limited.
        """
        import openai

        turns: list[Any] = [{"role": one.role, "content": one.content} for one in messages]
        again = f"after {self.retries} retries"
        try:
            return await client.chat.completions.create(model=self.model, messages=turns, **options)
        except openai.APITimeoutError as error:
            raise TimeoutError(
                f"{where}: no answer within {self.timeout_s:g} s, {again}: raise `{self.option}.timeout_s` or lower "
                f"`{self.option}.concurrency`"
            ) from error
        except openai.APIConnectionError as error:
            raise ConnectionError(
                f"{where}: cannot be reached {again} ({error.__cause__ or error}): is the server running, and is "
                f"`{self.option}.url` its address?"
            ) from error
        except openai.RateLimitError as error:
            raise ConnectionError(
                f"{where}: still rate-limited {again} ({short(error)}): lower `{self.option}.concurrency` (now "
                f"{self.concurrency}) or raise `{self.option}.retries`"
            ) from error
        except openai.APIStatusError as error:
            raise RuntimeError(f"{where}: {short(error)}{self._hint(error)}") from error
        except (openai.APIResponseValidationError, ValueError) as error:  # the second where JSON is broken
            raise RuntimeError(f"{where}: answered no JSON ({error}); {self.no_server}") from error

    def where(self, what: str) -> str:
        """The beginning of a message about one request."""
        return f"{self.url}, {what}"

    @property
    def no_server(self) -> str:
        """What to do about something that is no such server."""
        return f"`{self.option}.url` must be that of an OpenAI-compatible server, with /v1"

    def _key(self) -> str:
        if not self.api_key_file:
            return ""
        named = f"`{self.option}.api_key_file` {self.api_key_file}"
        try:
            key = Path(self.api_key_file).expanduser().read_text(encoding="utf-8").strip()
        except OSError as error:
            raise OSError(error.errno, f"{named} cannot be read ({error.strerror})") from error
        if not key or len(key.split()) > 1 or not key.isascii():
            raise ValueError(f"{named} must hold the key alone, on one line")
        return key

    def _hint(self, error: Any) -> str:
        if error.status_code == 404:
            return (
                f": does it serve `{self.option}.model` {self.model!r} ({self.url}/models lists), and is /v1 in the "
                "url?"
            )
        if error.status_code in (401, 403):
            return f": name a file with the right key in `{self.option}.api_key_file`"
        if error.status_code >= 500:
            return f", after {self.retries} retries: look into the server's log"
        return ": the server refuses this request; is the prompt too long for it?"


def first_choice(completion: object) -> Any:
    """The first choice of what a server sent, or None."""
    choices = getattr(completion, "choices", None)
    return choices[0] if isinstance(choices, list) and choices else None


def short(value: object) -> str:
    """What a server says, on one line of limited length."""
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

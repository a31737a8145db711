"""Ratings by a large model behind a server, as MT-Bench asks for them."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from lit_align.evals.chat_server import ChatServer, first_choice, short
from lit_align.evals.generate import SECONDS_BEFORE_PROGRESS
from lit_align.evals.judge.contract import Judged, Scorer
from lit_align.evals.judge.mt_bench_prompts import judge_messages
from lit_align.evals.judge.rating_cache import RatingCache
from lit_align.types import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")  # FastChat's

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EndpointJudge(Scorer):
    """MT-Bench's single-answer grading (Zheng et al. 2023, arXiv:2306.05685) by any OpenAI-compatible server.

    The four official prompts, temperature 0: for the first turn and for the second (with the first one in view), for
    mathematics, reasoning and coding with the reference answers. The rating is the first ``[[x]]`` of what the judge
    says, as FastChat reads it; unlike there a rating outside of 1 to 10, or in single brackets, counts as none. What
    holds no rating is asked again, ``attempts`` times in all; then it is an error. An empty answer is shown to the
    judge as it is. Ratings are kept in ``cache`` by all that decides them, each as soon as it comes: the same answer is
    never paid for twice, and a run that was killed goes on. Rate limits, errors of the server and timeouts are tried
    again with back-off. Needs the extra ``[endpoint]``.

    Args:
        url: Where the protocol begins, with ``/v1``: ``http://localhost:8000/v1``.
        model: The judge's name there.
        api_key_file: A file that holds the key alone; empty for a server that asks for none.
        cache: The file of ratings, made when there is one to keep; empty for none.
        attempts: Requests for one rating until one is found, at least 1.
        max_tokens: Of what the judge says, at least 1; FastChat's 2,048.
        timeout_s: Seconds to wait for one answer, > 0.
        concurrency: Requests that are under way at once, at least 1.
        retries: How often a request that failed is tried again, >= 0.

    Raises:
        ValueError: A value is out of its range.
    """

    url: str
    model: str
    api_key_file: str = ""
    cache: str = "lightning_logs/ratings.sqlite"
    attempts: int = 3
    max_tokens: int = 2048
    timeout_s: float = 120.0
    concurrency: int = 8
    retries: int = 6

    def __post_init__(self) -> None:
        self._server  # noqa: B018  refuses values out of range
        for option in ("attempts", "max_tokens"):
            if getattr(self, option) < 1:
                raise ValueError(f"`scorer.{option}` must be at least 1, got {getattr(self, option)}")

    def measures(self) -> Mapping[str, tuple[float, float]]:
        """The rating."""
        return {"rating": (1.0, 10.0)}

    def identity(self) -> dict[str, str | int]:
        """The judge by name, and the cap; the server may move."""
        return {"scorer": type(self).__name__, "model": self.model, "max_tokens": self.max_tokens}

    def check(self) -> None:
        """Refuse to begin without the package ``openai``, the key, or with a cache that is none."""
        self._server.check(type(self).__name__)
        if self.cache:
            RatingCache(Path(self.cache)).read([])

    def check_asked(self, asked: Sequence[Judged]) -> None:
        """Refuse conversations without a form among the prompts, or without a reference that one needs."""
        for one in asked:
            judge_messages(one)

    def scores(
        self, answers: Sequence[Judged], device: torch.device, *, progress: str | None = None
    ) -> list[dict[str, float]]:
        """See :meth:`Scorer.scores`.

        Raises:
            ValueError: A conversation has no form among the prompts, or lacks a reference.
            RuntimeError: The judge gave no rating, or refuses the request; the message says what it said.
            OSError: The server cannot be reached, does not answer in time or stays rate-limited.
        """
        del device
        asked = [judge_messages(one) for one in answers]  # all of them before anything is paid for
        keys = [self._key(messages) for messages in asked]
        cache = RatingCache(Path(self.cache)) if self.cache else None
        ratings = cache.read(keys) if cache else {}
        first = {key: place for place, key in reversed([*enumerate(keys)])}
        missing = [place for key, place in first.items() if key not in ratings]
        if ratings:
            logger.info(f"{len(first) - len(missing)} of {len(first)} ratings are in {self.cache} already")

        async def ask(client: AsyncOpenAI, place: int) -> tuple[float, str]:
            return await self._rate(client, asked[place], answers[place].id)

        bar = tqdm(
            total=len(first), initial=len(first) - len(missing), desc=progress, unit="rating", leave=False,
            delay=SECONDS_BEFORE_PROGRESS, disable=progress is None,
        )  # fmt: skip
        with bar:
            for batch in self._server.side_by_side(sorted(missing), ask) if missing else ():
                if cache:
                    cache.keep({keys[place]: (self.model, *rated) for place, rated in batch})
                ratings.update({keys[place]: rating for place, (rating, _) in batch})
                bar.update(len(batch))
        return [{"rating": ratings[key]} for key in keys]

    async def _rate(self, client: AsyncOpenAI, messages: list[Message], name: str) -> tuple[float, str]:
        where = self._server.where(f"judging {name!r}")
        said = ""
        for _ in range(self.attempts):
            completion = await self._server.complete(
                client, messages, where, temperature=0.0, max_tokens=self.max_tokens
            )
            message = getattr(first_choice(completion), "message", None)
            if message is None:
                raise RuntimeError(f"{where}: answered without choices: {short(completion)}; {self._server.no_server}")
            said = str(getattr(message, "content", None) or "")
            if (rating := rating_of(said)) is not None:
                return rating, said
        raise RuntimeError(
            f"{where}: gave no rating [[1]] to [[10]] in {self.attempts} attempts, last: {short(said)!r}; take a judge "
            "that keeps to the form, or raise `scorer.attempts` or `scorer.max_tokens`"
        )

    def _key(self, messages: Sequence[Message]) -> str:
        settings: list[Any] = [self.model, 0.0, self.max_tokens, [[one.role, one.content] for one in messages]]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @property
    def _server(self) -> ChatServer:
        return ChatServer(
            self.url, self.model, self.api_key_file, self.timeout_s, self.concurrency, self.retries, "scorer"
        )


def rating_of(said: str) -> float | None:
    """The rating in what a judge says: the first ``[[x]]``; None where there is none or it is not within 1 to 10.

    What stands before ``</think>`` is not looked at.

    Example:
        >>> rating_of("Good. Rating: [[7.5]]"), rating_of("[[11]]"), rating_of("[[N/A]]"), rating_of("Rating: [8]")
        (7.5, None, None, None)
    """
    found = _RATING.search(said.rpartition("</think>")[2])
    return float(found[1]) if found and 1 <= float(found[1]) <= 10 else None

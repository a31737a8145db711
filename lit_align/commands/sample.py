"""``lit-align sample``: completions of a model for the prompts of a source, into a file."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from lit_align.commands.device import device_of, refuse_absent_device, refuse_no_device
from lit_align.commands.engines import Answer, Decoding, Engine, Request
from lit_align.commands.sample_file import (
    Line,
    SampleFile,
    part_of,
    read_manifest,
    refuse_other_manifest,
)
from lit_align.commands.sample_prompts import read_prompts
from lit_align.commands.sole_writer import sole_writer
from lit_align.data.tokenising import BadRows
from lit_align.environment import environment
from lit_align.evals.answering import without_thoughts
from lit_align.evals.judge import Judged, Scorer
from lit_align.evals.sampling import Sampling
from lit_align.types import PromptSource, SamplePrompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Draw completions for the prompts of a source, and write them as JSON Lines.

    A line holds ``id`` and ``sample`` (which of the prompt's completions, from 0), ``source``, ``group``, ``prompt``
    (turns with role and content), ``gold``, ``answer``, ``finished`` (whether the model ended it, not the cap),
    ``tokens`` and ``scores`` (by the source's own metric, where it has one, and then by the scorer, which is not shown
    what stands before ``</think>``), and ``gold_scores``, those of the gold answer, if asked for.
    ``NAME.manifest.json`` beside the file says what they were drawn with.

    While it runs, whole batches are added to ``NAME.jsonl.part``; the same command goes on after a kill. A file that is
    there is never overwritten.

    Args:
        source: Where the prompts come from: any source of conversations, pairs or questions.
        engine: What answers: ``LocalEngine``, or ``EndpointEngine`` for a server.
        out: The file, ``NAME.jsonl``.
        k: Completions of each prompt, at least 1.
        seed: Seed of the sampling, >= 0.
        sampling: How the next token is drawn.
        max_new_tokens: Cap on the length of an answer in tokens, at least 1.
        max_prompt_length: Tokens of a prompt, >= 0; longer prompts are left out and counted. 0 sets no limit.
        limit: The first so many prompts only, at least 1; null takes all.
        bad_rows: What a row does that its source cannot read: ``stop`` the command with its name, or be counted and
            left out (``drop``); as ``data.bad_rows``.
        thinking: The chat template's ``enable_thinking`` switch.
        scorer: What else scores the answers, batch by batch, such as ``RewardModelScorer``; null for none.
        score_gold: Whether the gold answers are scored as the completions are, for pairs whose rejected answer must be
            the worse one (``RejectedSamples.worse_by``).
        scorer_device: Where the scorer's model runs: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is CUDA where there is
            some.

    Raises:
        ValueError: A value is out of its range, several completions are asked for that would be one and the same, or
            a length is to be limited that the engine does not know.
    """

    source: PromptSource
    engine: Engine
    out: str
    k: int = 1
    seed: int = 0
    sampling: Sampling = Sampling()
    max_new_tokens: int = 256
    max_prompt_length: int = 0
    limit: int | None = None
    bad_rows: BadRows = "stop"
    thinking: bool = False
    scorer: Scorer | None = None
    score_gold: bool = False
    scorer_device: str = "auto"

    def __post_init__(self) -> None:
        for option, holds, rule in (
            ("out", self.out.endswith(".jsonl") and len(Path(self.out).name) > len(".jsonl"), "be a name.jsonl"),
            ("k", self.k >= 1, "be at least 1"),
            ("seed", self.seed >= 0, "be >= 0"),
            ("max_new_tokens", self.max_new_tokens >= 1, "be at least 1"),
            ("max_prompt_length", self.max_prompt_length >= 0, "be >= 0"),
            ("limit", self.limit is None or self.limit >= 1, "be at least 1 or null"),
        ):
            if not holds:
                raise ValueError(f"`{option}` must {rule}, got {getattr(self, option)!r}")
        refuse_no_device(self.scorer_device, "scorer_device")
        if self.sampling.is_greedy and self.k > 1:
            raise ValueError(f"`k` = {self.k} with `sampling.temperature` = 0: all would be the same; set `k` to 1")
        if self.max_prompt_length and not self.engine.renders:
            raise ValueError(
                f"`max_prompt_length` = {self.max_prompt_length}: {type(self.engine).__name__} does not know the "
                "lengths of prompts; set it to 0"
            )

    def run(self) -> None:
        """Draw what is missing, and write the file.

        Raises:
            ValueError: The source or the engine refuses a value, the prompts break a rule, or ``out`` was drawn with
                other settings.
            OSError: ``out`` cannot be written, or another process writes it.
        """
        out = Path(self.out)
        self.engine.check()
        if self.scorer is not None:
            refuse_absent_device(self.scorer_device, "scorer_device")
            self.scorer.check()
        requests, manifest = self._requests()
        with sole_writer(out):
            if out.is_dir():
                raise ValueError(f"`out` {out} is a folder; name a file")
            was = read_manifest(out)
            refuse_other_manifest(out, was or {}, manifest)  # before weights are read
            manifest["base_fingerprint"] = self.engine.load()
            refuse_other_manifest(out, was or {}, manifest)
            if out.exists():
                part_of(out).unlink(missing_ok=True)  # a kill came just after the renaming
                logger.info(f"{out}: all {len(requests)} completions are there already; nothing to do")
                return
            command = f"lit-align {shlex.join(sys.argv[1:])}"
            with_what = {"command": command, "engine": repr(self.engine), "scorer": repr(self.scorer)}
            runs = [*(was or {}).get("runs", []), {**with_what, **environment()}]
            keys = [(one.prompt.id, one.number) for one in requests]
            with SampleFile(out, {**manifest, "runs": runs}, keys) as file:
                self._draw(requests, file)
                _tell(file.finish())
        logger.info(f"{out}: {len(requests)} completions")

    def _draw(self, requests: Sequence[Request], file: SampleFile) -> None:
        decoding = Decoding(self.sampling, self.seed, self.max_new_tokens, self.thinking)
        there = len(file.done)
        if there:
            logger.info(f"{file.part}: going on after {there} of {len(requests)} completions")
        # In a file or pipe a line every ten seconds is enough.
        interval = 0.2 if sys.stderr.isatty() else 10.0
        bar = tqdm(
            desc="sampling", total=len(requests), initial=there, unit="completion", mininterval=interval,
            dynamic_ncols=True,
        )  # fmt: skip
        try:
            with bar, closing(self.engine.answers(requests, file.done, decoding)) as batches:
                for batch in batches:
                    file.append(self._lines([requests[place] for place, _ in batch], [answer for _, answer in batch]))
                    now = file.summary()
                    shown = {"unfinished": f"{now['unfinished']:.1%}", "tokens": f"{now['tokens']:.0f}"}
                    bar.set_postfix(shown, refresh=False)
                    bar.update(len(batch))
        finally:
            if len(file.done) < len(requests):
                logger.info(
                    f"{file.saved()} of {len(requests)} completions are saved in {file.part}; the same command goes on "
                    "from there"
                )

    def _lines(self, requests: Sequence[Request], answers: Sequence[Answer]) -> list[Line]:
        lines = [_line(request, answer) for request, answer in zip(requests, answers, strict=True)]
        if self.scorer is not None:
            judged = [
                _judged(request.prompt, f"{request.prompt.id}, sample {request.number}", answer.text)
                for request, answer in zip(requests, answers, strict=True)
            ]
            for line, scores in zip(lines, self._judge(judged), strict=True):
                line["scores"] |= scores
        if self.score_gold:
            prompts = {request.prompt.id: request.prompt for request in requests}
            gold = {name: _own_scores(one, one.gold) for name, one in prompts.items()}
            if self.scorer is not None:
                judged = [_judged(one, f"{name}, gold", one.gold) for name, one in prompts.items()]
                for name, scores in zip(prompts, self._judge(judged), strict=True):
                    gold[name] |= scores
            for line in lines:
                line["gold_scores"] = gold[line["id"]]
        return lines

    def _judge(self, judged: Sequence[Judged]) -> list[dict[str, float]]:
        # A fresh one for each batch: what another batch has left in it must not decide how a resumed run goes on.
        scorer: Scorer = replace(cast(Any, self.scorer))
        return scorer.scores(judged, device_of(self.scorer_device))

    def _requests(self) -> tuple[list[Request], dict[str, Any]]:
        """What is asked for, and the manifest as far as no weights are needed."""
        prompts = read_prompts(self.source, self.limit, self.bad_rows)
        if self.scorer is not None:
            _refuse_names_twice(prompts, self.scorer)
        if self.score_gold:
            _refuse_unscored_gold(prompts, self.scorer)
        rendered = self.engine.render(prompts, self.thinking)
        most = self.max_prompt_length or max(map(len, rendered))
        kept = [(prompt, ids) for prompt, ids in zip(prompts, rendered, strict=True) if len(ids) <= most]
        if not kept:
            raise ValueError(
                f"all {len(prompts)} prompts are over `max_prompt_length` = {most} tokens, the shortest has "
                f"{min(map(len, rendered))}: raise it"
            )
        if self.scorer is not None:
            self.scorer.check_asked([_judged(prompt, prompt.id, "") for prompt, _ in kept])
        too_long = len(prompts) - len(kept)
        told = f"; {too_long} over max_prompt_length = {most} left out" if too_long else ""
        logger.info(f"{len(kept)} prompts, {self.k} completions each{told}")
        text = json.dumps([_line_of_prompt(prompt) for prompt, _ in kept])
        manifest = {
            "format": 1,
            **self.engine.identity(),
            "thinking": self.thinking,
            "sampling": asdict(self.sampling),
            "k": self.k,
            "seed": self.seed,
            "max_new_tokens": self.max_new_tokens,
            "scorer": {"scorer": "none"} if self.scorer is None else self.scorer.identity(),
            "score_gold": self.score_gold,
            "prompts": {
                "n": len(kept),
                "too_long": too_long,
                "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
            },
        }
        return [Request(prompt, number, ids) for prompt, ids in kept for number in range(self.k)], manifest


def _refuse_names_twice(prompts: Sequence[SamplePrompt], scorer: Scorer) -> None:
    names = {name for one in prompts[:1] if one.score is not None for name in one.score("")}
    if twice := sorted(names & set(scorer.measures())):
        raise ValueError(
            f"`scorer` {type(scorer).__name__} measures `{twice[0]}`, as the source's own metric does: the file could "
            "hold only one of the two"
        )


def _refuse_unscored_gold(prompts: Sequence[SamplePrompt], scorer: Scorer | None) -> None:
    if without := [one.id for one in prompts if not one.gold.strip()]:
        raise ValueError(
            f"`score_gold` scores gold answers, but {len(without)} of {len(prompts)} prompts have none, such as "
            f"{without[0]!r}: leave it out, or choose a source with answers"
        )
    if scorer is None and prompts[0].score is None:
        raise ValueError("`score_gold` needs something that scores: the source has no metric, so name a `scorer`")


def _judged(prompt: SamplePrompt, name: str, answer: str) -> Judged:
    return Judged(name, prompt.messages, without_thoughts(answer), prompt.gold)


def _own_scores(prompt: SamplePrompt, answer: str) -> dict[str, float]:
    return {} if prompt.score is None else {name: float(value) for name, value in prompt.score(answer).items()}


def _line_of_prompt(prompt: SamplePrompt) -> Line:
    turns = [{"role": one.role, "content": one.content} for one in prompt.messages]
    return {"id": prompt.id, "source": prompt.source, "group": prompt.group, "prompt": turns, "gold": prompt.gold}


def _line(request: Request, answer: Answer) -> Line:
    prompt = _line_of_prompt(request.prompt)
    return {
        "id": prompt.pop("id"),
        "sample": request.number,
        **prompt,
        "answer": answer.text,
        "finished": answer.finished,
        "tokens": answer.tokens,
        "scores": _own_scores(request.prompt, answer.text),
    }


def _tell(summary: dict[str, Any]) -> None:
    logger.info(f"unfinished: {summary['unfinished']:.1%}; tokens: {summary['tokens']:.1f} on average")
    for name, score in summary["scores"].items():
        logger.info(f"{name}: {score['mean']:.4f} (n = {score['n']})")

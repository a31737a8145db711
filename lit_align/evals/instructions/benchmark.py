"""Prompts with instructions whose following a program can verify."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from lit_align.data.chat import ChatFormat
from lit_align.data.mixture import first_held_out
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import SHARE, Benchmark, Bounds, ItemResult
from lit_align.evals.instructions.baselines import Baselines, baselines
from lit_align.evals.instructions.reading import OWN_FILE, InstructionPrompt, read_prompts
from lit_align.evals.instructions.scoring import followed
from lit_align.models.policy import Policy
from lit_align.types import Message

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InstructionBenchmark(Benchmark):
    """Verifiable instructions in the manner of IFEval (Zhou et al. 2023, arXiv:2311.07911), in its own file or ours.

    Programs check an answer, so no judge is asked; what else it says does not count. The measures are of one prompt:
    ``prompt_strict`` and ``prompt_loose``, 1 where all of its instructions are followed, and ``instruction_strict`` and
    ``instruction_loose``, the share of its instructions that are. Loose means that the answer follows once its first
    line, its last line or ``*`` are taken away. The mean of a prompt measure is the paper's prompt-level accuracy; the
    mean of an instruction measure weighs prompts alike, where the paper's instruction-level accuracy pools all
    instructions and so weighs a prompt with three of them three times.

    ``skill`` is the family of the instruction (the file's name for it up to the colon), or ``several`` for a prompt
    with more than one. The log says what echoing the prompts and the best of some constant answers would score: .000
    and .011 on our own file, .248 and .388 on IFEval's. Needs the extra ``[instructions]`` where language or sentences
    are asked for.

    Args:
        path: A file in IFEval's format, such as its own ``input_data.jsonl``; empty for the prompts that come with the
            package, two thirds English and one third Russian.
        limit: Prompts, at least 1, taken at random; null takes all.
        seed: Which ones ``limit`` takes.
        generation: How the answers are generated.
        name: Names the benchmark in tables, files and log keys.

    Raises:
        ValueError: A value is out of its range.

    Example:
        >>> InstructionBenchmark(limit=5).conditions()["n"]
        5
    """

    measures: ClassVar[Mapping[str, Bounds]] = {
        "prompt_strict": SHARE,
        "prompt_loose": SHARE,
        "instruction_strict": SHARE,
        "instruction_loose": SHARE,
    }

    path: str = ""
    limit: int | None = None
    seed: int = 0
    generation: Generation = Generation(max_new_tokens=512)
    name: str = "instructions"

    def __post_init__(self) -> None:
        for option, holds, rule in (
            ("name", bool(self.name), "not be empty"),
            ("limit", self.limit is None or self.limit >= 1, "be at least 1 or null"),
        ):
            if not holds:
                raise ValueError(f"InstructionBenchmark: {option} must {rule}, got {getattr(self, option)!r}")

    def check(self) -> None:
        """Read the file; see :attr:`prompts` for what is refused."""
        _ = self.prompts

    def conditions(self) -> dict[str, str | int]:
        """Fingerprint of the prompts and their instructions, number of prompts, and how answers are generated."""
        items = [(prompt.key, prompt.text, prompt.describe()) for prompt in self.prompts]
        return {
            "items": hashlib.sha256(json.dumps(items, ensure_ascii=False).encode()).hexdigest()[:16],
            "n": len(items),
            **self.generation.conditions(),
        }

    def published_questions(self) -> list[str]:
        """The prompts."""
        return [prompt.text for prompt in self.prompts]

    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Give every prompt to the model; see :meth:`Benchmark.run`."""
        known = self.baselines
        logger.info(
            f"{self.name}: {len(self.prompts)} prompts; prompt_strict without a model: echo {known.echo:.3f}, best "
            f"constant {known.constant:.3f}"
        )
        asked = ((prompt.key, [Message("user", prompt.text)]) for prompt in self.prompts)
        answers = self.generation.answers(policy, chat, self.generation.render(chat, asked), progress=progress)
        return [
            ItemResult.of(
                answer,
                id=prompt.key,
                cluster=prompt.key,
                skill=prompt.family,
                gold=prompt.describe(),
                scores=followed(prompt, answer.text).scores(),
            )
            for prompt, answer in zip(self.prompts, answers, strict=True)
        ]

    @cached_property
    def prompts(self) -> list[InstructionPrompt]:
        """The prompts in the file's order, read once, so that before and after are the same ones.

        Raises:
            FileNotFoundError, ImportError, ValueError: As of :func:`read_prompts`.
        """
        prompts = read_prompts(Path(self.path) if self.path else OWN_FILE)
        if self.limit is None:
            return prompts
        kept = first_held_out([prompt.key for prompt in prompts], self.limit, self.seed)
        return [prompt for prompt in prompts if prompt.key in kept]

    @cached_property
    def baselines(self) -> Baselines:
        """What the prompts give to those who do not read them."""
        return baselines(self.prompts)

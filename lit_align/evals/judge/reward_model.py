"""Scores by a reward model: a sequence classifier with one label."""

from __future__ import annotations

import hashlib
import logging
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import torch
from tqdm import tqdm

from lit_align.evals.generate import SECONDS_BEFORE_PROGRESS
from lit_align.evals.judge.contract import Judged, Scorer
from lit_align.evals.judge.reward_weights import Rendered, RewardFolder, reward_folder
from lit_align.evals.judge.score_map import HIGHEST, LOWEST, ScoreMap

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewardModelScorer(Scorer):
    """Rewards of a model that was trained to tell better answers from worse ones, and what a map makes of them.

    The model reads the whole conversation in its own chat template and gives one number, the ``reward``, whose zero and
    unit mean nothing by themselves: compare rewards of the same prompts, or map them to 1 to 10 by a calibration. An
    empty answer is scored as an empty turn; a conversation that is too long is an error or cut, never silently: how
    many of either there are is logged at each call.

    Args:
        path: A folder or hub id of a sequence-classification model with one label and a chat template.
        score_map: What makes a score of 1 to 10: ``CalibratedMap`` of a file that ``lit-align calibrate`` wrote; null
            reports the reward alone.
        dtype: Number format of the weights.
        batch_size: Conversations that are read at once, at least 1.
        max_length: Tokens that prompt and answer may have together, >= 0; 0 is as many as the model has positions.
        overlong: A conversation over ``max_length`` is an ``error``, or the end of its answer is ``cut`` and the
            measure ``cut`` is 1 for it. A prompt that leaves no room for an answer is an error in any case.

    Raises:
        ValueError: A value is out of its range.
    """

    path: str = "Skywork/Skywork-Reward-V2-Qwen3-0.6B"
    score_map: ScoreMap | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    batch_size: int = 8
    max_length: int = 0
    overlong: Literal["error", "cut"] = "error"

    def __post_init__(self) -> None:
        for option, holds, rule in (
            ("batch_size", self.batch_size >= 1, "be at least 1"),
            ("max_length", self.max_length >= 0, "be >= 0"),
        ):
            if not holds:
                raise ValueError(f"RewardModelScorer: `{option}` must {rule}, got {getattr(self, option)!r}")

    def measures(self) -> Mapping[str, tuple[float, float]]:
        """The score, if there is a map; the reward; whether the answer was cut, if that is allowed."""
        score = {} if self.score_map is None else {self.score_map.measure: (LOWEST, HIGHEST)}
        cut = {"cut": (0.0, 1.0)} if self.overlong == "cut" else {}
        return {**score, "reward": (-math.inf, math.inf), **cut}

    def identity(self) -> dict[str, str | int]:
        """The model by its fingerprint, and what decides how it reads and what becomes of its rewards."""
        return {
            "scorer": type(self).__name__,
            "fingerprint": self._folder.fingerprint(),
            "dtype": self.dtype,
            "max_length": self._limit,
            "overlong": self.overlong,
            "score_map": "none" if self.score_map is None else self.score_map.identity(),
        }

    def check(self) -> None:
        """Refuse a model that is no reward model, and a map that is not its own; reads no weights into memory.

        Raises:
            FileNotFoundError: The model is not there.
            ValueError: It has several labels, no pad token or one that ends a turn, or no chat template, its positions
                are fewer than ``max_length``, or the map was made for another one.
        """
        self._folder.check()
        if self.max_length > self._folder.positions > 0:
            raise ValueError(
                f"reward model {self.path}: has {self._folder.positions} positions, fewer than `max_length` = "
                f"{self.max_length}"
            )
        if self.score_map is not None:
            self.score_map.check(self._folder.fingerprint())

    def check_asked(self, asked: Sequence[Judged]) -> None:
        """Refuse prompts that leave no room for an answer, or that the model's chat template refuses."""
        for one in asked:
            self._folder.render(one, self._limit, cut=self.overlong == "cut")

    def scores(
        self, answers: Sequence[Judged], device: torch.device, *, progress: str | None = None
    ) -> list[dict[str, float]]:
        """See :meth:`Scorer.scores`.

        Raises:
            RuntimeError: The batch does not fit into the device's memory.
            ValueError: A conversation is too long or cannot be rendered, or a reward is no number; names the answer.
        """
        if self.score_map is None:
            _say_that_rewards_are_raw(self.path)
        rendered = [self._folder.render(one, self._limit, cut=self.overlong == "cut") for one in answers]
        self._tell(answers, rendered)
        rewards = self._rewards(rendered, device, progress)
        found = []
        for one, reward, conversation in zip(answers, rewards, rendered, strict=True):
            if not math.isfinite(reward):
                raise ValueError(f"{one.id}: the reward is {reward}: are weights and `dtype` of {self.path} sound?")
            score = {} if self.score_map is None else {self.score_map.measure: self.score_map.score(reward)}
            cut = {"cut": float(conversation.cut)} if self.overlong == "cut" else {}
            found.append({**score, "reward": reward, **cut})
        return found

    @property
    def _folder(self) -> RewardFolder:
        return reward_folder(self.path)

    @property
    def _limit(self) -> int:
        return self.max_length or self._folder.positions

    def _tell(self, answers: Sequence[Judged], rendered: Sequence[Rendered]) -> None:
        empty, cut = sum(not one.answer.strip() for one in answers), sum(one.cut for one in rendered)
        if empty:
            logger.info(f"{empty} of {len(answers)} answers are empty: scored as an empty turn")
        if cut:
            logger.info(f"{cut} of {len(answers)} answers are cut for the reward model at {self._limit} tokens")

    def _rewards(self, rendered: Sequence[Rendered], device: torch.device, progress: str | None) -> list[float]:
        # What is read beside a conversation moves its reward by rounding: read once, equal answers tie exactly.
        names = [_name(one.tokens) for one in rendered]
        new = {name: one.tokens for name, one in zip(names, rendered, strict=True) if name not in self._known}
        if new:
            read = self._read(sorted(new.values(), key=lambda row: (len(row), row)), device, progress)
            self._known.update({_name(row): reward for row, reward in read.items()})
        return [self._known[name] for name in names]

    @cached_property
    def _known(self) -> dict[bytes, float]:
        return {}  # by hash: a run scores tens of thousands of conversations, of some 20 kB as tuples

    @torch.inference_mode()
    def _read(
        self, rows: Sequence[tuple[int, ...]], device: torch.device, progress: str | None
    ) -> dict[tuple[int, ...], float]:
        """The rewards of conversations of rising length."""
        model: Any = self._folder.model(self.dtype)
        pad = self._folder.pad_id
        rewards: dict[tuple[int, ...], float] = {}
        bar = tqdm(
            total=len(rows), desc=progress, unit="answer", delay=SECONDS_BEFORE_PROGRESS, leave=False,
            disable=progress is None,
        )  # fmt: skip
        try:
            model.to(device)
            with bar, torch.autocast(device.type, enabled=False):
                for start in range(0, len(rows), self.batch_size):
                    batch = rows[start : start + self.batch_size]
                    longest = len(batch[-1])
                    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in batch], device=device)
                    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch], device=device)
                    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
                    rewards |= dict(zip(batch, logits[:, 0].double().tolist(), strict=True))
                    bar.update(len(batch))
        except torch.OutOfMemoryError as error:
            raise RuntimeError(
                f"reward model {self.path}: {self.batch_size} conversations do not fit into the memory of {device}: "
                "lower its `batch_size` or `max_length`"
            ) from error
        finally:
            model.to("cpu")  # the device is the policy's
        return rewards


def _name(tokens: tuple[int, ...]) -> bytes:
    return hashlib.sha256(array("q", tokens).tobytes()).digest()


@cache  # once a process and model
def _say_that_rewards_are_raw(path: str) -> None:
    logger.info(
        f"reward model {path}: no calibration, so only raw rewards and win rates are reported; `lit-align calibrate` "
        "makes one for scores of 1 to 10"
    )

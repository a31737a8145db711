"""Conversations to windows for supervised fine-tuning."""

from __future__ import annotations

import hashlib
import logging
import signal
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import lightning as L  # noqa: N812  the name that its users know
import numpy as np
import torch
from torch.utils.data import DataLoader

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mixture import split
from lit_align.data.packing import WindowPlan, WindowSampler
from lit_align.data.tokenising import BadRows, Tokenising
from lit_align.data.windows import Tree, WindowDataset
from lit_align.forest import TokenForest, TokenPath, Window
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Conversation, ConversationSource

logger = logging.getLogger(__name__)  # the command keeps all ranks but the first silent


def _as_it_is(window: Any) -> Any:
    return window


def _leave_interrupts_to_the_trainer(worker: int) -> None:
    # A terminal sends Ctrl-C to all processes; the window that is being computed needs its workers to the end.
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class SFTDataModule(L.LightningDataModule):
    """Windows of conversations for SFT, packed into token forests.

    Args:
        base: The base whose tokenizer and chat template are used; linked to ``model.base``.
        sources: Where the trained conversations come from.
        val_sources: Where the validation conversations come from; none splits ``val_fraction`` off ``sources``.
        val_fraction: Share of ``sources`` for validation, by content hash, in [0, 1).
        replay: Where the replayed conversations come from; their answers carry the anchor, no NLL.
        replay_share: Replayed conversations per trained one, on top of the window, >= 0.
        window: Trained conversations an optimizer step, over all ranks, > 0.
        token_budget: Tokens a forest (one forward and backward pass), > 0; sets the memory, not the result.
        lengths: Token limits of an example.
        turns: Train ``all`` assistant turns or the ``last`` one of each conversation.
        thinking: The template's thinking switch for prompts.
        bad_rows: What a row does that the chat format refuses (a control token in a text, a blank answer, roles out of
            order): ``stop`` the run with its name, or be counted and left out (``drop``).
        split_seed: Seed of the split, apart from ``seed`` so that runs with several seeds have one validation set.
        seed: Seed of the order.
        workers: Processes that build forests ahead.

    Raises:
        ValueError: A value is out of its range; a source's row breaks a rule; no example is left; an example is over
            the token budget.
    """

    def __init__(
        self,
        base: str = "tiny-qwen3",
        sources: list[ConversationSource] | None = None,
        val_sources: list[ConversationSource] | None = None,
        val_fraction: float = 0.0,
        replay: list[ConversationSource] | None = None,
        replay_share: float = 0.0,
        window: int = 16,
        token_budget: int = 8192,
        lengths: Lengths = Lengths(),
        turns: Literal["all", "last"] = "all",
        thinking: bool = False,
        bad_rows: BadRows = "stop",
        split_seed: int = 0,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        for name, value, holds, rule in (
            ("window", window, window > 0, "> 0"),
            ("token_budget", token_budget, token_budget > 0, "> 0"),
            ("replay_share", replay_share, replay_share >= 0, ">= 0"),
            ("val_fraction", val_fraction, 0 <= val_fraction < 1, "in [0, 1)"),
            ("workers", workers, workers >= 0, ">= 0"),
        ):
            if not holds:
                raise ValueError(f"`data.{name}` must be {rule}, got {value}")
        if not sources:
            raise ValueError("`data.sources` is empty: name at least one source of conversations")
        if bool(replay) != (replay_share > 0):
            raise ValueError(
                f"`data.replay` ({len(replay or [])} sources) and `data.replay_share` ({replay_share}) go together: "
                "set both or none"
            )
        self.base, self.sources, self.val_sources, self.replay = base, sources, val_sources or [], replay or []
        self.val_fraction, self.replay_share, self.window = val_fraction, replay_share, window
        self.token_budget, self.lengths, self.turns, self.thinking = token_budget, lengths, turns, thinking
        self.bad_rows, self.split_seed, self.seed, self.workers = bad_rows, split_seed, seed, workers
        self.chat: ChatFormat
        self._trained: list[Tree] = []
        self._replayed: list[Tree] = []
        self._validation: list[Tree] = []

    @property
    def windows_per_epoch(self) -> int:
        """Optimizer steps of one pass over the trained conversations."""
        return self._plan.windows_per_epoch

    @property
    def _plan(self) -> WindowPlan:
        return WindowPlan(len(self._trained), len(self._replayed), self.window, self.replay_share, self.seed)

    def setup(self, stage: str) -> None:
        """Read, split and tokenise all conversations, once; says what was kept, cut and dropped."""
        del stage
        if self._trained:
            return
        logger.info("reading conversations; tokenizer of %s", self.base)
        self.chat = ChatFormat(load_tokenizer(self.base), thinking=self.thinking)
        sides: dict[str, list[Conversation]] = {"training": [], "validation": []}
        parts = {side: self._tokenising(side, 1.0) for side in sides}
        for source in self.sources:
            # Split before anything is drawn: what a source draws moves no conversation to the other side.
            halves = split(source.conversations(), self.val_fraction, self.split_seed)
            for side, half in zip(sides, halves, strict=True):
                sides[side] += source.draw(half, parts[side].trained_tokens) if half else []
        if self.val_fraction and not sides["validation"]:
            raise ValueError(
                f"`data.val_fraction` = {self.val_fraction} holds out none of {len(sides['training'])} conversations; "
                "raise it, name `data.val_sources`, or set it to 0"
            )
        sides["validation"] += self._drawn(self.val_sources, parts["validation"])
        self._trained = parts["training"].trees(sides["training"])
        self._validation = parts["validation"].trees(sides["validation"]) if sides["validation"] else []
        if self.replay:
            part = self._tokenising("replay", 0.0)
            self._replayed = part.trees(self._drawn(self.replay, part))

    def _tokenising(self, part: str, weight: float) -> Tokenising:
        return Tokenising(self.chat, self.lengths, self.turns, self.token_budget, weight, self.bad_rows, part)

    @staticmethod
    def _drawn(sources: Sequence[ConversationSource], part: Tokenising) -> list[Conversation]:
        return [one for source in sources for one in source.draw(source.conversations(), part.trained_tokens)]

    def train_dataloader(self) -> DataLoader[Window]:
        """Windows of this rank, from the position at which the run stands."""
        assert self.trainer is not None
        trainer = self.trainer
        sampler = WindowSampler(self.windows_per_epoch, lambda: trainer.global_step)
        return self._loader(self._dataset(self._trained, self._replayed, self._plan), sampler)

    def val_dataloader(self) -> DataLoader[Window] | list[DataLoader[Window]]:
        """Windows of the validation conversations, in a fixed order; none without validation data."""
        if not self._validation:
            return []
        plan = WindowPlan(len(self._validation), 0, self.window, 0.0, 0)
        return self._loader(self._dataset(self._validation, [], plan), None)

    def _dataset(self, trained: list[Tree], replayed: list[Tree], plan: WindowPlan) -> WindowDataset:
        trainer = self.trainer
        assert trainer is not None
        return WindowDataset(trained, replayed, plan, self.token_budget, trainer.global_rank, trainer.world_size)

    def _loader(self, dataset: WindowDataset, sampler: WindowSampler | None) -> DataLoader[Window]:
        # A generator of its own: a loader otherwise draws from the global random numbers each time it is opened.
        generator = torch.Generator()
        return DataLoader(
            dataset, None, sampler=sampler, num_workers=self.workers, collate_fn=_as_it_is, generator=generator,
            worker_init_fn=_leave_interrupts_to_the_trainer,
        )  # fmt: skip

    def largest_forest(self) -> TokenForest:
        """A forest no smaller than any that packing makes: the longest conversations, up to the budget.

        Where the next one does not fit, others might fill the rest of the budget to the last token; it is filled with
        repeated tokens, in place of a search for them.
        """
        pool = sorted([*self._trained, *self._replayed], key=lambda tree: (-tree.size, tree.name))
        per_window = min(len(pool), self.window + int(np.ceil(self.window * self.replay_share)))
        chosen: list[Tree] = []
        room = self.token_budget
        for tree in pool[:per_window]:
            if tree.size > room:
                path = max(tree.paths, key=lambda path: len(path.tokens))
                rest = TokenPath(np.resize(path.tokens, room), np.resize(path.classes, room), path.example, path.weight)
                return TokenForest.build([*(tree.paths for tree in chosen), *([[rest]] if room else [])])
            chosen.append(tree)
            room -= tree.size
        return TokenForest.build([tree.paths for tree in chosen])

    def probe_forest(self) -> TokenForest:
        """Two short conversations, of several turns if there are any; one group, so that there is a branch to check."""
        pool = sorted(self._trained, key=lambda tree: (len(tree.paths) == 1, tree.size, tree.name))
        return TokenForest.build([[path for tree in pool[:2] for path in tree.paths]])

    def identity(self) -> dict[str, str]:
        """Fingerprint of the tokens, and what decides which of them share a window."""
        return {
            "data": self._fingerprint,
            "data.window": str(self.window),
            "data.token_budget": str(self.token_budget),
            "data.replay_share": str(self.replay_share),
            "data.seed": str(self.seed),
        }

    @cached_property
    def _fingerprint(self) -> str:
        # Once a run: each checkpoint asks for it, and the tokens of a large set take seconds to hash.
        digest = hashlib.sha256()
        for trees in (self._trained, self._replayed):
            digest.update(f"{len(trees)} conversations\n".encode())
            for tree in trees:
                # The lengths come first: without them two divisions of the same tokens would have one hash.
                digest.update(f"{[len(path.tokens) for path in tree.paths]} {tree.group}\n".encode())
                for path in tree.paths:
                    digest.update(path.tokens.tobytes() + path.classes.tobytes())
        return digest.hexdigest()[:16]

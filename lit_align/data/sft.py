"""Conversations to windows for supervised fine-tuning."""

from __future__ import annotations

import logging
from functools import partial
from typing import Literal

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.mixture import split
from lit_align.data.packing import WindowPlan
from lit_align.data.part import BadRows, Workshop, prepared
from lit_align.data.prepared.prepared import Prepared
from lit_align.data.tokenising import Tokenising
from lit_align.data.trees import ConversationTrees
from lit_align.data.window_module import WindowDataModule, refuse_mixture
from lit_align.tokenizer import load_tokenizer
from lit_align.types import ConversationSource, Outline

logger = logging.getLogger(__name__)  # the command keeps all ranks but the first silent


class SFTDataModule(WindowDataModule):
    """Windows of conversations for SFT, packed into token forests.

    The conversations of a group (the questions about one table) share their context: a group is never parted by the
    split, and its conversations stand side by side in the order of an epoch, so that they meet in a window.

    Args:
        base: The base whose tokenizer and chat template are used; linked to ``model.base``.
        sources: Where the trained conversations come from.
        mix: True shares of the sources in what is trained: ``mix: {weights: {reddit: 0.5, finance: 0.5}}``; null trains
            all of each.
        val_sources: Where the validation conversations come from; none splits ``val_fraction`` off ``sources``.
        val_fraction: Share of ``sources`` for validation, by a hash of the group or of the content, in [0, 1).
        replay: Where the replayed conversations come from; their answers carry the anchor, no NLL.
        replay_share: Replayed conversations per trained one, on top of the window, >= 0.
        window: Trained conversations an optimizer step, over all ranks, > 0.
        token_budget: Tokens a forest (one forward and backward pass), > 0; sets the memory, not the result.
        lengths: Token limits of an example.
        turns: Train ``all`` assistant turns or the ``last`` one of each conversation.
        thinking: The template's thinking switch for prompts.
        bad_rows: What a row does that its source cannot read (a blank answer, an unknown role) or that the chat format
            refuses (a control token in a text, roles out of order): ``stop`` the run with its name, or be counted and
            left out (``drop``).
        split_seed: Seed of the split, apart from ``seed`` so that runs with several seeds have one validation set.
        seed: Seed of the order.
        workers: Processes that build forests ahead.
        processes: Processes that tokenise before training, >= 1; null takes one, and all processors for more than
            20,000 examples. The result is the same.
        cache: Folder in which the tokenised data are kept, so that a later run with the same sources, files, base and
            settings begins at once; null keeps none. What makes windows (``window``, ``token_budget``, the seeds of
            orders) may change between the runs. A folder is as large as its tokens, 5 bytes each.

    Attributes:
        trained_groups: Groups on the training side of the split, once the conversations are read.
        trained_questions: What these and the replayed conversations open with, as
            :func:`~lit_align.data.mixture.questions_of` names it.

    Raises:
        ValueError: A value is out of its range; a source's row breaks a rule; no example is left; an example is over
            the token budget.
    """

    holds = "conversations"

    def __init__(
        self,
        base: str = "tiny-qwen3",
        sources: list[ConversationSource] | None = None,
        mix: Mix | None = None,
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
        processes: int | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__(token_budget, workers, processes, cache)
        refuse_mixture(window, val_fraction, replay or [], replay_share)
        if not sources:
            raise ValueError("`data.sources` is empty: name at least one source of conversations")
        self.base, self.sources, self.val_sources, self.replay = base, sources, val_sources or [], replay or []
        self.val_fraction, self.replay_share, self.window = val_fraction, replay_share, window
        self.mix, self.lengths, self.turns, self.thinking = mix, lengths, turns, thinking
        self.bad_rows, self.split_seed, self.seed = bad_rows, split_seed, seed

    @property
    def _plan(self) -> WindowPlan:
        trained, replayed = self._trained, self._replayed
        return WindowPlan(len(trained), len(replayed), self.window, self.replay_share, self.seed, trained.leaders)

    @property
    def _validation_plan(self) -> WindowPlan:
        return WindowPlan(len(self._validation), 0, self.window, 0.0, 0, self._validation.leaders)

    def setup(self, stage: str) -> None:
        """Prepare all conversations, once, or find what an earlier run kept; says what was kept, cut and dropped."""
        del stage
        if self._trained:
            return
        logger.info("reading conversations; tokenizer of %s", self.base)
        self.chat = ChatFormat(load_tokenizer(self.base), thinking=self.thinking)
        self._take(self._prepared(), partial(ConversationTrees, budget=self.token_budget))

    def _prepare(self, workshop: Workshop) -> Prepared:
        """Read, split, draw and tokenise all conversations."""
        training, validation = (self._tokenising(part, 1.0, workshop) for part in ("training", "validation"))
        # Of each source; split before anything is drawn: what is drawn moves no conversation to the other side.
        trained: list[list[Outline]] = []
        held_out: list[Outline] = []
        all_read = [training.read(source.stream(training.refuse)) for source in self.sources]
        training.refuse_absent(self.sources, all_read)
        for source, read in zip(self.sources, all_read, strict=True):
            own, other = split(read, self.val_fraction, self.split_seed)
            trained.append(source.draw(own, training.trained_tokens) if own else [])
            held_out += source.draw(other, validation.trained_tokens) if other else []
        every = [one for source in trained for one in source]
        if self.val_fraction and every and not held_out:
            raise ValueError(
                f"`data.val_fraction` = {self.val_fraction} holds out none of {len(every)} conversations; "
                "raise it, name `data.val_sources`, or set it to 0"
            )
        epoch = every
        if self.mix is not None and every:
            epoch = self.mix.drawn(trained, training.trained_tokens, training.say)
            training.pass_over(every)
        held_out += validation.drawn(self.val_sources)
        parts = {"training": (training, epoch)}
        if held_out or self.val_sources:  # all of whose rows may have been refused
            parts["validation"] = validation, held_out
        if self.replay:
            replay = self._tokenising("replay", 0.0, workshop)
            parts["replay"] = replay, replay.drawn(self.replay)
        return prepared(parts, every)

    def _tokenising(self, part: str, weight: float, workshop: Workshop) -> Tokenising:
        return Tokenising(self.chat, self.lengths, self.turns, self.token_budget, weight, self.bad_rows, part, workshop)

    def identity(self) -> dict[str, str]:
        """Fingerprint of the tokens, and what decides which of them share a window."""
        return {
            "data": self._fingerprint,
            "data.window": str(self.window),
            "data.token_budget": str(self.token_budget),
            "data.replay_share": str(self.replay_share),
            "data.seed": str(self.seed),
            **({"data.mix": repr(self.mix)} if self.mix else {}),
        }

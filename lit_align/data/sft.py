"""Conversations to windows for supervised fine-tuning."""

from __future__ import annotations

import logging
from typing import Literal

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.mixture import group_of, questions_of, split
from lit_align.data.packing import WindowPlan
from lit_align.data.tokenising import BadRows, Tokenising
from lit_align.data.window_module import WindowDataModule, refuse_mixture
from lit_align.data.windows import leaders
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Conversation, ConversationSource

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
    ) -> None:
        super().__init__(token_budget, workers)
        refuse_mixture(window, val_fraction, replay or [], replay_share)
        if not sources:
            raise ValueError("`data.sources` is empty: name at least one source of conversations")
        self.base, self.sources, self.val_sources, self.replay = base, sources, val_sources or [], replay or []
        self.val_fraction, self.replay_share, self.window = val_fraction, replay_share, window
        self.mix, self.lengths, self.turns, self.thinking = mix, lengths, turns, thinking
        self.bad_rows, self.split_seed, self.seed = bad_rows, split_seed, seed
        self.chat: ChatFormat
        self.trained_groups: frozenset[str] = frozenset()
        self.trained_questions: frozenset[str] = frozenset()

    @property
    def _plan(self) -> WindowPlan:
        trained, replayed = self._trained, self._replayed
        return WindowPlan(len(trained), len(replayed), self.window, self.replay_share, self.seed, leaders(trained))

    @property
    def _validation_plan(self) -> WindowPlan:
        return WindowPlan(len(self._validation), 0, self.window, 0.0, 0, leaders(self._validation))

    def setup(self, stage: str) -> None:
        """Read, split and tokenise all conversations, once; says what was kept, cut and dropped."""
        del stage
        if self._trained:
            return
        logger.info("reading conversations; tokenizer of %s", self.base)
        self.chat = ChatFormat(load_tokenizer(self.base), thinking=self.thinking)
        # Of each source; split before anything is drawn: what is drawn moves no conversation to the other side.
        sides: dict[str, list[list[Conversation]]] = {"training": [], "validation": []}
        parts = {side: self._tokenising(side, 1.0) for side in sides}
        for source in self.sources:
            halves = split(source.usable(parts["training"].refuse), self.val_fraction, self.split_seed)
            for side, half in zip(sides, halves, strict=True):
                sides[side].append(source.draw(half, parts[side].trained_tokens) if half else [])
        training, validation = ([one for source in half for one in source] for half in sides.values())
        if self.val_fraction and training and not validation:
            raise ValueError(
                f"`data.val_fraction` = {self.val_fraction} holds out none of {len(training)} conversations; "
                "raise it, name `data.val_sources`, or set it to 0"
            )
        self.trained_groups = frozenset(group_of(one) for one in training)
        self.trained_questions = questions_of(training)
        if self.mix is not None and training:
            drawn = self.mix.drawn(sides["training"], parts["training"].trained_tokens, parts["training"].say)
            parts["training"].pass_over(training)
            training = drawn
        validation += parts["validation"].drawn(self.val_sources)
        self._trained = parts["training"].trees(training)
        wanted = validation or self.val_sources  # all of whose rows may have been refused
        self._validation = parts["validation"].trees(validation) if wanted else []
        if self.replay:
            part = self._tokenising("replay", 0.0)
            replayed = part.drawn(self.replay)
            self.trained_questions |= questions_of(replayed)
            self._replayed = part.trees(replayed)

    def _tokenising(self, part: str, weight: float) -> Tokenising:
        return Tokenising(self.chat, self.lengths, self.turns, self.token_budget, weight, self.bad_rows, part)

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

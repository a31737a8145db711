"""Preference pairs to windows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.mixture import is_held_out
from lit_align.data.packing import GroupPlan
from lit_align.data.pair_tokenising import PairTokenising
from lit_align.data.part import BadRows, Part, Workshop, prepared
from lit_align.data.prepared.prepared import Prepared
from lit_align.data.tokenising import Tokenising
from lit_align.data.trees import PairTrees, Trees
from lit_align.data.window_module import WindowDataModule, refuse_mixture
from lit_align.tokenizer import load_tokenizer
from lit_align.types import ConversationSource, Outline, PairSource

logger = logging.getLogger(__name__)


class PreferenceDataModule(WindowDataModule):
    """Windows of preference pairs, packed into token forests.

    The two answers of a pair share its prompt; the pairs of a group (the questions about one table) share their
    context. A group is never parted by the split, and stays in one window and one forest as long as it is neither
    larger than ``window`` pairs nor than ``token_budget`` tokens. A window closes at the group that brings it to the
    number of pairs asked for or over; the log says how many that makes, and the loss divides by the exact number.

    Args:
        base: The base whose tokenizer and chat template are used; linked to ``model.base``.
        sources: Where the pairs come from.
        mix: True shares of the sources in what is trained: ``mix: {weights: {reddit: 0.5, finance: 0.5}}``; null trains
            all of each.
        val_sources: Where validation pairs come from; none splits ``val_fraction`` off ``sources``.
        val_fraction: Share of the groups of ``sources`` for validation, by a hash of their names, in [0, 1).
        replay: Where replayed conversations come from; all their answers carry ``model.anchor``, no pair loss.
        replay_share: Replayed conversations per pair, on top of the window, >= 0.
        window: Pairs an optimizer step, over all ranks, > 0.
        token_budget: Tokens a forest (one forward and backward pass), > 0; sets the memory, not the result.
        lengths: Token limits of prompt and answer; a pair of which one answer is dropped is dropped.
        thinking: The template's thinking switch for prompts.
        bad_rows: What a row does that its source cannot read (a missing column, a blank answer), whose answers are
            equal, or that the chat format refuses (a control token in a text, roles out of order): ``stop`` the run
            with its name, or be counted and left out (``drop``). A broken file of ``TATQA`` or of samples stops
            the run in any case.
        split_seed: Seed of the split, apart from ``seed`` so that runs with several seeds have one validation set.
        seed: Seed of the order.
        workers: Processes that build forests ahead.
        processes: Processes that tokenise before training, >= 1; null takes one, and all processors for more than
            20,000 examples. The result is the same.
        cache: Folder in which the tokenised data are kept, so that a later run with the same sources, files, base and
            settings begins at once; null keeps none. What makes windows (``window``, ``token_budget``, the seeds of
            orders) may change between the runs. A folder is as large as its tokens, 5 bytes each.

    Attributes:
        trained_groups: Groups on the training side of the split, once the pairs are read.
        trained_questions: What these and the replayed conversations open with, as
            :func:`~lit_align.data.mixture.questions_of` names it.

    Raises:
        ValueError: A value is out of its range; a source's row breaks a rule; no pair is left; a pair is over the
            token budget.
    """

    holds = "pairs"

    def __init__(
        self,
        base: str = "tiny-qwen3",
        sources: list[PairSource] | None = None,
        mix: Mix | None = None,
        val_sources: list[PairSource] | None = None,
        val_fraction: float = 0.0,
        replay: list[ConversationSource] | None = None,
        replay_share: float = 0.0,
        window: int = 32,
        token_budget: int = 8192,
        lengths: Lengths = Lengths(),
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
            raise ValueError("`data.sources` is empty: name at least one source of preference pairs")
        self.base, self.sources, self.val_sources, self.replay = base, sources, val_sources or [], replay or []
        self.val_fraction, self.replay_share, self.window = val_fraction, replay_share, window
        self.mix, self.lengths, self.thinking = mix, lengths, thinking
        self.bad_rows, self.split_seed, self.seed = bad_rows, split_seed, seed

    def setup(self, stage: str) -> None:
        """Prepare all pairs, once, or find what an earlier run kept; says what was kept, cut and dropped."""
        del stage
        if self._trained:
            return
        logger.info("reading preference pairs; tokenizer of %s", self.base)
        self.chat = ChatFormat(load_tokenizer(self.base), thinking=self.thinking)
        self._take(self._prepared(), partial(PairTrees, window=self.window, budget=self.token_budget))
        plan = self._plan
        sizes = plan.held()
        logger.info(
            f"training: {sum(plan.counts)} pairs in {len(plan.counts)} groups; {plan.windows_per_epoch} windows an "
            f"epoch, of {min(sizes)} to {max(sizes)} pairs (asked for: {self.window})"
        )

    def _prepare(self, workshop: Workshop) -> Prepared:
        """Read, split, draw and tokenise all pairs."""
        training, validation = (self._tokenising(part, workshop) for part in ("training", "validation"))
        by_source = self._side(False, training, training.refuse)
        every = [one for source in by_source for one in source]
        # A row that cannot be read is on neither side; it was refused while the first one was read.
        held_out = self._side(True, validation, lambda *_: None) if self.val_fraction else [[] for _ in by_source]
        both = [own + other for own, other in zip(by_source, held_out, strict=True)]
        training.refuse_absent(self.sources, both)
        checked = [one for source in held_out for one in source]
        if self.val_fraction and every and not checked:
            raise ValueError(
                f"`data.val_fraction` = {self.val_fraction} holds out none of {len(every)} pairs; raise it, name "
                "`data.val_sources`, or set it to 0"
            )
        epoch = every
        if self.mix is not None and every:
            # After the split: what is drawn moves no pair to the other side.
            epoch = self.mix.drawn(by_source, training.trained_tokens, training.say)
            training.pass_over(every)
        for source in self.val_sources:
            checked += validation.read(source.stream(lambda _: True, validation.refuse))
        parts: dict[str, tuple[Part, list[Outline]]] = {"training": (training, epoch)}
        if checked or self.val_sources:  # all of whose rows may have been refused
            parts["validation"] = validation, checked
        if self.replay:
            replay = Tokenising(
                self.chat, self.lengths, "all", self.token_budget, 0.0, self.bad_rows, "replay", workshop
            )
            parts["replay"] = replay, replay.drawn(self.replay)
        return prepared(parts, every)

    def _side(
        self, held_out: bool, part: PairTokenising, refuse: Callable[[str, ValueError], None]
    ) -> list[list[Outline]]:
        """The pairs of each source on one side of the split."""

        def keep(group: str) -> bool:
            return is_held_out(group, self.val_fraction, self.split_seed) == held_out

        return [part.read(source.stream(keep, refuse)) for source in self.sources]

    def _tokenising(self, part: str, workshop: Workshop) -> PairTokenising:
        return PairTokenising(self.chat, self.lengths, self.window, self.token_budget, self.bad_rows, part, workshop)

    @property
    def plan(self) -> GroupPlan:
        """Groups of each window of the run, once the pairs are read."""
        return self._plan

    @property
    def all_trees(self) -> tuple[Trees, Trees, Trees]:
        """What is trained, replayed and held out, once the pairs are read."""
        return self._trained, self._replayed, self._validation

    @property
    def _plan(self) -> GroupPlan:
        return GroupPlan(pair_counts(self._trained), self.window, self.seed, len(self._replayed), self.replay_share)

    @property
    def _validation_plan(self) -> GroupPlan:
        return GroupPlan(pair_counts(self._validation), self.window, 0)

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


def pair_counts(trees: Trees) -> tuple[int, ...]:
    """Pairs that each tree holds."""
    return tuple((trees.path_counts // 2).tolist())

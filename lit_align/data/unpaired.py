"""Rated answers (unpaired preference data) to windows."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import partial

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.mixture import is_held_out
from lit_align.data.packing import GroupPlan
from lit_align.data.part import BadRows, Workshop, prepared
from lit_align.data.prepared.prepared import Prepared
from lit_align.data.rated_tokenising import RatedTokenising, RatedTrees
from lit_align.data.trees import Trees
from lit_align.data.window_module import WindowDataModule, refuse_mixture
from lit_align.rated import RatedSource
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Outline

logger = logging.getLogger(__name__)


class UnpairedDataModule(WindowDataModule):
    """Windows of answers that are good or bad, each on its own; for :class:`~lit_align.modules.kto.KTOModule`.

    Under the prompt of each answer stands a second one that answers another prompt, from which KTO estimates how far
    the policy has moved (:func:`~lit_align.data.mismatched.mismatches` says which); it is never trained. The answers to
    a prompt share it, those of a group (the questions about one table) their context. A group is never parted by the
    split, and stays in one window and one forest as long as it is neither larger than ``window`` answers nor than
    ``token_budget`` tokens. A window closes at the group that brings it to the number of answers asked for or over.

    Args:
        base: The base whose tokenizer and chat template are used; linked to ``model.base``.
        sources: Where the answers come from: ``UnpairedPreferenceFile``, ``RatedSamples``, or pairs taken apart,
            ``UnpairedPairs``.
        mix: True shares of the sources in what is trained: ``mix: {weights: {votes: 0.5, finance: 0.5}}``; null trains
            all of each.
        val_sources: Where validation answers come from; none splits ``val_fraction`` off ``sources``.
        val_fraction: Share of the groups of ``sources`` for validation, by a hash of their names (of the prompt, where
            there is none), in [0, 1).
        window: Answers an optimizer step, over all ranks, > 0; the estimate of the divergence is a mean over as many.
        token_budget: Tokens a forest, mismatched answers included, > 0; sets the memory, not the result.
        lengths: Token limits of prompt and answer; a mismatched answer that does not fit is cut.
        thinking: The template's thinking switch for prompts.
        bad_rows: What a row does that its source cannot read (a missing column, a label that is neither true nor
            false) or that the chat format refuses: ``stop`` the run with its name, or be counted and left out
            (``drop``). A broken file of samples stops the run in any case.
        split_seed: Seed of the split, apart from ``seed`` so that runs with several seeds have one validation set.
        seed: Seed of the order.
        workers: Processes that build forests ahead.
        processes: Processes that tokenise before training, >= 1; null takes one, and all processors for more than
            20,000 examples. The result is the same.
        cache: Folder in which the tokenised data are kept, so that a later run with the same sources, files, base and
            settings begins at once; null keeps none. What makes windows (``window``, ``token_budget``, the seeds of
            orders) may change between the runs. A folder is as large as its tokens, 5 bytes each.

    Attributes:
        trained_groups: Groups on the training side of the split, once the answers are read.
        trained_questions: What these open with, as :func:`~lit_align.data.mixture.questions_of` names it.

    Raises:
        ValueError: A value is out of its range; a source's row breaks a rule; no answer is left, or only good or only
            bad ones, or those of one group; an answer is over the token budget.
    """

    holds = "rated answers"

    def __init__(
        self,
        base: str = "tiny-qwen3",
        sources: list[RatedSource] | None = None,
        mix: Mix | None = None,
        val_sources: list[RatedSource] | None = None,
        val_fraction: float = 0.0,
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
        refuse_mixture(window, val_fraction, [], 0.0)
        if not sources:
            raise ValueError("`data.sources` is empty: name at least one source of rated answers")
        self.base, self.sources, self.val_sources = base, sources, val_sources or []
        self.val_fraction, self.window = val_fraction, window
        self.mix, self.lengths, self.thinking = mix, lengths, thinking
        self.bad_rows, self.split_seed, self.seed = bad_rows, split_seed, seed

    def setup(self, stage: str) -> None:
        """Prepare all answers, once, or find what an earlier run kept; says what was kept, cut and dropped."""
        del stage
        if self._trained:
            return
        logger.info("reading rated answers; tokenizer of %s", self.base)
        self.chat = ChatFormat(load_tokenizer(self.base), thinking=self.thinking)
        longest = self.lengths.max_length
        self._take(self._prepared(), partial(RatedTrees, window=self.window, budget=self.token_budget, longest=longest))
        self._refuse_one_sided()
        plan = self._plan
        sizes = plan.held()
        good, bad = self.rated_counts
        logger.info(
            f"training: {good + bad} answers in {len(plan.counts)} groups, {good} good and {bad} bad; "
            f"{plan.windows_per_epoch} windows an epoch, of {min(sizes)} to {max(sizes)} answers (asked for: "
            f"{self.window})"
        )

    @property
    def rated_counts(self) -> tuple[int, int]:
        """Good and bad answers of an epoch of training."""
        good = sum(self._ratings)
        return good, len(self._ratings) - good

    @property
    def _ratings(self) -> list[bool]:
        """Of the trained answers, in the order of their trees; none before they are set up."""
        return self._trained.ratings if isinstance(self._trained, RatedTrees) else []

    def _refuse_one_sided(self) -> None:
        counts = self.rated_counts
        if 0 in counts:
            there, other = ("good", "bad") if counts[0] else ("bad", "good")
            raise ValueError(
                f"training: all {sum(counts)} answers are {there}, and KTO needs both kinds: name a source with "
                f"{other} ones, or look at its labels; answers that are all good are for SFTDataModule"
            )

    def _prepare(self, workshop: Workshop) -> Prepared:
        """Read, split, draw and tokenise all answers."""
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
                f"`data.val_fraction` = {self.val_fraction} holds out none of {len(every)} answers; raise it, name "
                "`data.val_sources`, or set it to 0"
            )
        epoch = every
        if self.mix is not None and every:
            # After the split: what is drawn moves no answer to the other side.
            epoch = self.mix.drawn(by_source, training.trained_tokens, training.say)
            training.pass_over(every)
        for source in self.val_sources:
            checked += validation.read(source.stream(lambda _: True, validation.refuse))
        parts = {"training": (training, epoch)}
        if checked or self.val_sources:  # all of whose rows may have been refused
            parts["validation"] = validation, checked
        return prepared(parts, every)

    def _side(
        self, held_out: bool, part: RatedTokenising, refuse: Callable[[str, ValueError], None]
    ) -> list[list[Outline]]:
        """The answers of each source on one side of the split."""

        def keep(group: str) -> bool:
            return is_held_out(group, self.val_fraction, self.split_seed) == held_out

        return [part.read(source.stream(keep, refuse)) for source in self.sources]

    def _tokenising(self, part: str, workshop: Workshop) -> RatedTokenising:
        return RatedTokenising(self.chat, self.lengths, self.token_budget, self.bad_rows, part, workshop)

    @property
    def _plan(self) -> GroupPlan:
        return GroupPlan(_counts(self._trained), self.window, self.seed)

    @property
    def _validation_plan(self) -> GroupPlan:
        return GroupPlan(_counts(self._validation), self.window, 0)

    def identity(self) -> dict[str, str]:
        """Fingerprints of the tokens and of the ratings, and what decides which answers share a window."""
        ratings = repr(self._ratings).encode()
        return {
            "data": self._fingerprint,
            "data.ratings": hashlib.sha256(ratings).hexdigest()[:16],
            "data.window": str(self.window),
            "data.token_budget": str(self.token_budget),
            "data.seed": str(self.seed),
            **({"data.mix": repr(self.mix)} if self.mix else {}),
        }


def _counts(trees: Trees) -> tuple[int, ...]:
    return tuple((trees.path_counts // 2).tolist())

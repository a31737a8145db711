"""Rated answers (unpaired preference data) to windows."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.mixture import group_of, is_held_out, questions_of
from lit_align.data.packing import GroupPlan
from lit_align.data.rated_tokenising import RatedTokenising
from lit_align.data.tokenising import BadRows
from lit_align.data.window_module import WindowDataModule, refuse_mixture
from lit_align.data.windows import Tree
from lit_align.tokenizer import load_tokenizer
from lit_align.types import RatedAnswer, RatedSource

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
    ) -> None:
        super().__init__(token_budget, workers)
        refuse_mixture(window, val_fraction, [], 0.0)
        if not sources:
            raise ValueError("`data.sources` is empty: name at least one source of rated answers")
        self.base, self.sources, self.val_sources = base, sources, val_sources or []
        self.val_fraction, self.window = val_fraction, window
        self.mix, self.lengths, self.thinking = mix, lengths, thinking
        self.bad_rows, self.split_seed, self.seed = bad_rows, split_seed, seed
        self.chat: ChatFormat
        self.trained_groups: frozenset[str] = frozenset()
        self.trained_questions: frozenset[str] = frozenset()

    def setup(self, stage: str) -> None:
        """Read, split and tokenise all answers, once; says what was kept, cut and dropped."""
        del stage
        if self._trained:
            return
        logger.info("reading rated answers; tokenizer of %s", self.base)
        self.chat = ChatFormat(load_tokenizer(self.base), thinking=self.thinking)
        training, validation = (self._tokenising(part) for part in ("training", "validation"))
        by_source = self._side(False, training.refuse)
        trained = [one for source in by_source for one in source]
        self.trained_groups = frozenset(map(group_of, trained))
        self.trained_questions = questions_of(trained)
        # A row that cannot be read is on neither side; it was refused while the first one was read.
        held_out = self._side(True, lambda *_: None) if self.val_fraction else []
        validated = [one for source in held_out for one in source]
        if self.val_fraction and trained and not validated:
            raise ValueError(
                f"`data.val_fraction` = {self.val_fraction} holds out none of {len(trained)} answers; raise it, name "
                "`data.val_sources`, or set it to 0"
            )
        if self.mix is not None and trained:
            # After the split: what is drawn moves no answer to the other side.
            drawn = self.mix.drawn(by_source, training.trained_tokens, training.say)
            training.pass_over(trained)
            trained = drawn
        for source in self.val_sources:
            validated += source.usable(lambda _: True, validation.refuse)
        self._trained = training.trees(trained)
        self._refuse_one_sided()
        wanted = validated or self.val_sources  # all of whose rows may have been refused
        self._validation = validation.trees(validated) if wanted else []
        plan = self._plan
        sizes = [
            sum(plan.counts[group] for group in plan.trained_in(window)) for window in range(plan.windows_per_epoch)
        ]
        good, bad = self.rated_counts
        logger.info(
            f"training: {good + bad} answers in {len(plan.counts)} groups, {good} good and {bad} bad; "
            f"{plan.windows_per_epoch} windows an epoch, of {min(sizes)} to {max(sizes)} answers (asked for: "
            f"{self.window})"
        )

    @property
    def rated_counts(self) -> tuple[int, int]:
        """Good and bad answers of an epoch of training."""
        counts = Counter(_ratings(self._trained))
        return counts[True], counts[False]

    def _refuse_one_sided(self) -> None:
        counts = self.rated_counts
        if 0 in counts:
            there, other = ("good", "bad") if counts[0] else ("bad", "good")
            raise ValueError(
                f"training: all {sum(counts)} answers are {there}, and KTO needs both kinds: name a source with "
                f"{other} ones, or look at its labels; answers that are all good are for SFTDataModule"
            )

    def _side(self, held_out: bool, refuse: Callable[[str, ValueError], None]) -> list[list[RatedAnswer]]:
        """The answers of each source on one side of the split."""

        def keep(group: str) -> bool:
            return is_held_out(group, self.val_fraction, self.split_seed) == held_out

        return [source.usable(keep, refuse) for source in self.sources]

    def _tokenising(self, part: str) -> RatedTokenising:
        return RatedTokenising(self.chat, self.lengths, self.window, self.token_budget, self.bad_rows, part)

    @property
    def _plan(self) -> GroupPlan:
        return GroupPlan(_counts(self._trained), self.window, self.seed)

    @property
    def _validation_plan(self) -> GroupPlan:
        return GroupPlan(_counts(self._validation), self.window, 0)

    def identity(self) -> dict[str, str]:
        """Fingerprints of the tokens and of the ratings, and what decides which answers share a window."""
        ratings = repr([*_ratings(self._trained)]).encode()
        return {
            "data": self._fingerprint,
            "data.ratings": hashlib.sha256(ratings).hexdigest()[:16],
            "data.window": str(self.window),
            "data.token_budget": str(self.token_budget),
            "data.seed": str(self.seed),
            **({"data.mix": repr(self.mix)} if self.mix else {}),
        }


def _ratings(trees: list[Tree]) -> Iterable[bool]:
    """Of the answers of some trees, in their order; the mismatched ones have none."""
    return (path.desirable for tree in trees for path in tree.paths if path.desirable is not None)


def _counts(trees: list[Tree]) -> tuple[int, ...]:
    return tuple(len(tree.paths) // 2 for tree in trees)

"""Preference pairs that are read while training goes on, as windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.packing import GroupPlan
from lit_align.data.pair_tokenising import PairTokeniser, PairTokenising
from lit_align.data.part import BadRows, Workshop
from lit_align.data.preference import pair_counts
from lit_align.data.prepared.examples import Examples
from lit_align.data.stream_module import StreamDataModule
from lit_align.data.streaming.epoch import Refuse
from lit_align.data.trees import PairTrees, Trees
from lit_align.types import Outline, PairSource, PreferencePair


class PreferenceStream(StreamDataModule):
    """Windows of preference pairs that are read and tokenised while training goes on, and held nowhere.

    As :class:`~lit_align.data.sft_stream.SFTStream` for conversations. Pairs of one group (the questions about one
    table) that stand side by side in a source stay together and share their context, as far as a window and the token
    budget hold them.

    Args:
        base: The base whose tokenizer and chat template are used; linked to ``model.base``.
        sources: Where the pairs come from; several need ``mix``.
        mix: Shares of the sources, met at every moment to within a run of a group. Each weight is of one source. An
            epoch ends where a source does (``by: subsample``; of the others it trains the beginning, in each epoch),
            or where all were read whole (``repeat``), or at ``size``.
        val_sources: Where validation pairs come from, which are held in memory; what has the prompt of one of them, or
            is of its group, is not trained.
        window: Pairs an optimizer step, over all ranks, > 0; the last window of an epoch may be smaller.
        token_budget: Tokens a forest (one forward and backward pass), > 0; sets the memory, not the result.
        lengths: Token limits of prompt and answer; a pair of which one answer is dropped is dropped. ``max_dropped`` is
            held against what was read so far, from 1,000 rows of a source on.
        thinking: The template's thinking switch for prompts.
        bad_rows: What a row does that its source cannot read, whose answers are equal, or that the chat format refuses:
            ``stop`` the run with its name, or be counted and left out (``drop``).
        shuffle_buffer: Pairs of each source that are held and drawn from, >= 1; neighbours of one group count as one
            and stay together. 1 trains in the order of the source.
        seed: Seed of the order.
        workers: Processes that read, tokenise and build forests ahead.

    Raises:
        ValueError: A value is out of its range; several sources have no mix; a source's row breaks a rule, or a source
            has nothing to train.

    Example:
        >>> from lit_align.data.sources.skill_pairs import SkillPairs
        >>> data = PreferenceStream(sources=[SkillPairs(["rise"], n=10**9)], lengths=Lengths(max_length=256))
        >>> data.setup("fit")  # reads a thousand examples
        >>> data.source_names
        ('skill_pairs',)
    """

    holds = "pairs"
    undivided = "pair"

    def __init__(
        self,
        base: str = "tiny-qwen3",
        sources: list[PairSource] | None = None,
        mix: Mix | None = None,
        val_sources: list[PairSource] | None = None,
        window: int = 32,
        token_budget: int = 8192,
        lengths: Lengths = Lengths(),
        thinking: bool = False,
        bad_rows: BadRows = "stop",
        shuffle_buffer: int = 1000,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__(
            base, sources, mix, val_sources, window, token_budget, lengths, thinking, bad_rows, shuffle_buffer, seed,
            workers,
        )  # fmt: skip

    @property
    def _read(self) -> Callable[[PairSource, Refuse], Iterator[PreferencePair]]:
        return _streamed

    @property
    def _tokenise(self) -> PairTokeniser:
        return PairTokeniser(self.chat, self.lengths)

    def _settings(self) -> Mapping[str, object]:
        return {"lengths": self.lengths, "thinking": self.thinking}

    def _validation_part(self, workshop: Workshop) -> PairTokenising:
        return PairTokenising(
            self.chat, self.lengths, self.window, self.token_budget, self.bad_rows, "validation", workshop
        )

    def _drawn(self, part: PairTokenising, source: PairSource) -> list[Outline]:
        return part.read(_streamed(source, part.refuse))

    def _validation_trees(self, examples: Examples) -> Trees:
        return PairTrees(examples, self.window, self.token_budget)

    @property
    def _validation_plan(self) -> GroupPlan:
        return GroupPlan(pair_counts(self._validation), self.window, 0)


def _streamed(source: PairSource, refuse: Refuse) -> Iterator[PreferencePair]:
    return source.stream(_all, refuse)


def _all(group: str) -> bool:
    del group
    return True
